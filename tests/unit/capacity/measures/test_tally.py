"""A tally keeps its identities while it is added and copied; an interval log is read back by us and by others."""

from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from capacity.measures import MEASURES, HardwareCombination, Series, Tally
from capacity.rundir import IntervalLogWriter, parse_series_tag, read_interval_log, series_tag
from capacity.statistics import HIGHEST_US, Histogram
from capacity.statistics.histogram import LOWEST_US, SIGNIFICANT_DIGITS

SERIES = Series(
    HardwareCombination("Xeon 8375C, 2.9 GHz", "cpu-1c", 4, 2), "gpt 100%/a", "cpu:0 @ 127.0.0.1:9001", True
)


def some() -> Tally:
    tally = Tally(due=7, answered=4, unsent=1, errors={"UNAVAILABLE": 2}, bytes_in=10, bytes_out=20)
    tally.histograms["latency"].record_ns([1_000, 2_000, 3_000, 4_000])
    tally.histograms["latency-error"].record_ns([9_000_000, 8_000_000])
    return tally


def test_tallies_add_up() -> None:
    total, more = some(), some()
    more.errors = {"DEADLINE_EXCEEDED": 2}
    total.add(more)
    assert (total.due, total.requests, total.unsent, total.failed) == (14, 12, 2, 4)
    assert total.errors == {"UNAVAILABLE": 2, "DEADLINE_EXCEEDED": 2}
    assert total.histograms["latency"].count + total.histograms["latency-error"].count == total.requests
    assert total.bytes_out == 40


def test_a_copy_does_not_follow() -> None:
    first = some()
    twin = first.copy()
    first.add(some())
    assert twin == some()


def test_a_tag_is_one_word_and_read_back() -> None:
    for measure in (*MEASURES, "latency-error"):
        tag = series_tag(SERIES, measure)
        assert "," not in tag
        assert len(tag.split()) == 1
        assert parse_series_tag(tag) == (SERIES, measure)
    with pytest.raises(ValueError, match="not a tag"):
        parse_series_tag("A")


def test_a_log_is_read_back_exactly_and_by_the_librarys_own_reader(tmp_path: Path) -> None:
    path, generator = tmp_path / "run.hlog", np.random.default_rng(3)
    written = []
    with IntervalLogWriter(path, 1_790_000_000.25, ["inferload\n#run", "second"]) as log:
        for second in range(5):
            for measure in ("latency", "service"):
                histogram = Histogram()
                histogram.record_ns(generator.integers(0, 10**10, 200 * second))
                log.write(float(second), 1.0, series_tag(SERIES, measure), histogram)
                written.append((series_tag(SERIES, measure), float(second), histogram))
        log.flush()
    assert [(line.tag, line.start_s, line.histogram) for line in read_interval_log(path)] == written

    reader = HistogramLogReader(str(path), HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS))
    for tag, _start, histogram in written:
        peer = reader.get_next_interval_histogram()
        assert peer.get_tag() == tag
        assert peer.get_total_count() == histogram.count
    assert reader.get_next_interval_histogram() is None
    assert reader.get_start_time_sec() == 1_790_000_000.25
    reader.close()


def test_a_log_of_another_tool_is_read_too(tmp_path: Path) -> None:
    peer = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
    peer.record_value(1500, 3)
    path = tmp_path / "other.hlog"
    path.write_text(f'"StartTimestamp","x"\n0.1,1,2.5,{peer.encode().decode()}\n')
    (interval,) = read_interval_log(path)
    assert (interval.tag, interval.histogram.count) == ("", 3)
    assert interval.histogram.percentile_us(50) == 1500


def test_the_line_that_a_dying_writer_cut_ends_the_log(tmp_path: Path) -> None:
    path = tmp_path / "run.hlog"
    with IntervalLogWriter(path, 0.0) as log:
        for second in range(2):
            log.write(second, 1, "A", some().histograms["latency"])
    path.write_text(path.read_text()[:-30])
    assert len(list(read_interval_log(path))) == 1


@pytest.mark.parametrize("line", ["0,1,nonsense", "Tag=A,0,1,2,AAAA", "Tag=A,-1,1,2,AAAA"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.hlog"
    path.write_text(f"# comment\n{line}\n")
    with pytest.raises(ValueError, match=r"run\.hlog, line 2: "):
        list(read_interval_log(path))
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match="not a text file"):
        list(read_interval_log(path))


def test_a_tag_or_a_time_that_would_break_the_line_is_refused(tmp_path: Path) -> None:
    with IntervalLogWriter(tmp_path / "run.hlog", 0.0) as log:
        for tag in ("a,b", "a b", ""):
            with pytest.raises(ValueError, match="tag"):
                log.write(0, 1, tag, Histogram())
        with pytest.raises(ValueError, match="interval"):
            log.write(-1, 1, "A", Histogram())
