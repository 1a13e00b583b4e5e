"""Hardware combinations: the key of every table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from capacity.errors import InputError

_TIMES = re.compile(r"(\d+)\s*[×x]\s+(.+)")
_TARGETS = re.compile(r"(.+) \((\d+) workers\)")


@dataclass(frozen=True)
class HardwareCombination:
    """`count` accelerators of one type, loaded as one pool, over `hosts` hosts of one type.

    `accelerator` is empty where the host has none. Raises InputError for a part whose name `parse` could not read back.
    """

    host: str
    accelerator: str
    count: int = 1
    hosts: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or self.hosts < 1:
            raise InputError(
                f"a hardware combination needs at least one host and one accelerator, not {self.hosts} and {self.count}"
            )
        for part in (self.host, self.accelerator):
            if part != " ".join(part.split()) or " + " in part or _TIMES.fullmatch(part) or _TARGETS.fullmatch(part):
                raise InputError(f"'{part}' cannot be the name of a host or an accelerator")
        if not self.host:
            raise InputError("expected the name of a host")

    @property
    def name(self) -> str:
        """`c5.large + eia2.medium`, `g5.12xlarge + 4 × a10g`, `2 × g5.xlarge + 2 × a10g`, `c5.xlarge`."""
        host = self.host if self.hosts == 1 else f"{self.hosts} × {self.host}"
        if not self.accelerator:
            return host if self.count == self.hosts else f"{host} ({self.count} workers)"
        return f"{host} + {self.accelerator if self.count == 1 else f'{self.count} × {self.accelerator}'}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Reads the `name` of a combination, with `×` or `x`; InputError in one sentence."""
        host, plus, accelerator = (part.strip() for part in name.partition(" + "))
        if not host or (plus and not accelerator):
            raise InputError(f"'{name}' is not a hardware combination such as 'c5.large + eia2.medium'")
        workers = None if plus else _TARGETS.fullmatch(host)
        if workers:
            host = workers[1]
        hosts, host = _split(host)
        count, accelerator = _split(accelerator) if plus else (int(workers[2]) if workers else hosts, "")
        return cls(host, accelerator, count, hosts)

    def __str__(self) -> str:
        return self.name


def _split(part: str) -> tuple[int, str]:
    match = _TIMES.fullmatch(part)
    return (int(match[1]), match[2]) if match else (1, part)
