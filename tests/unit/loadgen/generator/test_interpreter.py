"""A run gives the interpreter its settings back."""

from __future__ import annotations

import gc
import sys

import pytest

from loadgen.generator._interpreter import SWITCH_INTERVAL_S, InterpreterTuning


@pytest.mark.parametrize("was_frozen", [False, True], ids=["stock", "frozen by Locust"])
def test_the_settings_before_a_run_are_restored(was_frozen: bool) -> None:
    interval_s = sys.getswitchinterval()
    if was_frozen:
        gc.freeze()
    try:
        tuning = InterpreterTuning()
        during_s = sys.getswitchinterval()
        tuning.restore()

        assert during_s == pytest.approx(SWITCH_INTERVAL_S)
        assert sys.getswitchinterval() == interval_s
        assert (gc.get_freeze_count() > 0) == was_frozen
    finally:
        gc.unfreeze()
