"""JSON files that outlive this version: written in one step, read with their schema and every field checked."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from capacity.errors import InputError

T = TypeVar("T", bound=BaseModel)


def json_text(document: BaseModel) -> str:
    """The file's text; every number in it is finite."""
    data = document.model_dump(mode="json", by_alias=True)
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json_file(document: BaseModel, path: Path) -> Path:
    """Writes it in one step: a reader sees the old file or the new one, never half. OSError where it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json_text(document)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes it readable by its owner alone; results are as public as the folder they are in.
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def read_json_file(
    kind: type[T],
    path: Path,
    schema: int,
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
) -> T:
    """Reads and checks a document of this schema, or of one from which `upgrades` leads here one schema at a time.

    InputError in one sentence that names file and field.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    upgrades = upgrades or {}
    version = data.get("schema") if isinstance(data, dict) else None
    if isinstance(version, int) and version in upgrades:
        for number in range(version, schema):
            data = upgrades[number](data)
    if not isinstance(data, dict) or data.get("schema") != schema:
        expected = " or ".join(str(number) for number in sorted([*upgrades, schema]))
        raise InputError(f"{path} has schema {version!r}: expected schema {expected}, which this version reads")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where, message = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where}: {message}") from None
