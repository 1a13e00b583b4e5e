"""Names of hardware are read back, prices are sums or say why not, and a typo is found by file, line and field."""

from pathlib import Path

import pytest

from capacity.measures import HardwareCombination
from capacity.pricing import Catalogue, UnknownPrice
from capacity.pricing.catalogue import Price

GIB = 2**30


@pytest.mark.parametrize(
    ("combination", "name"),
    [
        (HardwareCombination("c5.large", "eia2.medium"), "c5.large + eia2.medium"),
        (HardwareCombination("g5.12xlarge", "a10g", 4), "g5.12xlarge + 4 × a10g"),
        (HardwareCombination("g5.xlarge", "a10g", 2, 2), "2 × g5.xlarge + 2 × a10g"),
        (HardwareCombination("c5.xlarge", ""), "c5.xlarge"),
        (HardwareCombination("c5.xlarge", "", 3, 3), "3 × c5.xlarge"),
        (HardwareCombination("c5.xlarge", "", 2, 1), "c5.xlarge (2 workers)"),
        (HardwareCombination("AMD EPYC 7R13, 2 cores", "cpu-1c", 2), "AMD EPYC 7R13, 2 cores + 2 × cpu-1c"),
    ],
)
def test_a_name_is_read_back(combination: HardwareCombination, name: str) -> None:
    assert combination.name == str(combination) == name
    assert HardwareCombination.parse(name) == combination


def test_a_plain_x_is_taken_for_a_times() -> None:
    assert HardwareCombination.parse("2 x g5.xlarge + 2x a10g") == HardwareCombination("g5.xlarge", "a10g", 2, 2)


@pytest.mark.parametrize("name", ["", "  ", " + a10g", "g5.xlarge + ", "a + b + c", "0 × g5.xlarge"])
def test_what_is_not_a_combination_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"combination|cannot be the name"):
        HardwareCombination.parse(name)


@pytest.mark.parametrize("host", ["", "a + b", "2 × a", "a  b", "a (2 workers)"])
def test_a_host_whose_name_could_not_be_read_back_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"name|host"):
        HardwareCombination(host, "x")


def price(catalogue: Catalogue, name: str) -> Price:
    result = catalogue.price(HardwareCombination.parse(name))
    assert isinstance(result, Price)
    return result


def why_not(catalogue: Catalogue, name: str) -> str:
    result = catalogue.price(HardwareCombination.parse(name))
    assert isinstance(result, UnknownPrice)
    return result.reason


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.chdir(tmp_path)
    return Catalogue.load()


def test_the_packaged_catalogue_has_the_articles_prices(packaged: Catalogue) -> None:
    assert price(packaged, "c5.large + eia2.medium").per_hour == 0.205
    assert price(packaged, "c5.large + eia2.large").per_hour == 0.325
    assert price(packaged, "c5.xlarge + cpu-2c").per_hour == price(packaged, "c5.xlarge").per_hour == 0.17
    assert price(packaged, "c5.large + eia2.medium").currency == "USD"
    assert "2020" in price(packaged, "c5.large + eia2.medium").note


def test_accelerators_of_a_host_cost_nothing_extra_and_a_part_of_them_costs_the_whole(packaged: Catalogue) -> None:
    assert price(packaged, "g5.12xlarge + 4 × a10g").per_hour == 5.672
    assert price(packaged, "2 × g5.xlarge + 2 × a10g").per_hour == 2.012
    assert price(packaged, "g5.12xlarge + a10g").per_hour == 5.672
    assert "1 of 4 in use" in price(packaged, "g5.12xlarge + a10g").note


def test_bought_accelerators_are_paid_each(packaged: Catalogue) -> None:
    assert price(packaged, "2 × c5.large + 4 × eia2.medium").per_hour == 0.65


def test_a_price_that_is_not_known_says_why(packaged: Catalogue) -> None:
    assert "'my laptop'" in why_not(packaged, "my laptop + cpu-1c")
    assert "'eia3'" in why_not(packaged, "c5.large + eia3")
    assert "more accelerators than the 1" in why_not(packaged, "g5.xlarge + 2 × a10g")


def test_memory_is_of_one_host_and_one_accelerator(packaged: Catalogue) -> None:
    assert packaged.memory(HardwareCombination.parse("c5.large + eia2.medium")) == (4 * GIB, 2 * GIB)
    assert packaged.memory(HardwareCombination.parse("2 × g5.xlarge + 2 × a10g")) == (16 * GIB, 24 * GIB)
    assert packaged.memory(HardwareCombination.parse("laptop + cpu-1c")) == (None, None)


def test_the_file_in_this_folder_is_laid_over_entry_by_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hardware.toml").write_text(
        """
        date = "2026-12"
        purchase = "spot"
        [hosts."c5.large"]
        price = 0.05
        [hosts.laptop]
        price = 0
        [combinations."c5.large + eia2.large"]
        price = 0.2
        [targets]
        "10.0.0.7:8001" = "g5.xlarge + a10g"
        """
    )
    catalogue = Catalogue.load()
    assert price(catalogue, "c5.large + eia2.medium").per_hour == 0.17
    assert price(catalogue, "c5.large + eia2.medium").note == "host: spot, 2026-12; accelerator: on-demand, 2020"
    assert price(catalogue, "laptop").per_hour == 0
    assert price(catalogue, "c5.large + eia2.large").per_hour == 0.2
    assert price(catalogue, "g5.xlarge + a10g").per_hour == 1.006
    assert catalogue.targets == {"10.0.0.7:8001": "g5.xlarge + a10g"}


def test_two_currencies_are_not_added(tmp_path: Path) -> None:
    own = tmp_path / "euro.toml"
    own.write_text('currency = "EUR"\n[accelerators."eia2.medium"]\nprice = 0.1\n')
    assert "USD and EUR" in why_not(Catalogue.load(own), "c5.large + eia2.medium")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('currency = "USD"\n[hosts."a.b"]\nprise = 1\n', "own.toml, line 3: hosts.a.b.prise: no such field"),
        ('[hosts."a.b"]\nmemory_gib = 4\nprice = -1\n', "own.toml, line 3: hosts.a.b.price: .*greater than or equal"),
        ('[hosts."a.b"]\nprice = "cheap"\n', "own.toml, line 2: hosts.a.b.price: "),
        ("[hosts.a.b]\nprice = 1\n", r'own.toml, line 1: hosts.a.b: .*needs quotes, \[hosts."a.b"\]'),
        ('[combinations."a + b"]\nnote = "x"\n', r"own.toml, line 1: combinations.a \+ b.price: Field required"),
        ("[hots]\n", "own.toml, line 1: hots: no such field"),
        ("curency = 1\n", "own.toml, line 1: curency: no such field"),
        ("[hosts.a]\nprice = \n", "own.toml: .*line 2"),
        ('[hosts.a]\naccelerator = "t4"\n', "own.toml, line 1: hosts.a: expected both accelerator, a type"),
        ('[targets]\n"a:1" = "x + "\n', "own.toml: .*not a hardware combination"),
        ("[hosts.a]\nprice = nan\n", "own.toml, line 2: hosts.a.price"),
    ],
)
def test_a_typo_is_named_by_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        Catalogue.load(own)
    assert "\n" not in str(refusal.value)


def test_a_catalogue_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml cannot be read: No such file"):
        Catalogue.load(tmp_path / "none.toml")
