"""Tokens and keys are in no log, no run directory and no report, whatever is said of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SECRET = "a-token-that-nobody-may-read-again"
OTHER = "the-token-that-was-wrong"


def test_a_token_is_in_nothing_that_a_run_leaves_or_says(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-secrets"
    outside.mkdir()
    (outside / "token").write_text(SECRET + "\n")
    (outside / "wrong").write_text(OTHER + "\n")
    quick = ("--accelerator", "sim:0", "--sim", "fixed:2ms")
    worker = serve(*quick, "--token-file", str(outside / "token"), "--log-level", "debug")
    run = ("--headless", "-u", "1", "--requests", "20", "--loglevel", "DEBUG", "--targets", worker.address)

    known = locust(*run, "--target-token-file", str(outside / "token"), "--run-dir", "known")
    refused = locust(*run, "--target-token-file", str(outside / "wrong"), "--run-dir", "refused")
    worker.end()

    assert "report:" in known.out, known.err
    assert "UNAUTHENTICATED" in refused.out + refused.err
    said = known.out + known.err + refused.out + refused.err + "".join(worker.process.communicate())
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.name == "report.html" for path in left)
    for secret in (SECRET, OTHER):
        assert secret not in said
        assert [path for path, text in left.items() if secret.encode() in text] == []
