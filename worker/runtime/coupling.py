"""What simulated ordinals of one fleet cost each other: a table that they share says which of them are busy.

Real neighbours share memory bandwidth, power and cores in ways that nobody knows beforehand. Here the cost is said, so
that what a measurement finds can be held against it.
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

from worker.errors import UsageError

#: Where the table of this fleet is; set by the fleet, read by its workers.
TABLE_VARIABLE = "INFERLOAD_SIM_TABLE"
#: Ordinals that a table has room for.
SLOTS = 1024
#: One that ended its pass so recently is only handing over to the next.
HANDING_OVER_NS = 1_000_000


@dataclass(frozen=True)
class Coupling:
    """Service time of one ordinal grows by `own`, and by a share for each sibling that is busy when a pass begins.

    Shares are of the service time alone: 0.1 is a tenth. `others` has the shares that differ from `share`.
    """

    share: float = 0.0
    own: float = 0.0
    others: Mapping[int, float] | None = None

    def of(self, ordinal: int) -> float:
        """The share of a sibling."""
        return (self.others or {}).get(ordinal, self.share)


def parse(text: str, ordinal: int) -> Coupling:
    """`0.1`: each busy sibling costs a tenth. Else a JSON file, `{"sim:0": {"sim:1": 0.2, "sim:0": 0.1}}`: what sim:1
    costs sim:0, and by how much sim:0 is slower by itself. UsageError in one sentence."""
    try:
        return Coupling(share=_share(float(text)))
    except ValueError:
        pass
    try:
        document = json.loads(Path(text).read_text(encoding="utf-8"))
        rows = {
            _ordinal(name): {_ordinal(other): _share(float(s)) for other, s in row.items()}
            for name, row in document.items()
        }
    except OSError as error:
        raise UsageError(f"--sim-coupling {text}: neither a share such as 0.1 nor a file ({error.strerror})") from None
    except (ValueError, TypeError, AttributeError):
        raise UsageError(
            f'--sim-coupling {text} is not like {{"sim:0": {{"sim:1": 0.2}}}} with shares of at least 0'
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
def table(wanted: bool) -> Iterator[None]:
    """A table for the workers that this process starts meanwhile; nothing where none is wanted."""
    if not wanted:
        yield
        return
    with tempfile.NamedTemporaryFile(prefix="inferload-sim-") as file:
        file.truncate(8 * SLOTS)
        os.environ[TABLE_VARIABLE] = file.name
        try:
            yield
        finally:
            del os.environ[TABLE_VARIABLE]


class Siblings:
    """One ordinal's view of the table: until when (ns, monotonic clock of this host) each ordinal is busy.

    The clock goes on where a worker was killed, so nobody stays busy for ever.
    """

    def __init__(self, coupling: Coupling, ordinal: int) -> None:
        path = os.environ.get(TABLE_VARIABLE)
        if path is None:
            raise UsageError("--sim-coupling is between the workers of a fleet: python -m worker fleet")
        if ordinal >= SLOTS:
            raise UsageError(f"--sim-coupling has room for ordinals below {SLOTS}")
        self._until = np.memmap(path, np.int64, "r+", shape=(SLOTS,))
        self._ordinal = ordinal
        self._shares = np.array([coupling.of(other) for other in range(SLOTS)])
        self._shares[ordinal] = 0.0
        self._own = coupling.own

    def grown(self, takes_ns: int) -> int:
        """The service time with what the siblings that are busy now cost; marks this ordinal as busy so long."""
        now = time.monotonic_ns()
        busy = self._until > now - HANDING_OVER_NS
        takes = round(takes_ns * (1 + self._own + float(self._shares[busy].sum())))
        self._until[self._ordinal] = now + takes
        return takes
