"""The messages that Locust's workers send, and which data of each Locust's master can process without an exception."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

#: States that a heartbeat may report.
_STATES = frozenset({"ready", "spawning", "running", "cleanup", "stopping", "stopped", "missing"})
#: Fields of one entry of Locust's statistics: numbers, numbers or None, and counts by number.
_STATS_NUMBERS = ("start_time", "num_requests", "num_none_requests", "num_failures", "total_response_time")
_STATS_MORE_NUMBERS = ("max_response_time", "total_content_length")
_STATS_OPTIONAL = ("last_request_timestamp", "min_response_time")
_STATS_COUNTS = ("response_times", "num_reqs_per_sec", "num_fail_per_sec")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _are_user_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(count, int) and count >= 0 for name, count in value.items()
    )


def _is_heartbeat(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and data.get("state") in _STATES
        and _is_number(data.get("current_cpu_usage"))
        and _is_number(data.get("current_memory_usage", 0))
    )


def _is_stats(data: Any) -> bool:
    if not isinstance(data, dict) or not _are_user_counts(data.get("user_classes_count")):
        return False
    entries, errors = data.get("stats"), data.get("errors")
    return (
        isinstance(entries, list)
        and all(_is_stats_entry(entry) for entry in entries)
        and _is_stats_entry(data.get("stats_total"))
        and isinstance(errors, dict)
        and all(_is_stats_error(error) for error in errors.values())
    )


def _is_stats_entry(entry: Any) -> bool:
    return (
        _has_name(entry)
        and all(_is_number(entry.get(field, 0)) for field in (*_STATS_NUMBERS, *_STATS_MORE_NUMBERS))
        and all(entry.get(field) is None or _is_number(entry[field]) for field in _STATS_OPTIONAL)
        and all(_are_counts_by_number(entry.get(field, {})) for field in _STATS_COUNTS)
    )


def _is_stats_error(error: Any) -> bool:
    return (
        _has_name(error)
        and isinstance(error.get("error"), str)
        and isinstance(error.get("occurrences"), int)
        and all(error.get(field) is None or _is_number(error[field]) for field in ("first_seen", "last_seen"))
    )


def _has_name(entry: Any) -> bool:
    return (
        isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("method"), str | None)
    )


def _are_counts_by_number(counts: Any) -> bool:
    return isinstance(counts, dict) and all(_is_number(key) and isinstance(count, int) for key, count in counts.items())


def _is_log(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and isinstance(data.get("worker_id"), str)
        and isinstance(data.get("logs"), list)
        and all(isinstance(line, str) for line in data["logs"])
    )


def _is_exception(data: Any) -> bool:
    return isinstance(data, dict) and all(isinstance(data.get(field), str) for field in ("msg", "traceback"))


#: Message type -> whether the data of a message is what Locust's master expects of this type.
LOCUST_MESSAGES: Mapping[str, Callable[[Any], bool]] = {
    "client_ready": lambda data: isinstance(data, str) or data == -1,
    "locustfile": lambda data: isinstance(data, dict) and isinstance(data.get("version"), str),
    "client_stopped": lambda data: data is None,
    "heartbeat": _is_heartbeat,
    "stats": _is_stats,
    "spawning": lambda data: data is None,
    "spawning_complete": lambda data: isinstance(data, dict) and _are_user_counts(data.get("user_classes_count")),
    "logs": _is_log,
    "quit": lambda data: data is None,
    "exception": _is_exception,
}
