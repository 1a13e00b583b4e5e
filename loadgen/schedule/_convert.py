"""Converts traces of others into ours: CSV files with the columns arrival_s, model and size."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from pathlib import Path

from loadgen._errors import InputError


def convert_azure_trace(source: Path, destination: Path) -> int:
    """Writes Azure's LLM inference trace (columns TIMESTAMP, ContextTokens, GeneratedTokens) as a trace of ours.

    Times count from the earliest row; `size` is the number of context tokens. Returns the number of rows. Raises
    InputError with the line that is not a time and a number of tokens, and OSError of the two files.
    """
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"TIMESTAMP", "ContextTokens"} <= set(reader.fieldnames or ()):
            raise InputError(f"{source}: not Azure's LLM trace: expected the columns TIMESTAMP and ContextTokens")
        rows: list[tuple[float, int]] = []
        for row in reader:
            try:
                # Seven digits of a second are one more than datetime reads.
                moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", row["TIMESTAMP"].strip()))
                rows.append((moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), int(row["ContextTokens"])))
            except (TypeError, ValueError):
                raise InputError(f"{source}, line {reader.line_num}: expected a time and a number of tokens") from None
    if not rows:
        raise InputError(f"{source}: no rows")
    rows.sort(key=lambda row: row[0])
    with destination.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arrival_s", "size"])
        writer.writerows((f"{moment - rows[0][0]:.6f}", tokens) for moment, tokens in rows)
    return len(rows)
