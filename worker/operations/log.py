"""The worker's log: one JSON object a line on stderr."""

import json
import logging
import sys
import time
from typing import Any

LOG_LEVELS = ("debug", "info", "warning", "error")
_LOGGER = logging.getLogger("inferload.worker")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        document = {"time": f"{moment}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        document |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def configure_log(level: str) -> None:
    """Writes everything that this process logs from `level` on, gRPC's own messages included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def log_info(event: str, **fields: Any) -> None:
    """Logs an event with named values."""
    _LOGGER.info(event, extra={"fields": fields})


def log_warning(event: str, **fields: Any) -> None:
    """Logs an event that an operator should look into, with named values."""
    _LOGGER.warning(event, extra={"fields": fields})
