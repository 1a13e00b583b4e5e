"""MLServer's side of bench_worker: the same TorchScript file, hosted as MLServer's custom runtimes are."""

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class TorchScript(MLModel):
    """Loads the file that `parameters.uri` names; as frozen and as free of gradients as the worker's."""

    async def load(self) -> bool:
        torch.set_num_threads(1)
        self._module = torch.jit.freeze(torch.jit.load(self.settings.parameters.uri).eval())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = NumpyCodec.decode_input(payload.inputs[0])
        with torch.inference_mode():
            result = self._module(torch.as_tensor(values)).numpy()
        return InferenceResponse(
            model_name=self.name, model_version="1", outputs=[NumpyCodec.encode_output("output_0", result)]
        )
