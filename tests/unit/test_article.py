"""The latencies that `make article` simulates are the article's where it gives them, and within its sentences else."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from capacity.measures import HardwareCombination
from capacity.pricing import Catalogue, UnknownPrice, sequential_per_100k

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reproduce_article.py"


@pytest.fixture(scope="module")
def article() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("reproduce_article", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def costs(article: ModuleType) -> dict[str, float]:
    """The article's price of each combination, from the packaged catalogue."""
    found = {}
    for row in article.ARTICLE:
        price = Catalogue.load().price(HardwareCombination(row.host, row.accelerator))
        assert not isinstance(price, UnknownPrice), row.name
        found[row.name] = sequential_per_100k(price.per_hour, row.mean * 1000)
    return found


def test_what_the_article_gives_is_as_given(article: ModuleType) -> None:
    given = {row.name: (row.mean, row.p90) for row in article.ARTICLE if row.from_article}
    assert given == {"c5.large + eia2.medium": (10.03, 9.89), "c5.large + eia2.large": (8.77, 9.05)}
    cost = costs(article)
    assert [f"{cost[name]:.2f}" for name in given] == ["0.06", "0.08"]


def test_what_is_assumed_is_within_the_articles_sentences(article: ModuleType) -> None:
    row = {one.name: one for one in article.ARTICLE}
    cost = costs(article)
    medium, large = row["c5.large + eia2.medium"], row["c5.large + eia2.large"]
    alone = [row[name] for name in ("c5.xlarge", "c5.4xlarge", "m5.xlarge", "m5.4xlarge")]
    t4 = [row[f"g4dn.{size}xlarge + t4"] for size in ("", "2", "4")]
    attached = [one for one in article.ARTICLE if one.accelerator.startswith("eia")]
    # "None of the standalone CPU instances satisfy the P90 latency threshold", "all combinations" with EI do.
    assert all(one.p90 > 15 for one in alone)
    assert all(one.p90 < 15 for one in attached)
    # "at least 1.7 times as fast, and up to 5.6 times as fast as standalone CPU instances"
    ratios = [one.mean / medium.mean for one in alone]
    assert min(ratios) >= 1.7
    assert max(ratios) == pytest.approx(5.6, abs=0.05)
    # "about 1.7 times as fast as c5.large with eia2.large", "roughly equal", "at least three times faster"
    assert all(large.mean / one.mean == pytest.approx(1.7, abs=0.02) for one in t4)
    assert all(one.mean / t4[0].mean >= 3 for one in alone)
    # "cost the same per inference call", "its P90 latency was lower than m5.large with eia2.medium"
    assert f"{cost['m5.large + eia2.medium']:.2f}" == f"{cost[medium.name]:.2f}"
    assert row["m5.large + eia2.medium"].p90 > medium.p90
    # "it has the lowest cost per 100,000 inferences"
    assert min(cost, key=cost.__getitem__) == medium.name
    # The small CPU instances "still cost more per inference than all Elastic Inference and standalone GPU options", the
    # large ones "more per inference than all the Elastic Inference options".
    others = [one.name for one in [*attached, *t4, row["p3.2xlarge + v100"]]]
    assert all(cost[small] > cost[other] for small in ("c5.xlarge", "m5.xlarge") for other in others)
    assert all(cost[big] > cost[other.name] for big in ("c5.4xlarge", "m5.4xlarge") for other in attached)


def test_workers_sleep_with_the_rows_mean_and_p90(article: ModuleType) -> None:
    for row in article.ARTICLE:
        times = article.service_times_ms(row)
        assert times.mean() == pytest.approx(row.mean, rel=2e-3), row.name
        assert np.percentile(times, 90) == pytest.approx(row.p90, rel=2e-3), row.name
        assert times.min() > 0
