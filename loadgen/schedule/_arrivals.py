"""When requests are due, by --arrivals: the generators are capacity's, which simulates with the same; here is what else
the load needs of traces.

Each Locust user is one independent source, so Locust's user count sets the offered rate exactly.
"""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from pathlib import Path

from capacity.simulation.arrivals import Arrival, constant, poisson, read_trace, trace

__all__ = ["Arrival", "constant", "convert_azure", "poisson", "read_trace", "trace"]


def convert_azure(source: Path, destination: Path) -> int:
    """Writes Azure's LLM inference trace (TIMESTAMP, ContextTokens, GeneratedTokens) as one of ours; how many rows.

    Times count from the first row, `size` is the context's tokens. Raises ValueError with the line.
    """
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"TIMESTAMP", "ContextTokens"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{source}: not Azure's LLM trace, which has TIMESTAMP and ContextTokens")
        rows: list[tuple[float, int]] = []
        for row in reader:
            try:
                # Seven digits of a second are one more than datetime reads.
                moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", row["TIMESTAMP"].strip()))
                rows.append((moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), int(row["ContextTokens"])))
            except (TypeError, ValueError):
                raise ValueError(f"{source}, line {reader.line_num}: not a time and a number of tokens") from None
    if not rows:
        raise ValueError(f"{source}: no rows")
    rows.sort(key=lambda row: row[0])
    with destination.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arrival_s", "size"])
        writer.writerows((f"{moment - rows[0][0]:.6f}", tokens) for moment, tokens in rows)
    return len(rows)
