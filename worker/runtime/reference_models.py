"""Export of the reference models: OpenAI's GPT and ResNet-18."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import InputError
from worker.runtime.model_file import Specification, save_model
from worker.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

REFERENCE_MODELS = ("gpt", "resnet18")


def export_model(model: str, mode: str, path: Path, weights: str = "random") -> Specification:
    """Writes one of the reference models, with its specification, to `path`, and returns the specification.

    `gpt`: OpenAI's GPT at its published size (117 M parameters), as the article measured it; `mode` trace only.
    `resnet18`: ResNet-18 in plain torch, `mode` trace or script. `weights` is random, or pretrained for gpt. Raises
    InputError, or OSError where the file cannot be written.
    """
    try:
        import torch
    except ImportError:
        raise InputError("export needs torch: pip install 'inferload[worker]'") from None

    # Tracing warns of Python values that become constants: here they are sizes of the model, and constant.
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    if model == "gpt":
        module, specification = _gpt(mode, weights)
    elif model == "resnet18":
        if weights != "random":
            raise InputError("resnet18 has random weights only: its latency does not depend on their values")
        module, specification = _resnet18(mode)
    else:
        raise InputError(f"unknown reference model {model!r} (choose {' or '.join(REFERENCE_MODELS)})")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(module, path, specification)
    return specification


def _gpt(mode: str, weights: str) -> "tuple[torch.jit.ScriptModule, Specification]":
    import torch

    if mode != "trace":
        raise InputError("gpt can only be traced (--mode trace): TorchScript cannot compile the code of transformers")
    try:
        from transformers import OpenAIGPTConfig, OpenAIGPTModel, logging

        logging.set_verbosity_error()
    except ImportError:
        raise InputError("export gpt needs transformers: pip install 'inferload[models]'") from None
    if weights == "random":
        # use_cache does not exist here and return_dict must be off: tracing wants a tuple.
        module = OpenAIGPTModel(OpenAIGPTConfig(return_dict=False))
    elif weights == "pretrained":
        try:
            module = OpenAIGPTModel.from_pretrained("openai-community/openai-gpt", return_dict=False)
        except Exception as error:  # transformers raises whatever its download library does
            raise InputError(f"the pretrained weights cannot be downloaded: {str(error).splitlines()[0]}") from None
    else:
        raise InputError(f"unknown weights {weights!r} (choose random or pretrained)")
    vocabulary, width = module.config.vocab_size, module.config.n_embd
    example = torch.randint(0, vocabulary, (1, 7))
    with torch.no_grad():
        traced = torch.jit.trace(module.eval(), example)
    input_spec = TensorSpec(name="input_ids", datatype="INT64", shape=(-1, -1), example=(1, 7), high=vocabulary)
    output_spec = TensorSpec(name="last_hidden_state", datatype="FP32", shape=(-1, -1, width))
    return traced, Specification(name="gpt", mode="trace", inputs=(input_spec,), outputs=(output_spec,))


def _resnet18(mode: str) -> "tuple[torch.jit.ScriptModule, Specification]":
    import torch

    from worker.runtime.resnet import resnet18

    module = resnet18().eval()
    if mode == "trace":
        with torch.no_grad():
            compiled: Any = torch.jit.trace(module, torch.rand(1, 3, 224, 224))
    elif mode == "script":
        compiled = torch.jit.script(module)
    else:
        raise InputError(f"unknown mode {mode!r} (choose trace or script)")
    input_spec = TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 224, 224), example=(1, 3, 224, 224))
    output_spec = TensorSpec(name="logits", datatype="FP32", shape=(-1, 1000))
    return compiled, Specification(name="resnet18", mode=mode, inputs=(input_spec,), outputs=(output_spec,))
