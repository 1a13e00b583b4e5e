"""The options of a run: how they are added to Locust's parser, and how its namespace becomes one frozen Options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capacity.errors import InputError as CapacityInputError
from capacity.measures import HardwareCombination
from capacity.statistics import Slo
from loadgen._errors import InputError
from loadgen.schedule import ARRIVALS, CLOSED, OPEN_ARRIVALS, TRACE_PREFIX
from loadgen.transport import Access, Security
from worker.wire import FormatError, parse_duration_ns

ROUTERS = ("pinned", "round-robin", "random", "least-outstanding")
TRANSPORTS = ("wire", "grpcio")
SHAPES = ("steps", "slo-search")
#: Rows of the table at the end; `ordinal` is an older name of `target`.
ROWS = ("combination", "target", "ordinal")
#: When a run ends by its results; `resolved` is an older name of `verdict`.
UNTIL = ("verdict", "resolved")

#: Targets in the environment, for a command that a fleet runs (`inferload fleet … -- inferload load …`).
TARGETS_VARIABLE = "INFERLOAD_TARGETS"

#: Options of ours and of Locust's that are recorded in run.json.
RECORDED = frozenset(
    {
        *("targets", "arrivals", "user_rate", "seed", "max_in_flight", "router", "requests", "warmup", "deadline"),
        *("trace_scale", "trace_keep", "connections", "retries", "check_outputs", "expected"),
        *("slo", "until", "shape", "transport", "model", "hardware", "input", "input_shape", "run_dir", "catalogue"),
        *("host", "num_users", "spawn_rate", "run_time", "processes"),
    }
)


@dataclass(frozen=True)
class Options:
    """The options of one run. Durations are in nanoseconds. Empty `targets` mean an embedded fleet.

    `until_verdict`: the run ends once the verdict on the SLO is met or missed in every row. `table_by`: rows of the
    table at the end.
    """

    targets: str
    access: Access = field(repr=False)
    connections: int
    check_outputs: int
    expected: Path | None
    transport: str
    arrivals: str
    trace: Path | None
    trace_scale: float
    trace_keep: float
    user_rate: float
    seed: int
    max_in_flight: int
    router: str
    requests: int | None
    deadline_ns: int
    retries: int
    warmup_ns: int
    slo: Slo | None
    input_file: Path | None
    input_shapes: Mapping[str, tuple[int, ...]]
    hardware: HardwareCombination | None
    model: str
    run_dir: Path | None
    local_dir: Path | None
    catalogue: Path | None
    table_by: str
    shape: str
    strict: bool
    until_verdict: bool

    @property
    def is_open(self) -> bool:
        """Requests are due by a schedule that does not wait for replies."""
        return self.arrivals != CLOSED

    @classmethod
    def read(cls, namespace: Any) -> Options:
        """Reads and checks the options in the parser's namespace. Raises InputError."""
        if namespace.until and not namespace.slo:
            raise InputError(f"--until {namespace.until}: expected an SLO to judge, as in --slo p90=15ms")
        requests = _integer("--requests", namespace.requests, at_least=1) if namespace.requests else None
        arrivals = _arrivals(namespace)
        trace = arrivals.removeprefix(TRACE_PREFIX) if arrivals.startswith(TRACE_PREFIX) else ""
        return cls(
            targets=(namespace.targets or _host(namespace.host) or os.environ.get(TARGETS_VARIABLE, "")).strip(),
            access=_access(namespace),
            connections=_integer("--connections", namespace.connections, at_least=1),
            check_outputs=_integer("--check-outputs", namespace.check_outputs, at_least=0),
            expected=_existing("--expected", namespace.expected),
            transport=_choice("--transport", namespace.transport, TRANSPORTS),
            arrivals="trace" if trace else _choice("--arrivals", arrivals, (*ARRIVALS, "trace:FILE")),
            trace=_existing("--arrivals", trace),
            trace_scale=_rate("--trace-scale", namespace.trace_scale),
            trace_keep=min(1.0, _rate("--trace-keep", namespace.trace_keep)),
            user_rate=_rate("--user-rate", namespace.user_rate),
            seed=_integer("--seed", namespace.seed, at_least=0),
            max_in_flight=_integer("--max-in-flight", namespace.max_in_flight, at_least=1),
            router=_choice("--router", namespace.router, ROUTERS),
            requests=requests,
            deadline_ns=_duration("--deadline", namespace.deadline, at_least_ns=1_000_000),
            retries=_retries(namespace),
            warmup_ns=_duration("--warmup", namespace.warmup, at_least_ns=0),
            slo=_parsed("--slo", namespace.slo, Slo.parse) if namespace.slo else None,
            input_file=_existing("--input", namespace.input),
            input_shapes=_shapes(namespace.input_shape),
            hardware=_parsed("--hardware", namespace.hardware, HardwareCombination.parse)
            if namespace.hardware
            else None,
            model=namespace.model or "",
            run_dir=Path(namespace.run_dir) if namespace.run_dir else None,
            local_dir=Path(namespace.local_dir) if namespace.local_dir else None,
            catalogue=_existing("--catalogue", namespace.catalogue),
            table_by="combination" if _choice("--by", namespace.by, ROWS) == "combination" else "target",
            shape=namespace.shape,
            strict=bool(namespace.strict),
            until_verdict=bool(namespace.until and _choice("--until", namespace.until, UNTIL)),
        )


def register(parser: Any) -> None:
    """Adds the options to Locust's parser; listens to `init_command_line_parser`.

    All values are strings: they travel to Locust's workers in a msgpack message, and come from the web form as text.
    """
    group = parser.add_argument_group("inferload", "Which targets get which load, and what is recorded.")

    def add(name: str, default: str, text: str, *, metavar: str | None = None, web: bool = False) -> None:
        # Locust's own keyword for this works on the parser alone, not on a group of it.
        group.add_argument(name, default=default, help=text, metavar=metavar).include_in_web_ui = web

    add(
        "--targets",
        "",
        "Addresses of the targets, or the targets file of a fleet.",
        metavar="A,B|@FILE",
    )
    patterns = f"Pattern of arrivals: {', '.join(ARRIVALS)}, trace:FILE (default: closed; with --shape poisson)."
    add("--arrivals", "", patterns, metavar="NAME")
    shapes = "A search: steps up to saturation, or slo-search for the highest rate that meets --slo."
    add("--shape", "", shapes, metavar="|".join(SHAPES))
    add("--trace-scale", "1", "Plays a trace X times as fast.", metavar="X")
    add("--trace-keep", "1", "Sends this share of the rows of a trace, chosen at random.", metavar="SHARE")
    add("--user-rate", "1", "Arrivals a second of each user, in open arrivals.", metavar="R", web=True)
    add("--seed", "1", "Seed of random arrivals and routes.", metavar="N")
    add("--max-in-flight", "10000", "With more requests in flight, open arrivals are unsent.", metavar="N")
    add("--router", "pinned", f"Which target a request goes to: {', '.join(ROUTERS)}.", metavar="NAME")
    add("--requests", "", "Ends the run after N measured requests per target.", metavar="N", web=True)
    add("--warmup", "0s", "Time after the ramp-up whose requests are counted as warm-up.", metavar="5s", web=True)
    add("--deadline", "10s", "A request without a reply after this time has failed.", metavar="1s", web=True)
    add(
        "--retries",
        "0",
        "Sends a refused request again, up to N times; retries are counted.",
        metavar="N",
    )
    add("--slo", "", "Service level objective, e.g. p90=15ms or p99=50ms,errors=0.1%%.", metavar="p90=15ms", web=True)
    add("--until", "", "verdict: ends the run once the SLO is met or missed, or at --run-time.", metavar="verdict")
    add("--transport", "wire", "What carries requests: wire (made for load) or grpcio (the reference).", metavar="NAME")
    add("--connections", "1", "Connections to each target.", metavar="N")
    add("--target-ca", "", "TLS to the targets: root certificates (PEM), or `system`.", metavar="FILE")
    add("--target-cert", "", "Mutual TLS: the client's certificate (PEM).", metavar="FILE")
    add("--target-key", "", "Mutual TLS: its key (PEM).", metavar="FILE")
    add("--target-server-name", "", "Name in the targets' certificate, where it is not the address.", metavar="NAME")
    add("--target-token-file", "", "Bearer token for the targets.", metavar="FILE")
    add("--check-outputs", "0", "Compares the tensors of every N-th reply; 0: only the sizes of replies.", metavar="N")
    add("--expected", "", "Expected outputs by name (default: those of the first reply).", metavar="FILE.npz")
    add("--model", "", "The model, for a server that does not say which it serves.", metavar="NAME")
    add("--hardware", "", "The hardware of targets without Describe.", metavar='"g5.xlarge"')
    add("--input", "", "Input tensors by name (default: random ones).", metavar="FILE.npz")
    add("--input-shape", "", "Sizes of dimensions that the model leaves open.", metavar="NAME:1,7[;NAME:…]")
    add("--run-dir", "", "The run directory (default: runs/TIME).", metavar="DIR")
    add(
        "--local-dir",
        "",
        "Local log of each of several generators (default: runs/generators).",
        metavar="DIR",
    )
    add(
        "--catalogue",
        "",
        "Prices and memory (default: ./hardware.toml, else the packaged one).",
        metavar="FILE",
    )
    strict = group.add_argument("--strict", action="store_true", help="Exit code 1 also for a check that only warns.")
    strict.include_in_web_ui = False
    add(
        "--web-users",
        "",
        "Users of --web-login: lines that `inferload password NAME` prints.",
        metavar="FILE",
    )
    add("--by", "combination", "Rows of the table at the end: combination or target.", metavar="NAME")


def default_arrivals(shape: str) -> str:
    """The pattern of arrivals without --arrivals: a search needs arrivals that do not wait for replies."""
    return "poisson" if shape else CLOSED


def _arrivals(namespace: Any) -> str:
    """The pattern of arrivals. Raises InputError where --shape does not go with it, or with another option."""
    shape, arrivals = namespace.shape, namespace.arrivals or default_arrivals(namespace.shape)
    if shape:
        _choice("--shape", shape, SHAPES)
        if arrivals not in OPEN_ARRIVALS:
            raise InputError(f"--shape {shape} needs open arrivals: expected --arrivals {' or '.join(OPEN_ARRIVALS)}")
        if shape == "slo-search" and not namespace.slo:
            raise InputError("--shape slo-search: expected an SLO, as in --slo p90=15ms")
        for option in ("requests", "until"):
            if getattr(namespace, option):
                raise InputError(f"--shape {shape} ends by itself or after -t: leave out --{option}")
    return str(arrivals)


def _host(host: str | None) -> str:
    return (host or "").split("://", 1)[-1].rstrip("/")


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"{option} {value}: expected one of {', '.join(allowed)}")
    return value


def _parsed(option: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except (CapacityInputError, FormatError) as error:
        raise InputError(f"{option} {text}: {error}") from None


def _integer(option: str, text: str, *, at_least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise InputError(f"{option} {text}: expected a whole number") from None
    if value < at_least:
        raise InputError(f"{option} {text}: expected a whole number of at least {at_least}")
    return value


def _retries(namespace: Any) -> int:
    retries = _integer("--retries", namespace.retries, at_least=0)
    if retries and namespace.transport != "wire":
        raise InputError("--retries: expected --transport wire, which knows what requests were not executed")
    return retries


def _access(namespace: Any) -> Access:
    """TLS and token to the targets. TLS is on where one of its options is given; `system` means the system's roots."""
    root, certificate, key = namespace.target_ca, namespace.target_cert, namespace.target_key
    security = None
    if root or certificate or key or namespace.target_server_name:
        if bool(certificate) != bool(key):
            raise InputError("mutual TLS needs both --target-cert and --target-key")
        security = Security(
            None if root in ("", "system") else _bytes("--target-ca", root),
            _bytes("--target-cert", certificate) if certificate else None,
            _bytes("--target-key", key) if key else None,
            namespace.target_server_name or None,
        )
        try:
            security.context()
        except ValueError as error:
            raise InputError(str(error)) from None
    token = (
        _bytes("--target-token-file", namespace.target_token_file).decode("latin-1").strip()
        if namespace.target_token_file
        else None
    )
    if token is not None and not (token.isascii() and token.isprintable() and token):
        raise InputError(f"--target-token-file {namespace.target_token_file}: expected one line of printable ASCII")
    return Access(security, token)


def _bytes(option: str, text: str) -> bytes:
    try:
        return Path(text).read_bytes()
    except OSError as error:
        raise InputError(f"{option} {text}: {error.strerror}") from None


def _rate(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise InputError(f"{option} {text}: expected a number above 0")
    return value


def _duration(option: str, text: str, *, at_least_ns: int) -> int:
    value: int = _parsed(option, text, lambda duration: parse_duration_ns(duration, allow_zero=at_least_ns == 0))
    if value < at_least_ns:
        raise InputError(f"{option} {text}: expected at least {at_least_ns / 1e6:g}ms")
    return value


def _existing(option: str, text: str) -> Path | None:
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        raise InputError(f"{option} {text}: no such file")
    return path


def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for part in filter(None, (text or "").split(";")):
        name, colon, sizes = part.rpartition(":")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not colon or not name or not shape or min(shape) < 1:
            raise InputError(f"--input-shape {part}: expected NAME:1,7 with sizes of at least 1")
        shapes[name] = shape
    return shapes
