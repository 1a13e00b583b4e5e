"""What a simulated accelerator simulates: the distribution of its service times, its failures and its stalls."""

import base64
import random
import zlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from hdrh.histogram import HdrHistogram

from worker.errors import InputError
from worker.wire import FormatError, parse_duration_ns

# An encoded histogram begins with a cookie and a length, and inflated takes at most so many bytes, whatever its
# configuration.
_HEAD_BYTES = 8
_MAX_HISTOGRAM_BYTES = 8 << 20

#: Draws one service time in nanoseconds.
ServiceTime = Callable[[random.Random], int]


@dataclass(frozen=True)
class Simulation:
    """How a simulated accelerator behaves, as `--sim` and its companions describe it."""

    #: The distribution of service times as text, which Describe repeats.
    text: str = "fixed:10ms"
    #: Time added for each row of a batch beyond the first.
    per_row_ns: int = 0
    #: Share of forward passes that fail.
    failure_rate: float = 0.0
    #: Share of forward passes that stall, and for how long.
    stall_rate: float = 0.0
    stall_ns: int = 0
    seed: int = 0


def parse_service_time(text: str) -> ServiceTime:
    """Returns the distribution that `text` names. Raises InputError.

    `fixed:10ms`; `lognormal:5ms,0.2` with mean and coefficient of variation; `replay:RUN:TAG` with the recorded values
    of a tag in the interval log of a run directory.
    """
    name, _, parameters = text.partition(":")
    if name == "fixed":
        constant_ns = _duration_ns(text, parameters)
        return lambda rng: constant_ns
    if name == "lognormal":
        return _lognormal(text, parameters)
    if name == "replay":
        return _replay(text, parameters)
    raise InputError(f"unknown simulation {text!r} (choose fixed, lognormal or replay)")


def _duration_ns(text: str, duration: str) -> int:
    try:
        return parse_duration_ns(duration, allow_zero=True)
    except FormatError as error:
        raise InputError(f"simulation {text!r}: {error}") from None


def _lognormal(text: str, parameters: str) -> ServiceTime:
    mean_text, _, variation_text = parameters.partition(",")
    mean_ns = _duration_ns(text, mean_text)
    try:
        variation = float(variation_text)
    except ValueError:
        variation = -1.0
    if not 0 <= variation < 100 or mean_ns == 0:
        raise InputError(f"simulation {text!r}: write lognormal:MEAN,CV such as lognormal:5ms,0.2")
    # A lognormal's mean is exp(mu + sigma²/2) and its squared coefficient of variation exp(sigma²) - 1.
    sigma = float(np.sqrt(np.log1p(variation**2)))
    mu = float(np.log(mean_ns)) - sigma**2 / 2
    return lambda rng: round(rng.lognormvariate(mu, sigma))


def _replay(text: str, parameters: str) -> ServiceTime:
    directory, _, tag = parameters.partition(":")
    path = Path(directory)
    path = path / "run.hlog" if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"simulation {text!r}: {path} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None
    intervals = [line.removeprefix("Tag=").split(",") for line in lines if line.startswith("Tag=")]
    name = _select_tag(text, path, sorted({fields[0] for fields in intervals}), tag)
    counts: dict[int, int] = {}
    for fields in intervals:
        if fields[0] == name:
            _add_counts(counts, fields, path)
    values = sorted(counts)
    if not values:
        raise InputError(f"simulation {text!r}: {path} has no value under the tag {name}")
    cumulative = np.cumsum([counts[value] for value in values]).tolist()
    return lambda rng: 1000 * values[bisect_left(cumulative, rng.randint(1, cumulative[-1]))]


def _select_tag(text: str, path: Path, tags: list[str], tag: str) -> str:
    """Returns the one of `tags` that `tag` names exactly, or is a part of."""
    matches = [name for name in tags if tag in (name, unquote(name))] or [name for name in tags if tag in unquote(name)]
    if len(matches) != 1:
        problem = "is not a tag" if not matches else "matches more than one tag"
        raise InputError(
            f"simulation {text!r}: {tag!r} {problem} of {path} (choose one of {', '.join(tags) or 'none'})"
        )
    return matches[0]


def _add_counts(counts: dict[int, int], fields: list[str], path: Path) -> None:
    """Adds the values in microseconds of one interval of the log, which is tag, begin, length, maximum and payload."""
    try:
        payload = fields[4]
        # The library inflates without a bound.
        packed = base64.b64decode(payload, validate=True)[_HEAD_BYTES:]
        if len(zlib.decompressobj().decompress(packed, _MAX_HISTOGRAM_BYTES + 1)) > _MAX_HISTOGRAM_BYTES:
            raise ValueError("too large to be a histogram")
        histogram = HdrHistogram.decode(payload)
    except Exception:  # the library raises whatever zlib, struct or ctypes do
        raise InputError(f"{path} has a line under the tag {fields[0]} that is not a histogram") from None
    for value in histogram.get_recorded_iterator():
        lowest = histogram.get_lowest_equivalent_value(value.value_iterated_to)
        middle = (lowest + value.value_iterated_to) // 2
        counts[middle] = counts.get(middle, 0) + value.count_added_in_this_iter_step
