"""JSON files that outlive this version: written in one step, read with their schema and every field checked."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

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


def read_json_file(kind: type[T], path: Path, schema: int) -> T:
    """Reads and checks it; ValueError in one sentence naming file and field."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found != schema:
        raise ValueError(f"{path} has schema {found!r}; this version reads {schema}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where, message = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {where}: {message}") from None
