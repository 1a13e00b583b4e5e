"""Price catalogue, cost per 100,000 inferences, and the choice of hardware."""

from capacity.pricing.candidates import LabeledRow, choose_per_model, labeled_rows, shared_slo
from capacity.pricing.catalogue import MARKETS, Catalogue
from capacity.pricing.choice import Candidate, Choice, ChoiceStep, Excluded, exclude_by_memory
from capacity.pricing.cost import (
    format_axis_price,
    format_bytes,
    format_hourly,
    format_money,
    format_seconds,
    rate_per_100k,
    sequential_per_100k,
)
from capacity.pricing.row_pricing import UnknownPrice

__all__ = [
    "MARKETS",
    "Candidate",
    "Catalogue",
    "Choice",
    "ChoiceStep",
    "Excluded",
    "LabeledRow",
    "UnknownPrice",
    "choose_per_model",
    "exclude_by_memory",
    "format_axis_price",
    "format_bytes",
    "format_hourly",
    "format_money",
    "format_seconds",
    "labeled_rows",
    "rate_per_100k",
    "sequential_per_100k",
    "shared_slo",
]
