"""What several files of tests with real processes start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.cluster import SIM, Cluster


@pytest.fixture
def cluster(serve: Callable[..., Any], tmp_path: Path) -> Iterator[Cluster]:
    workers = [serve("--accelerator", f"sim:{ordinal}", *SIM) for ordinal in range(2)]
    made = Cluster(tmp_path, tuple(worker.address for worker in workers))
    yield made
    made.kill()
