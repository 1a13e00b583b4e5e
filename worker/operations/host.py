"""The host and this process: instance type, peak memory, and versions of product, Python and gRPC."""

import contextlib
import json
import os
import re
import resource
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc

# Words in a processor's marketing name that do not distinguish one model from another.
_NOISE = re.compile(
    r"\((?:R|TM|tm)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*$|\bwith Radeon.*$|\b\d+(?:st|nd|rd|th) Gen\b",
    re.IGNORECASE,
)


def host_type(override: str | None = None, root: Path = Path("/")) -> str:
    """Returns the instance type under the name that its cloud sells it by.

    In order: `override`; the identity files of the cloud (EC2's Nitro hosts have the type in DMI, cloud-init stores the
    metadata of EC2 and Azure at boot); the processor and the number of cores, for example "AMD EPYC 2-core".
    `root` is where the files are looked for.
    """
    if override is not None:
        return override
    return _cloud_type(root) or f"{_processor(root)} {os.cpu_count() or 1}-core"


def _cloud_type(root: Path) -> str | None:
    dmi = root / "sys/class/dmi/id"
    if _read(dmi / "sys_vendor") == "Amazon EC2" and (name := _read(dmi / "product_name")):
        return name
    with contextlib.suppress(ValueError):
        metadata = json.loads(_read(root / "run/cloud-init/instance-data.json") or "null")
        for path in (("ds", "meta_data", "instance-type"), ("ds", "meta_data", "imds", "compute", "vmSize")):
            value = metadata
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, str) and value:
                return value
    return None


def _processor(root: Path) -> str:
    """Returns the processor's name without trade marks and clock rate, or the machine's architecture."""
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return " ".join(_NOISE.sub(" ", value).split())
    return os.uname().machine


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def process_peak_bytes() -> int:
    """Returns the highest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


def product_version() -> str:
    """Returns the version of the installed product."""
    try:
        return version("inferload")
    except PackageNotFoundError:
        return "0+unknown"


def runtime_versions() -> dict[str, str]:
    """Returns the versions of product, Python and gRPC by name."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"inferload": product_version(), "python": python, "grpcio": grpc.__version__}
