"""The price catalogue: prices and memory of hardware, the packaged one overlaid by the user's own."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from capacity.errors import InputError
from capacity.measures import HardwareCombination
from capacity.pricing.row_pricing import Price, UnknownPrice, price_row
from capacity.rundir import Row

#: The markets that an entry may have a price for; `price` is that of the first one.
MARKETS = ("on-demand", "spot", "reserved")

_GIB = 2**30
# The type of an accelerator that is a part of the host's own cores (`cpu:N`): it costs nothing beside the host.
_CORES = re.compile(r"cpu-\d+c")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    spot: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    reserved: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    currency: str = ""
    date: str = ""
    note: str = ""
    purchase: str = ""

    def price_in(self, market: str) -> float | None:
        """The price an hour in one of MARKETS."""
        return {"spot": self.spot, "reserved": self.reserved}.get(market, self.price)


class HostEntry(_Entry):
    """A host type: its price an hour, its memory, and the accelerators that are part of it at that price."""

    memory_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    accelerator: str = ""
    accelerators: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_accelerators(self) -> Self:
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError("expected both accelerator, a type, and accelerators, how many the host has, or neither")
        return self


class AcceleratorEntry(_Entry):
    """An accelerator type: its memory, and its price an hour where it is bought apart from a host."""

    memory_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class CombinationEntry(_Entry):
    """A combined price, which overrides the sum of its parts."""

    # Required here: an entry without a price would have no effect.
    price: float = Field(ge=0, allow_inf_nan=False)


class Catalogue(BaseModel):
    """Prices an hour and memory by name, in one currency and region, as of a date; see the packaged hardware.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = "USD"
    region: str = ""
    date: str = ""
    note: str = ""
    purchase: str = "on-demand"
    hosts: dict[str, HostEntry] = {}
    accelerators: dict[str, AcceleratorEntry] = {}
    combinations: dict[str, CombinationEntry] = {}
    targets: dict[str, str] = {}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name in (*self.combinations, *self.targets.values()):
            HardwareCombination.parse(name)
        return self

    @classmethod
    def load(cls, path: Path | None = None) -> Catalogue:
        """The packaged examples overlaid, entry by entry, by `path`, or by ./hardware.toml where there is one.

        Raises InputError that names the file, the line if it can be determined, and the field.
        """
        packaged = _packaged()
        own = path or Path("hardware.toml")
        if path is None and not own.is_file():
            return packaged
        try:
            text = own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the catalogue {own} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None
        return packaged.overlay(cls.parse(text, str(own)))

    @classmethod
    def parse(cls, text: str, name: str) -> Catalogue:
        """A catalogue from TOML; `name` is the file's, for messages. Raises InputError as `load` does."""
        try:
            data = tomllib.loads(text)
            catalogue = cls.model_validate(data)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{name}: {error}") from None
        except ValidationError as error:
            raise InputError(_describe_first(error, text, name)) from None
        return catalogue._with_defaults()

    def _with_defaults(self) -> Catalogue:
        """The catalogue with its currency, date and purchase in each entry: entries of two files can then be mixed."""

        def complete(entry: Any) -> Any:
            own = {key: getattr(entry, key) or getattr(self, key) for key in ("currency", "date", "purchase")}
            return entry.model_copy(update=own)

        return self.model_copy(
            update={
                kind: {name: complete(entry) for name, entry in getattr(self, kind).items()}
                for kind in ("hosts", "accelerators", "combinations")
            }
        )

    def overlay(self, own: Catalogue) -> Catalogue:
        """Returns this catalogue with the entries of another one, which replace those of the same name."""
        update: dict[str, Any] = {key: getattr(own, key) for key in own.model_fields_set}
        for kind in ("hosts", "accelerators", "combinations", "targets"):
            update[kind] = getattr(self, kind) | getattr(own, kind)
        return self.model_copy(update=update)

    def price(self, combination: HardwareCombination, market: str = MARKETS[0]) -> Price | UnknownPrice:
        """The price an hour of the whole combination in one of MARKETS, or why it is unknown.

        An accelerator that is bought separately has its own price in that market, else its ordinary one.
        """
        kind = "price" if market == MARKETS[0] else f"{market} price"
        whole = self.combinations.get(combination.name)
        if whole and (combined := whole.price_in(market)) is not None:
            return Price(combined, whole.currency, _note("combined price", whole, market))
        host = self.hosts.get(combination.host)
        host_price = None if host is None else host.price_in(market)
        if host is None or host_price is None:
            return UnknownPrice(f"no {kind} for the host '{combination.host}' in the catalogue")
        parts, total = [_note("host", host, market)], host_price * combination.hosts
        if combination.accelerator and not _CORES.fullmatch(combination.accelerator):
            if combination.accelerator == host.accelerator:
                if combination.count > host.accelerators * combination.hosts:
                    return UnknownPrice(
                        f"{combination.name} has more accelerators than the {host.accelerators} of each "
                        f"{combination.host} in the catalogue"
                    )
                if combination.count < host.accelerators * combination.hosts:
                    parts.append(f"whole host: {combination.count} of {host.accelerators * combination.hosts} in use")
            else:
                extra = self.accelerators.get(combination.accelerator)
                if extra is None or extra.price is None:
                    return UnknownPrice(f"no price for '{combination.accelerator}' beside '{combination.host}'")
                if extra.currency != host.currency:
                    return UnknownPrice(f"host and accelerator are priced in {host.currency} and {extra.currency}")
                own = extra.price_in(market)
                total += (extra.price if own is None else own) * combination.count
                parts.append(_note("accelerator", extra, market if own is not None else MARKETS[0]))
        return Price(round(total, 6), host.currency, "; ".join(parts))

    def price_row(self, row: Row) -> Row:
        """The row with the prices of this catalogue; implements capacity.rundir.RowPricer."""
        return price_row(row, self.price(HardwareCombination(row.host, row.accelerator, row.count, row.hosts)))

    def memory(self, combination: HardwareCombination) -> tuple[int | None, int | None]:
        """Bytes of one host, and of one accelerator; None where the catalogue does not say."""
        host = self.hosts.get(combination.host)
        accelerator = self.accelerators.get(combination.accelerator)
        return _bytes(host.memory_gib if host else None), _bytes(accelerator.memory_gib if accelerator else None)


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else round(gib * _GIB)


def _note(part_name: str, entry: _Entry, market: str = MARKETS[0]) -> str:
    purchase = entry.purchase if market == MARKETS[0] else market
    details = ", ".join(part for part in (purchase, entry.date, entry.note) if part)
    return f"{part_name}: {details}" if details else part_name


@cache
def _packaged() -> Catalogue:
    text = resources.files("capacity.pricing").joinpath("hardware.toml").read_text(encoding="utf-8")
    return Catalogue.parse(text, "the packaged hardware.toml")


def _describe_first(error: ValidationError, text: str, name: str) -> str:
    """The first of pydantic's errors in one sentence: file, line, field, what is wrong."""
    detail = error.errors(include_url=False, include_context=False)[0]
    path = [str(part) for part in detail["loc"]]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "no such field"
        if len(path) == 3 and path[0] in ("hosts", "accelerators") and isinstance(detail["input"], dict):
            message = f'no such field; a name with a dot needs quotes, [{path[0]}."{path[1]}.{path[2]}"]'
    line = _line_of(path, text)
    return f"{name}{f', line {line}' if line else ''}: {'.'.join(path) or 'the file'}: {message}"


def _line_of(path: list[str], text: str) -> int | None:
    """The number of the line that sets `path`, or the deepest part of it that the text contains."""
    headers: list[str] = []
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        key = re.match(r"""\s*(["']?)([^"'=#]+?)\1\s*=""", line)
        if header:
            headers = [quoted or plain for quoted, plain in re.findall(r"""["']([^"']*)["']|([^."'\s]+)""", header[1])]
            keys = headers
        elif key:
            keys = [*headers, key[2]]
        else:
            continue
        if keys == path[: len(keys)] and (best is None or len(keys) > best[0]):
            best = (len(keys), number)
    return best[1] if best else None
