"""The price of 100,000 inferences, and amounts as text."""

from __future__ import annotations

import math

_SECONDS_PER_HOUR = 3600
_INFERENCES = 100_000
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def sequential_per_100k(price_per_hour: float, mean_us: float, count: int = 1) -> float:
    """The article's price of 100,000 inferences, one at a time on each of the `count` accelerators of this price.

    Price per second × mean seconds an inference × 100,000; the mean in µs, the result in the price's currency.
    """
    return price_per_hour / _SECONDS_PER_HOUR * mean_us / 1e6 * _INFERENCES / count


def rate_per_100k(price_per_hour: float, rps: float) -> float:
    """The price of 100,000 inferences at this throughput a second of everything that the price includes."""
    return price_per_hour / _SECONDS_PER_HOUR / rps * _INFERENCES


def rates_per_100k(price_per_hour: float, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """The prices at both ends of an interval of rates, the lower first; None without one, or if it contains 0."""
    if ends is None or ends[0] <= 0:
        return None
    return rate_per_100k(price_per_hour, ends[1]), rate_per_100k(price_per_hour, ends[0])


def format_bytes(count: float) -> str:
    """Bytes with a unit: 1.5 GiB."""
    power = 0
    while count >= 1024 and power < len(_UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.3g} {_UNITS[power]}"


def format_hourly(amount: float, currency: str) -> str:
    """A price an hour with all of its decimals: $0.205, $3.06."""
    digits = f"{amount:.4f}".rstrip("0")
    decimals = max(len(digits) - digits.index(".") - 1, 2)
    return f"{format_money(0, currency)[:-4]}{amount:,.{decimals}f}"


def format_axis_price(amount: float, currency: str) -> str:
    """A round amount at a tick of an axis: $0.025, $2.00."""
    digits = f"{amount:.6g}"
    decimals = len(digits.partition(".")[2]) if "e" not in digits else 9
    return f"{format_money(0, currency)[:-4]}{amount:,.{max(decimals, 2)}f}"


def format_seconds(seconds: float) -> str:
    """Seconds as 20 s, 3 min or 2 h, rounded up."""
    for unit, size_s in (("h", 3600), ("min", 60)):
        if seconds > 2 * size_s:
            return f"{math.ceil(seconds / size_s)} {unit}"
    return f"{math.ceil(seconds)} s"


def format_money(amount: float, currency: str) -> str:
    """$0.06, $0.0042, €1.20: two decimals, or two digits below 5 cents."""
    sign = {"USD": "$", "EUR": "€", "GBP": "£"}.get(currency, f"{currency} " if currency else "")
    decimals = 2 if amount == 0 or amount >= 0.05 else 1 - math.floor(math.log10(amount))
    return f"{sign}{amount:,.{decimals}f}"
