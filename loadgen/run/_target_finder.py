"""The targets of a run: those that the user names, else an embedded fleet that is started for it."""

from __future__ import annotations

from pathlib import Path

from capacity.pricing import Catalogue
from loadgen._options import Options
from loadgen.run._terminal import print_line
from loadgen.targets import EmbeddedFleet, Target, discover_targets, read_addresses


class TargetFinder:
    """Finds the targets of one run after another, and owns the embedded fleet, if there is one."""

    def __init__(self) -> None:
        self._fleet: EmbeddedFleet | None = None

    def find(self, options: Options, catalogue: Catalogue) -> tuple[Target, ...]:
        """Returns the targets, each of which was asked to describe itself. Raises InputError."""
        target_addresses = read_addresses(options.targets, Path.cwd()) or self.start_fleet().addresses
        targets = discover_targets(target_addresses, options, catalogue)
        for target in targets:
            if target.down:
                print_line(
                    f"warning: target {target.address} is down: {target.down}; its requests count as errors until it "
                    f"answers a health check"
                )
        return targets

    def start_fleet(self) -> EmbeddedFleet:
        """Starts the embedded fleet and waits until it serves, unless it does so already."""
        if self._fleet is None:
            print_line("no targets given: starting an embedded fleet, ResNet-18 on every cpu ordinal of this machine")
            self._fleet = EmbeddedFleet()
            print_line(f"embedded fleet is ready on {self._fleet.accelerators}")
        return self._fleet

    def stop_fleet(self) -> None:
        """Stops the embedded fleet, if there is one."""
        if self._fleet is not None:
            self._fleet.stop()
            self._fleet = None
