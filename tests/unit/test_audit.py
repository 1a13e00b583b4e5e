"""The check for known vulnerabilities fails where one has a fix, and says so where it could not look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tools import audit
from tools.processes import free_port

HOLED = {"id": "GHSA-of-this-test", "aliases": ["CVE-2026-1"], "summary": "a hole", "details": "a hole"}


class _Database(BaseHTTPRequestHandler):
    """Answers as OSV does: one package has a vulnerability, with a fix; the others have none."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9999.0"}]}]
        one = {**HOLED, "affected": [{"package": asked, "ranges": ranges}]}
        body = json.dumps({"vulns": [one]} if asked["name"] == "hpack" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the test's output is the tool's."""


@pytest.fixture
def database() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Database)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    server.shutdown()
    thread.join()
    server.server_close()


def _run(url: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    (folder / "pinned.txt").write_text("hpack==4.2.0\nnumpy==2.4.6\n")
    command = [sys.executable, str(audit.ROOT / "tests/tools/audit.py"), str(folder / "pinned.txt")]
    environment = {**os.environ, "INFERLOAD_OSV_URL": url, "NO_PROXY": "127.0.0.1", **more}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_a_known_vulnerability_with_a_fix_fails_the_check(database: str, tmp_path: Path) -> None:
    done = _run(database, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL hpack" in done.stdout
    assert "fixed in 9999.0" in done.stdout


def test_a_database_out_of_reach_is_said_and_passes_unless_it_is_required(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1/query"
    offline, required = _run(nowhere, tmp_path), _run(nowhere, tmp_path, INFERLOAD_AUDIT="required")
    assert (offline.returncode, required.returncode) == (0, 1)
    assert offline.stdout.startswith("audit: SKIPPED")


def test_what_is_allowed_or_has_no_fix_is_said_and_does_not_fail() -> None:
    document = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": [{"id": "X-1", "aliases": ["CVE-1"], "fix_versions": ["2"]}]},
            {"name": "b", "version": "1", "vulns": [{"id": "X-2", "aliases": [], "fix_versions": []}]},
            {"name": "c", "version": "1", "vulns": []},
        ]
    }
    failures, notes = audit.judged(document, {"CVE-1": "of no use here"})
    assert failures == []
    assert len(notes) == 2
    assert audit.judged(document, {})[0] == ["a 1: X-1, CVE-1: fixed in 2"]


def test_an_allowance_ends_on_its_day_and_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    path.write_text('[[allowed]]\nid = "CVE-1"\nreason = "why"\nuntil = 2026-11-30\n')
    assert audit.allowed(path, date(2026, 11, 30)) == {"CVE-1": "why"}
    assert audit.allowed(path, date(2026, 12, 1)) == {}
    path.write_text('[[allowed]]\nid = "CVE-1"\nuntil = 2026-11-30\n')
    with pytest.raises(ValueError, match="reason"):
        audit.allowed(path, date(2026, 11, 30))
