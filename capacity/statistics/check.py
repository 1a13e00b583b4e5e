"""The result of one check of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

CheckStatus = Literal["PASS", "WARN", "FAIL"]


class Check(BaseModel):
    """One property of a run: the measured value, the expected threshold, and the status.

    FAIL: the run is no result about the hardware. WARN: it is one, with the restriction in `detail`.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    value: int | float | str
    threshold: str
    status: CheckStatus
    detail: str = ""
