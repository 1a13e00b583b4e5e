"""What the worker says of itself on stderr: one JSON object a line."""

import json
import logging
import sys
import time
from typing import Any

LEVELS = ("debug", "info", "warning", "error")
_log = logging.getLogger("inferload.worker")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said = {"time": f"{moment}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        said |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        return json.dumps(said, default=str)


def configure(level: str) -> None:
    """Everything that is logged in this process, gRPC's own included, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def info(event: str, **fields: Any) -> None:
    _log.info(event, extra={"fields": fields})


def warning(event: str, **fields: Any) -> None:
    _log.warning(event, extra={"fields": fields})
