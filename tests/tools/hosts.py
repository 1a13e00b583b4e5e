"""Hosts that are network namespaces, joined by bridges in one more; it is all gone when the test is, come what may."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field


class Forbidden(Exception):
    """The kernel lets nobody here make network namespaces; why."""


@dataclass
class Hosts:
    """`inside(NAME)` goes before a command that is to run on that host; `cut` and `mend` pull and plug a cable."""

    holders: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def inside(self, name: str) -> tuple[str, ...]:
        return ("nsenter", f"--target={self.holders[name].pid}", "--net")

    def cut(self, name: str, network: str) -> None:
        """From now on, what this host sends into the network and gets from it is lost without a word."""
        self._ip("hub", "link", "set", f"{name}-{network}", "nomaster")

    def mend(self, name: str, network: str) -> None:
        self._ip("hub", "link", "set", f"{name}-{network}", "master", network)

    def plug(self, name: str, network: str, address: str) -> None:
        port = f"{name}-{network}"
        holder, hub = (str(self.holders[one].pid) for one in (name, "hub"))
        self._ip("hub", "link", "add", port, "type", "veth", "peer", "name", network, "netns", holder)
        self._ip("hub", "link", "set", port, "master", network, "netns", hub, "up")
        self._ip(name, "address", "add", f"{address}/24", "dev", network)
        self._ip(name, "link", "set", network, "up")

    def _ip(self, name: str, *arguments: str) -> None:
        done = subprocess.run([*self.inside(name), "ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Forbidden(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    def _hold(self, name: str) -> None:
        """A process that keeps the namespace there, and ends with the pipe from here."""
        try:
            holder = subprocess.Popen(
                ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise Forbidden(str(error)) from None
        self.holders[name] = holder
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            holder.stdin.write(b"\n")
            holder.stdin.flush()
        except BrokenPipeError:
            pass
        if not holder.stdout.readline():
            raise Forbidden(holder.stderr.read().decode().strip())
        self._ip(name, "link", "set", "lo", "up")

    def _release(self) -> None:
        for holder in self.holders.values():
            holder.communicate()


@contextmanager
def hosts(networks: dict[str, dict[str, str]]) -> Iterator[Hosts]:
    """Hosts by what they are plugged into: {network: {host: IPv4 address}}, /24 each. Raises Forbidden."""
    made = Hosts()
    with ExitStack() as stack:
        stack.callback(made._release)
        made._hold("hub")
        for name in sorted({name for plugged in networks.values() for name in plugged}):
            made._hold(name)
        for network, plugged in networks.items():
            made._ip("hub", "link", "add", network, "type", "bridge")
            made._ip("hub", "link", "set", network, "up")
            for name, address in plugged.items():
                made.plug(name, network, address)
        yield made
