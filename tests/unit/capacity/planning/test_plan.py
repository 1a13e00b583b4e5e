"""`python -m capacity plan`: fleets from run directories, what it writes, and what it refuses."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tools.measured import Measured, measured_run

from capacity.__main__ import main
from capacity.experiments.stress import Interference, StressResult
from capacity.planning import (
    FleetRequirements,
    PlanFile,
    Planner,
    PlanningProblem,
    ServiceConditions,
    SimulatedPools,
    select_offers,
)
from capacity.pricing import Catalogue
from capacity.rundir import Run
from capacity.statistics import Slo

ARTICLE = (
    Measured("c5.large + eia2.medium", 9.5, 0.05),
    Measured("c5.large + eia2.large", 8.2, 0.05),
    Measured("g4dn.xlarge + t4", 4.9, 0.05),
    Measured("c5.large", 46.0, 0.05),
)


def run_main(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["capacity", "plan", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def article(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    return [str(measured_run(folder / str(number), [row])) for number, row in enumerate(ARTICLE)]


def test_the_question_of_the_article_is_answered_for_every_rate_in_one_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, article: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_main(monkeypatch, tmp_path, *article, "--slo", "p90=15ms", "--rate", "100,250", "--out", "plan")

    output = capsys.readouterr().out
    file = PlanFile.load(tmp_path / "plan" / "plan.json")
    assert code == 0
    assert [plan.rps for plan in file.plans] == [100, 250]
    for plan in file.plans:
        assert plan.cost_per_hour is not None
        assert plan.prediction is not None
        assert plan.prediction.latency_us.p90 is not None
        assert plan.prediction.latency_us.p90 <= 15_000
        assert plan.cost_lower_bound is not None
        assert plan.cost_lower_bound <= plan.cost_per_hour
        assert plan.sensitivity is not None
        assert plan.constraints
        assert any(other.hardware == "c5.large" and other.step == "latency" for other in plan.excluded)
        assert all(other.cost_per_hour >= plan.cost_per_hour for other in plan.alternatives)
        names = {row.hardware for row in plan.rows} | {other.hardware for other in plan.excluded}
        assert {row.hardware for row in ARTICLE} <= names
    # Nothing that is not hardware is shown without saying so.
    assert file.simulated
    text = (tmp_path / "plan" / "plan.md").read_text(encoding="utf-8")
    svg = (tmp_path / "plan" / "plan.svg").read_text(encoding="utf-8")
    assert "simulated" in output
    assert "**Simulated**" in text
    assert "simulated" in svg
    ET.fromstring(svg)
    assert svg.count('class="dot"') == 2
    for curve in file.curves:
        assert curve.hardware in text + svg
        assert [cost for _rate, cost in curve.points] == sorted(cost for _rate, cost in curve.points)
    assert (tmp_path / "plan" / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_markdown_and_json_say_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, article: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(
        monkeypatch, tmp_path, article[0], "--slo", "p90=15ms", "--rate", "200", "--survive", "1", "--headroom", "30%"
    )

    output = capsys.readouterr().out
    folder = Path(article[0]).parent / "plan"
    file, text = PlanFile.load(folder / "plan.json"), (folder / "plan.md").read_text(encoding="utf-8")
    (plan,) = file.plans
    assert plan.required_rps == pytest.approx(260)
    assert plan.after_losses is not None
    assert plan.after_losses.latency_us.p90 is not None
    assert plan.after_losses.latency_us.p90 <= 15_000
    (row,) = plan.rows
    for words in (f"{row.instances} × c5.large + eia2.medium", "30 % headroom", "any 1 instance may be lost"):
        assert words in text
        assert words in output


def test_a_day_is_a_schedule_that_costs_less_than_its_peak_all_day(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, article: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demand.csv").write_text("start,rps\n00:00,0\n06:00,60\n09:00,300\n20:00,60\n")

    run_main(monkeypatch, tmp_path, *article[:3], "--slo", "p90=15ms", "--demand", "demand.csv", "--out", str(tmp_path))

    schedule = PlanFile.load(tmp_path / "plan.json").schedule
    assert schedule is not None
    assert [slot.start for slot in schedule.slots] == ["00:00", "06:00", "09:00", "20:00"]
    assert schedule.slots[0].rows == []
    assert schedule.slots[1].fleet == schedule.slots[3].fleet
    assert schedule.cost_per_day == pytest.approx(sum(slot.cost for slot in schedule.slots), abs=1e-4)
    assert schedule.cost_lower_bound <= schedule.cost_per_day < schedule.peak_cost
    for slot in schedule.slots[1:]:
        assert slot.latency_us.p90 is not None
        assert slot.latency_us.p90 <= 15_000
    assert "solver's gap" in capsys.readouterr().out


def test_limits_and_markets_decide_what_is_bought(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, article: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prices.toml").write_text(
        '[hosts."g4dn.xlarge"]\nprice = 0.526\nspot = 0.16\naccelerator = "t4"\naccelerators = 1\n'
    )
    options = [*article[:3], "--slo", "p90=15ms", "--rate", "300", "--catalogue", "prices.toml", "--out", str(tmp_path)]

    run_main(monkeypatch, tmp_path, *options, "--market", "spot,on-demand")
    free = PlanFile.load(tmp_path / "plan.json").plans[0]
    run_main(monkeypatch, tmp_path, *options, "--market", "spot,on-demand", "--limit", "g4dn.xlarge@spot=1")
    limited = PlanFile.load(tmp_path / "plan.json").plans[0]

    assert {(row.hardware, row.market) for row in free.rows} == {("g4dn.xlarge + t4", "spot")}
    assert sum(row.instances for row in limited.rows if row.market == "spot") <= 1
    assert limited.cost_per_hour is not None
    assert free.cost_per_hour is not None
    assert limited.cost_per_hour > free.cost_per_hour
    assert any(message.startswith("limit:") for message in limited.constraints)
    assert "no spot price" not in capsys.readouterr().err


def test_too_little_memory_and_no_price_are_reasons(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Measured("c5.large + eia2.medium", 9.5, peak_bytes=3 * 2**30),
        Measured("g4dn.xlarge + t4", 4.9, peak_bytes=3 * 2**30),
        Measured("own.machine + x1", 5.0),
    ]
    run = measured_run(tmp_path / "run", rows)

    run_main(monkeypatch, tmp_path, str(run), "--slo", "p90=15ms", "--rate", "150", "--out", str(tmp_path))

    (plan,) = PlanFile.load(tmp_path / "plan.json").plans
    lost = {one.hardware: one for one in plan.excluded}
    assert [row.hardware for row in plan.rows] == ["g4dn.xlarge + t4"]
    assert lost["c5.large + eia2.medium"].step == "memory"
    assert lost["own.machine + x1"].step == "price"
    assert any(message.startswith("memory:") for message in plan.constraints)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "give --rate 2000, or --demand"),
        (["--rate", "many"], "--rate many"),
        (["--rate", "100", "--headroom", "lots"], "--headroom lots"),
        (["--rate", "100", "--router", "fastest"], "(choose pinned"),
        (["--rate", "100", "--market", "black"], "(choose on-demand"),
        (["--rate", "100", "--limit", "c5.large"], "expected TYPE=N"),
        (["--rate", "100", "--limit", "m9.huge=3"], "no run has it"),
        (["--rate", "100", "--model", "bert"], "no run has the model bert"),
        (["--rate", "100", "--model-file", "none.pt"], "no such file"),
        (["--demand", "none.csv"], "none.csv cannot be read"),
        (["--demand", "none.csv", "--verify"], "none.csv cannot be read"),
    ],
)
def test_wrong_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    article: list[str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    what: str,
) -> None:
    code = run_main(monkeypatch, tmp_path, article[0], "--slo", "p90=15ms", *arguments)

    message = capsys.readouterr()
    assert code == 2
    assert message.err.count("\n") == 1
    assert what in message.err
    assert not message.out


def test_no_fleet_says_why_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, article: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--slo", "p90=15ms", "--out", str(tmp_path)]

    assert run_main(monkeypatch, tmp_path, article[3], *common, "--rate", "10") == 1
    assert "no combination meets p90=15ms even without waiting" in capsys.readouterr().out
    assert run_main(monkeypatch, tmp_path, article[2], *common, "--rate", "500", "--limit", "g4dn.xlarge=1") == 1
    assert "the limits leave too few" in capsys.readouterr().out
    assert run_main(monkeypatch, tmp_path, article[2], *common, "--rate", "300", "--max-price", "1") == 1
    assert "more than the $1.00 allowed" in capsys.readouterr().out
    assert run_main(monkeypatch, tmp_path, article[3], *common, "--rate", "10", "--verify") == 1
    assert "no combination meets p90=15ms even without waiting" in capsys.readouterr().out


def test_a_run_that_is_not_valid_plans_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured_run(tmp_path / "run", ARTICLE[:1], valid=False)

    assert run_main(monkeypatch, tmp_path, str(run), "--slo", "p90=15ms", "--rate", "10", "--out", str(tmp_path)) == 1
    assert "its run is not valid" in capsys.readouterr().out


PROBLEMS = int(os.environ.get("INFERLOAD_PROBLEMS", "1"))


@pytest.mark.parametrize("seed", range(PROBLEMS))
@pytest.mark.parametrize("router", ["least-outstanding", "random"])
def test_no_fleet_that_holds_is_ten_percent_cheaper(tmp_path: Path, seed: int, router: str) -> None:
    """Every fleet of three kinds under the plan's price, mixtures and all, is simulated in the order of its price."""
    draw = np.random.default_rng(seed)
    means = np.exp(draw.uniform(np.log(5), np.log(15), 3))
    rows = [Measured(f"h{n}.large + x{n}", float(mean), float(draw.uniform(0.05, 0.5))) for n, mean in enumerate(means)]
    prices = np.exp(draw.normal(0, 0.2, 3)) / means
    hosts = "\n".join(
        f'[hosts."h{n}.large"]\nprice = {price:.4f}\naccelerator = "x{n}"\naccelerators = 1'
        for n, price in enumerate(prices)
    )
    catalogue = Catalogue.parse(hosts, "prices")
    run = Run.load(measured_run(tmp_path / "run", rows, catalogue=catalogue))
    selection = select_offers([run], None, catalogue, ("on-demand",), {})
    service = ServiceConditions(Slo.parse(f"p90={draw.uniform(2, 4) * max(means):.2f}ms"), router)
    rate = float(draw.uniform(150, 350))

    result = Planner(PlanningProblem(selection, FleetRequirements(service))).plan(rate)

    assert result.cost_per_hour is not None
    pools, each = SimulatedPools(selection.offers, service), [offer.price for offer in selection.offers]
    counts_of = {row.hardware: row.instances for row in result.rows}
    chosen = tuple(counts_of.get(offer.instance.name, 0) for offer in selection.offers)
    assert pools.predict(chosen, rate).meets_slo
    for counts in product(*(range(int(result.cost_per_hour / price) + 1) for price in each)):
        cost = sum(count * price for count, price in zip(counts, each, strict=True))
        capacity = sum(count * pools.saturation_rate(number) for number, count in enumerate(counts))
        if cost * 1.1 < result.cost_per_hour and capacity > rate:
            assert not pools.predict(counts, rate).meets_slo, f"{counts} at {cost} holds"


def stressed(directory: Path, scenario: str, interference: Interference | None) -> Path:
    directory.mkdir(exist_ok=True)
    StressResult(
        scenario=scenario,
        started=datetime(2026, 11, 24, tzinfo=UTC),
        command=["python"],
        simulated=True,
        conditions={},
        summary=[],
        checks=[],
        interference=interference,
    ).save(directory)
    return directory


def test_a_plan_takes_the_fully_loaded_machine_of_an_interference_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stress").mkdir()
    measured_run(tmp_path / "stress" / "together", [Measured("c5.large + eia2.medium", 9.5, 0.05)])
    measured_run(tmp_path / "stress" / "alone-eia0", [Measured("c5.large + eia2.medium", 5.0, 0.05)])
    stressed(tmp_path / "stress", "interference", Interference(ordinals=[], neighbours=[], factor=0.526))

    files = []
    for runs in ("stress", "stress/together"):
        assert run_main(monkeypatch, tmp_path, runs, "--slo", "p90=15ms", "--rate", "200", "--out", "plan") == 0
        files.append(PlanFile.load(tmp_path / "plan" / "plan.json"))

    assert files[0].plans == files[1].plans
    assert not files[1].notes
    (note,) = files[0].notes
    assert "fully loaded machine, 52.6 % of the throughput of its ordinals alone (stress)" in note
    assert note in capsys.readouterr().out


def test_a_plan_takes_no_other_stress_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stressed(tmp_path / "stress", "skew", None)
    assert run_main(monkeypatch, tmp_path, "stress", "--slo", "p90=15ms", "--rate", "200") == 2
    assert "stress is a stress test of skew: expected run directories, or an interference test" in (
        " ".join(capsys.readouterr().err.split())
    )
