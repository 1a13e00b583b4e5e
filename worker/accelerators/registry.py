"""Every kind of accelerator by name, and discovery over all of them."""

from collections.abc import Sequence

from worker.accelerators.cpu import Cpu
from worker.accelerators.cuda import Cuda
from worker.accelerators.elastic_inference import ElasticInference
from worker.accelerators.kind import Accelerator, AcceleratorKind, KindOptions
from worker.accelerators.mps import Mps
from worker.accelerators.neuron import Neuron
from worker.accelerators.sim import Sim
from worker.accelerators.xpu import Xpu
from worker.errors import InputError

#: All kinds, in the order in which `accelerators` lists them. A new kind needs one line here.
KINDS: dict[str, type[AcceleratorKind]] = {
    kind.name: kind
    for kind in (
        Cpu,
        Cuda,
        ElasticInference,
        Xpu,
        Mps,
        Neuron,
        Sim,
    )
}


def make_kind(name: str, options: KindOptions | None = None) -> AcceleratorKind:
    """Returns the kind of this name. Raises InputError for an unknown one."""
    if name not in KINDS:
        raise InputError(f"unknown kind of accelerator {name!r} (choose {_names()})")
    return KINDS[name](options)


def discover_accelerators(options: KindOptions | None = None) -> list[Accelerator]:
    """Returns every accelerator of this host, in the order of KINDS. Takes as long as importing torch."""
    return [accelerator for name in KINDS for accelerator in make_kind(name, options).discover()]


def parse_accelerator(text: str) -> tuple[str, int]:
    """Returns kind and ordinal of `KIND:ORDINAL`. Raises InputError."""
    kind, _, ordinal = text.partition(":")
    if kind not in KINDS:
        raise InputError(f"unknown accelerator {text!r}: write KIND:ORDINAL such as cpu:0 (kinds: {_names()})")
    if not ordinal.isascii() or not ordinal.isdigit():
        raise InputError(f"unknown accelerator {text!r}: write a whole number as the ordinal, such as {kind}:0")
    return kind, int(ordinal)


def parse_accelerators(text: str, options: KindOptions) -> list[str]:
    """Returns the names KIND:ORDINAL in a comma list in which a kind alone stands for all its ordinals on this host.

    Raises InputError where the list is empty, names an ordinal twice, or a kind of which this host has none.
    """
    names: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if ":" in part:
            parse_accelerator(part)
            names.append(part)
            continue
        kind = make_kind(part, options)
        if kind.simulated:
            raise InputError(f"{part!r} needs ordinals, because every one exists: write {part}:0,{part}:1")
        accelerators = kind.discover()
        if not accelerators:
            raise InputError(f"this host has no accelerator of kind {part}")
        names += [accelerator.name for accelerator in accelerators]
    if not names:
        raise InputError("the list of accelerators is empty: write one such as cpu:0,cpu:1 or cpu")
    if repeated := _repeated(names):
        raise InputError(f"the list of accelerators names {', '.join(repeated)} twice")
    return names


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _names() -> str:
    *first, last = KINDS
    return f"{', '.join(first)} or {last}"
