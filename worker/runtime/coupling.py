"""Coupling of simulated ordinals: how much the service time of one grows while others of its fleet are busy.

Real neighbours share memory bandwidth, power and cores, at a cost that is unknown beforehand. Here the cost is an
input, so that a measurement can be compared with it.
"""

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.errors import InputError

#: Environment variable with the path of the fleet's table; set by the fleet, read by its workers.
TABLE_VARIABLE = "INFERLOAD_SIM_TABLE"
#: Number of ordinals in a table.
SLOTS = 1024
#: An ordinal whose pass ended so recently still counts as busy: its next pass is about to begin.
PAUSE_NS = 1_000_000


@dataclass(frozen=True)
class Coupling:
    """Growth of one ordinal's service time: by `own`, and by a share for each sibling that is busy when a pass begins.

    Shares are of the service time alone: 0.1 is a tenth. `others` has the shares that differ from `share`.
    """

    share: float = 0.0
    own: float = 0.0
    others: Mapping[int, float] | None = None

    def share_of(self, ordinal: int) -> float:
        """Returns the share of a sibling."""
        return (self.others or {}).get(ordinal, self.share)


def parse_coupling(text: str, ordinal: int) -> Coupling:
    """Returns the coupling of an ordinal. Raises InputError.

    `text` is a share such as `0.1` (each busy sibling costs a tenth), or the path of a JSON file such as
    `{"sim:0": {"sim:1": 0.2, "sim:0": 0.1}}`: the cost of sim:1 for sim:0, and how much slower sim:0 is by itself.
    """
    with contextlib.suppress(ValueError):
        return Coupling(share=_share(float(text)))
    try:
        document = json.loads(Path(text).read_text(encoding="utf-8"))
        rows = {
            _ordinal(name): {_ordinal(other): _share(float(share)) for other, share in row.items()}
            for name, row in document.items()
        }
    except OSError as error:
        raise InputError(f"--sim-coupling {text}: neither a share such as 0.1 nor a file ({error.strerror})") from None
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f'--sim-coupling {text}: write shares of at least 0 by ordinals, such as {{"sim:0": {{"sim:1": 0.2}}}}'
        ) from None
    row = rows.get(ordinal, {})
    return Coupling(own=row.get(ordinal, 0.0), others={other: s for other, s in row.items() if other != ordinal})


def _share(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError("a share is at least 0")
    return value


def _ordinal(name: str) -> int:
    kind, _, number = name.partition(":")
    if kind != "sim" or not number.isdigit() or int(number) >= SLOTS:
        raise ValueError("not a simulated ordinal")
    return int(number)


@contextlib.contextmanager
def coupling_table(enabled: bool) -> Iterator[None]:
    """Creates the table for the workers that this process starts inside the block; does nothing unless `enabled`."""
    if not enabled:
        yield
        return
    with tempfile.NamedTemporaryFile(prefix="inferload-sim-") as file:
        file.truncate(8 * SLOTS)
        os.environ[TABLE_VARIABLE] = file.name
        try:
            yield
        finally:
            del os.environ[TABLE_VARIABLE]


class CoupledOrdinal:
    """One ordinal at the table: until when (ns, monotonic clock of this host) each ordinal is busy.

    The clock goes on where a worker was killed, so that no ordinal stays busy for ever.
    """

    def __init__(self, coupling: Coupling, ordinal: int) -> None:
        path = os.environ.get(TABLE_VARIABLE)
        if path is None:
            raise InputError("--sim-coupling needs the workers of a fleet: start them with python -m worker fleet")
        if ordinal >= SLOTS:
            raise InputError(f"--sim-coupling takes ordinals below {SLOTS}, not {ordinal}")
        self._busy_until_ns = np.memmap(path, np.int64, "r+", shape=(SLOTS,))
        self._ordinal = ordinal
        self._shares = np.array([coupling.share_of(other) for other in range(SLOTS)])
        self._shares[ordinal] = 0.0
        self._own = coupling.own

    def extend(self, service_ns: int) -> int:
        """Returns the service time with the cost of the siblings that are busy now, and marks this ordinal as busy."""
        now_ns = time.monotonic_ns()
        busy = self._busy_until_ns > now_ns - PAUSE_NS
        extended_ns = round(service_ns * (1 + self._own + float(self._shares[busy].sum())))
        self._busy_until_ns[self._ordinal] = now_ns + extended_ns
        return extended_ns
