"""TorchScript files: the specification of inputs and outputs inside them, and copies with a verified SHA-256."""

import fcntl
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.errors import InputError
from worker.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

EXTRA_FILE = "inferload.json"
_MAX_SPECIFICATION_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20


class Specification(BaseModel):
    """A model's name, how it was made, and its inputs and outputs. Stored in the file's `_extra_files`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=1, alias="schema", ge=1, le=1)
    name: str
    # "trace", "script", or "foreign" where the file has no specification.
    mode: str
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    # Empty until the first inference has shown the outputs of a foreign model.
    outputs: tuple[TensorSpec, ...] = ()

    @property
    def is_batched(self) -> bool:
        """True where the first dimension of every tensor is the batch."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))

    def to_json(self) -> str:
        """Returns the text that `read_specification` reads."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


def read_specification(path: Path, inputs: Sequence[TensorSpec] = (), name: str | None = None) -> Specification:
    """Reads the specification out of a TorchScript file, without torch.

    `inputs` describe a foreign file, and replace the specification in one of ours; `name` replaces the model's name.
    Raises InputError where the file is missing, is not TorchScript, or has no specification and `inputs` is empty.
    """
    text = _specification_text(path)
    try:
        specification = None if text is None else Specification.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path} has a specification that cannot be read: {error.errors()[0]['msg']}") from None
    if inputs:
        mode = specification.mode if specification else "foreign"
        return Specification(name=name or path.stem, mode=mode, inputs=tuple(inputs))
    if specification is None:
        raise InputError(f"{path} has no specification of its inputs: add --input NAME:DATATYPE:SHAPE (x:INT64:-1,7)")
    return specification.model_copy(update={"name": name}) if name else specification


def _specification_text(path: Path) -> bytes | None:
    """Returns the specification inside a TorchScript file, or None where it has none. Raises InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.partition("/")[2]: member for member in archive.namelist()}
            # torch.save writes a zip too; only TorchScript's has code and constants in it.
            if "constants.pkl" not in members:
                raise InputError(
                    f"{path} is not a TorchScript file (it may hold a state dict: trace or script the model)"
                )
            extra = members.get(f"extra/{EXTRA_FILE}")
            if extra is not None and archive.getinfo(extra).file_size > _MAX_SPECIFICATION_BYTES:
                raise InputError(f"{path} has a specification of more than {_MAX_SPECIFICATION_BYTES} bytes")
            return None if extra is None else archive.read(extra)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (zipfile.BadZipFile, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a zip archive"
        raise InputError(f"{path} is not a TorchScript file ({reason})") from None


def save_model(module: "torch.jit.ScriptModule", path: Path, specification: Specification) -> None:
    """Writes a TorchScript file with its specification inside."""
    import torch

    torch.jit.save(module, str(path), _extra_files={EXTRA_FILE: specification.to_json()})


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified_copy(path: Path, expected: str) -> Path:
    """Returns the path of a private copy of the file, whose bytes have the SHA-256 `expected` (hexadecimal).

    A TorchScript file is code, and the file at `path` can change between its verification and loading it: the bytes
    that are hashed are those that will be loaded. The copy has no name that another process could open for writing; on
    Linux the kernel refuses writes to it altogether. It lives as long as this process. Raises InputError where the file
    cannot be read or has another SHA-256.
    """
    if len(expected) != 64 or not set(expected.lower()) <= set("0123456789abcdef"):
        raise InputError(f"--sha256 {expected!r}: write 64 hexadecimal digits, as sha256sum prints them")
    digest = hashlib.sha256()
    descriptor = _private_file()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                _write_all(descriptor, piece)
    except OSError as error:
        os.close(descriptor)
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if digest.hexdigest() != expected.lower():
        os.close(descriptor)
        raise InputError(f"{path} has SHA-256 {digest.hexdigest()}, not the one that --sha256 names")
    if hasattr(fcntl, "F_ADD_SEALS"):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return Path(f"/dev/fd/{descriptor}")


def _private_file() -> int:
    """Returns the descriptor of a file without a name: in memory where the system has such files, else on disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write_all(descriptor: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
