"""What Locust provides for a run: its control, links between its processes, sockets with authentication, Ctrl-C."""

from loadgen.adapter._interrupts import InterruptHandler
from loadgen.adapter._runner import LocustControl, LocustGeneratorLink, LocustMasterLink
from loadgen.adapter._sockets import SocketReplacement, open_port_warning

__all__ = [
    "InterruptHandler",
    "LocustControl",
    "LocustGeneratorLink",
    "LocustMasterLink",
    "SocketReplacement",
    "open_port_warning",
]
