"""TorchScript files: the reference models' export, and the specification of inputs and outputs inside the file."""

import fcntl
import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.errors import UsageError
from worker.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

EXTRA_FILE = "inferload.json"
_MOST_SPECIFICATION = 1 << 20


class Specification(BaseModel):
    """What a model is called, how it was made, and what it takes and gives. Kept in the file's `_extra_files`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=1, alias="schema", ge=1, le=1)
    name: str
    # "trace", "script", or "foreign" where the file does not say.
    mode: str
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    # Empty until the first inference has shown what a foreign model gives.
    outputs: tuple[TensorSpec, ...] = ()

    @property
    def batches(self) -> bool:
        """True where the first dimension of every tensor is the batch."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)


def read_specification(path: Path, inputs: Sequence[TensorSpec] = (), name: str | None = None) -> Specification:
    """Reads the specification out of a TorchScript file, without torch.

    `inputs` describe a foreign file, and replace what is said in one of ours. UsageError in one sentence where the
    file is missing, is not TorchScript, or says nothing and `inputs` neither.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.partition("/")[2]: member for member in archive.namelist()}
            # torch.save writes a zip too; only TorchScript's has code and constants in it.
            if "constants.pkl" not in members:
                raise UsageError(
                    f"{path} is not a TorchScript file (it may hold a state dict: trace or script the model)"
                )
            extra = members.get(f"extra/{EXTRA_FILE}")
            if extra is not None and archive.getinfo(extra).file_size > _MOST_SPECIFICATION:
                raise UsageError(f"{path} carries a specification of more than {_MOST_SPECIFICATION} bytes")
            text = None if extra is None else archive.read(extra)
    except FileNotFoundError:
        raise UsageError(f"{path} is not there") from None
    except (zipfile.BadZipFile, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no zip archive"
        raise UsageError(f"{path} is not a TorchScript file ({reason})") from None
    try:
        found = None if text is None else Specification.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{path} carries a specification that cannot be read: {error.errors()[0]['msg']}") from None
    if found is None or inputs:
        if not inputs:
            raise UsageError(f"{path} does not say what it takes; add --input NAME:DATATYPE:SHAPE, as in x:INT64:-1,7")
        return Specification(name=name or path.stem, mode=found.mode if found else "foreign", inputs=tuple(inputs))
    return found.model_copy(update={"name": name}) if name else found


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(path: Path, wanted: str) -> Path:
    """A private copy of the file whose bytes have the SHA-256 `wanted` (hex): what is hashed is what will be loaded.

    A TorchScript file is code, and the file at `path` can change between a look at it and loading it. The copy has no
    name that another process could open for writing; on Linux the kernel refuses writes to it altogether. It lives as
    long as this process. UsageError in one sentence where the file is not there, or is another one.
    """
    if len(wanted) != 64 or not set(wanted.lower()) <= set("0123456789abcdef"):
        raise UsageError(f"--sha256 is 64 hexadecimal digits, as sha256sum prints them, not {wanted!r}")
    digest = hashlib.sha256()
    descriptor = _private_file()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                _write_all(descriptor, piece)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if digest.hexdigest() != wanted.lower():
        os.close(descriptor)
        raise UsageError(f"{path} is not the file that --sha256 names: its SHA-256 is {digest.hexdigest()}")
    if hasattr(fcntl, "F_ADD_SEALS"):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return Path(f"/dev/fd/{descriptor}")


_PIECE = 1 << 20


def _private_file() -> int:
    """A file without a name: in memory where the system has such files, else one that is deleted already."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write_all(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


def save(module: "torch.jit.ScriptModule", path: Path, specification: Specification) -> None:
    import torch

    torch.jit.save(module, str(path), _extra_files={EXTRA_FILE: specification.to_json()})


def export(model: str, mode: str, path: Path, weights: str = "random") -> Specification:
    """Writes one of the reference models, with its specification, to `path`.

    `gpt`: OpenAI's GPT at its published size (117 M parameters), as the article measured it; traced only.
    `resnet18`: ResNet-18 in plain torch, traced or scripted. UsageError in one sentence.
    """
    try:
        import torch
    except ImportError:
        raise UsageError("export needs torch: pip install 'inferload[worker]'") from None

    # Tracing warns of Python values that become constants: here they are sizes of the model, and constant.
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    if model == "gpt":
        module, specification = _gpt(mode, weights)
    elif model == "resnet18":
        if weights != "random":
            raise UsageError("resnet18 has random weights only: its latency does not depend on their values")
        module, specification = _resnet18(mode)
    else:
        raise UsageError(f"{model!r} is not a reference model; those are gpt and resnet18")
    path.parent.mkdir(parents=True, exist_ok=True)
    save(module, path, specification)
    return specification


def _gpt(mode: str, weights: str) -> "tuple[torch.jit.ScriptModule, Specification]":
    import torch

    if mode != "trace":
        raise UsageError(
            "gpt can only be traced: scripting it fails in transformers, whose code TorchScript cannot compile"
        )
    try:
        from transformers import OpenAIGPTConfig, OpenAIGPTModel, logging

        logging.set_verbosity_error()
    except ImportError:
        raise UsageError("export gpt needs transformers: pip install 'inferload[models]'") from None
    if weights == "random":
        # use_cache does not exist here and return_dict must be off: tracing wants a tuple.
        module = OpenAIGPTModel(OpenAIGPTConfig(return_dict=False))
    elif weights == "pretrained":
        try:
            module = OpenAIGPTModel.from_pretrained("openai-community/openai-gpt", return_dict=False)
        except Exception as error:  # transformers raises whatever its download library does
            raise UsageError(f"the pretrained weights cannot be had: {str(error).splitlines()[0]}") from None
    else:
        raise UsageError(f"--weights is random or pretrained, not {weights!r}")
    vocabulary, width = module.config.vocab_size, module.config.n_embd
    example = torch.randint(0, vocabulary, (1, 7))
    with torch.no_grad():
        traced = torch.jit.trace(module.eval(), example)
    takes = TensorSpec(name="input_ids", datatype="INT64", shape=(-1, -1), example=(1, 7), high=vocabulary)
    gives = TensorSpec(name="last_hidden_state", datatype="FP32", shape=(-1, -1, width))
    return traced, Specification(name="gpt", mode="trace", inputs=(takes,), outputs=(gives,))


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
        raise UsageError(f"--mode is trace or script, not {mode!r}")
    takes = TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 224, 224), example=(1, 3, 224, 224))
    gives = TensorSpec(name="logits", datatype="FP32", shape=(-1, 1000))
    return compiled, Specification(name="resnet18", mode=mode, inputs=(takes,), outputs=(gives,))
