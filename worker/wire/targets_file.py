"""The targets of a load as users name them: `HOST:PORT,…`, or `@FILE` with the targets file that a fleet writes."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.wire.errors import FormatError

TARGETS_FILE = "targets.json"
_SCHEMA = 1


@dataclass(frozen=True)
class TargetEntry:
    """One server. What only a targets file knows is empty, and `pid` 0, where only the address was given."""

    address: str
    accelerator: str = ""
    model: str = ""
    pid: int = 0

    @property
    def name(self) -> str:
        """The accelerator, such as cpu:0, or the address where that is not known."""
        return self.accelerator or self.address


def parse_targets(text: str) -> list[TargetEntry]:
    """Returns the targets that `HOST:PORT,…` or `@FILE` names, in order; empty text names none.

    Raises FormatError where a file cannot be read, or an address is not HOST:PORT or stands there twice.
    """
    if text.startswith("@"):
        return read_targets_file(Path(text[1:]))
    addresses = [part.strip() for part in text.split(",") if part.strip()]
    return _checked([TargetEntry(address.split("://", 1)[-1].rstrip("/")) for address in addresses])


def read_targets_file(path: Path) -> list[TargetEntry]:
    """Returns the targets in the file that `write_targets_file` wrote. Raises FormatError, also where it names none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = [
            TargetEntry(
                str(entry["address"]),
                str(entry.get("accelerator", "")),
                str(entry.get("model", "")),
                int(entry.get("pid", 0)),
            )
            for entry in document["targets"]
        ]
    except OSError as error:
        raise FormatError(f"targets file {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FormatError(
            f"targets file {path} has the wrong format: expected the file that `fleet --targets-file` writes"
        ) from None
    if not entries:
        raise FormatError(f"targets file {path} names no target")
    return _checked(entries)


def write_targets_file(path: Path, entries: Sequence[TargetEntry]) -> None:
    """Writes the targets file at once: a reader sees all of it or none. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    document = {"schema": _SCHEMA, "targets": [asdict(entry) for entry in entries]}
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _checked(entries: list[TargetEntry]) -> list[TargetEntry]:
    addresses: set[str] = set()
    for entry in entries:
        host, colon, port = entry.address.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
            raise FormatError(f"target {entry.address}: write HOST:PORT")
        if entry.address in addresses:
            raise FormatError(f"target {entry.address} is given twice")
        addresses.add(entry.address)
    return entries
