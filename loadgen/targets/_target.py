"""A target: one address under load, with the description that discovery made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capacity.measures import Series
from capacity.rundir import TargetInfo, parse_series_tag, series_tag
from loadgen.targets._payloads import TensorSpec


@dataclass(frozen=True)
class Target:
    """One address with its description. `series` is where its requests are counted.

    `version` is the version of the model that requests name, empty for any. `info` is None where the server has no
    Describe. `down` is the reason why the target did not answer when the run began, empty where it did.
    """

    address: str
    series: Series
    inputs: tuple[TensorSpec, ...] = ()
    version: str = ""
    info: TargetInfo | None = None
    down: str = ""

    def to_wire(self) -> dict[str, Any]:
        """What another generator needs to send load to it: plain msgpack types, without the description."""
        inputs = [[s.name, s.datatype, list(s.shape), list(s.example), s.below] for s in self.inputs]
        tag = series_tag(self.series, "latency")
        return {"address": self.address, "tag": tag, "inputs": inputs, "version": self.version}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Target:
        """The target that `to_wire` encoded."""
        inputs = tuple(
            TensorSpec(name, datatype, tuple(shape), tuple(example), below)
            for name, datatype, shape, example, below in wire["inputs"]
        )
        return cls(wire["address"], parse_series_tag(wire["tag"])[0], inputs, wire["version"])
