"""The live page and a tab in Locust's page, both served by Locust's Flask app from a LiveView."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from flask import Response, request, send_file

from capacity.pricing import format_money
from loadgen._errors import InputError
from loadgen.web._live_view import LiveView
from loadgen.web._login import add_login, read_users

#: The files of a finished run that the page links to.
FILES = ("report.html", "run.json", "run.hlog", "telemetry.csv")
#: The page loads nothing from elsewhere and connects to its own server only.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
_TAB = "inferload"
_COLUMNS = {
    "hardware": "Hardware (charts: /inferload)",
    "throughput": "Throughput/s, 10 s",
    "inFlight": "In flight",
    "p50": "P50 ms, 10 s",
    "p90": "P90 ms, 10 s",
    "p99": "P99 ms, 10 s",
    "run90": "P90 ms, run",
    "errors": "Errors",
    "cost": "Per 100,000",
    "verdict": "SLO",
}


def add_pages(web_ui: Any, live: LiveView, *, base_path: str = "", users_file: str = "") -> None:
    """Adds the page, its data, the files of a run that has ended, and the tab, to Locust's `web_ui`.

    `base_path` is the value of --web-base-path, `users_file` that of --web-users. Raises InputError where the login
    cannot be set up.
    """
    base = base_path.rstrip("/")
    if web_ui.web_login:
        if not users_file:
            raise InputError("--web-login: expected a file of users, give --web-users FILE")
        add_login(web_ui, read_users(Path(users_file)), base)
    elif users_file:
        raise InputError("--web-users: expected --web-login beside it")
    page = resources.files("loadgen.web").joinpath("templates/live.html").read_text(encoding="utf-8")
    app, guarded = web_ui.app, web_ui.auth_required_if_enabled

    @app.route(f"{base}/inferload")
    @guarded
    def inferload_page() -> Response:
        return Response(page, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})

    @app.route(f"{base}/inferload/live.json")
    @guarded
    def inferload_live() -> Response:
        text = json.dumps(live.state(), allow_nan=False)
        return Response(text, mimetype="application/json", headers={"Cache-Control": "no-store"})

    @app.route(f"{base}/inferload/run/<name>")
    @guarded
    def inferload_file(name: str) -> Response:
        path = live.directory / name if live.directory is not None and name in FILES else None
        if path is None or not path.is_file():
            # Not raised: Locust's wrapper would turn it into a page of status 200.
            return Response("no such file of a run that has ended", 404, mimetype="text/plain")
        kind = "text/html" if name.endswith(".html") else "application/json" if name.endswith(".json") else "text/plain"
        return send_file(path.resolve(), mimetype=kind, max_age=0)

    web_ui.template_args["extended_tabs"] = [{"title": "inferload", "key": _TAB}]
    structure = [{"key": key, "title": title} for key, title in _COLUMNS.items()]
    web_ui.template_args["extended_tables"] = [{"key": _TAB, "structure": structure}]

    @app.after_request
    def add_tab_data(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json and response.json:
            response.set_data(json.dumps({**response.json, "extended_stats": [{"key": _TAB, "data": tab_rows(live)}]}))
        return response


def tab_rows(live: LiveView) -> list[dict[str, Any]]:
    """The table of the tab: a row for each combination, times in ms; the page has more."""
    rows = []
    for row in live.state()["rows"]:
        recent, run = row["recent"], row["run"]
        rows.append(
            {
                "hardware": f"{row['name']}, {row['model']}{' (simulated)' if row['simulated'] else ''}",
                "throughput": _number(row["throughput"], 1),
                "inFlight": _number(row["in_flight"], 0),
                "p50": _ms(recent["p50"]),
                "p90": _ms(recent["p90"]),
                "p99": _ms(recent["p99"]),
                "run90": _ms(run["p90"]),
                "errors": sum(row["errors"].values()),
                "cost": "–" if row["cost"] is None else format_money(row["cost"], row["currency"]),
                "verdict": row["verdict"] or "–",
            }
        )
    return rows


def _ms(us: float | None) -> str:
    return "–" if us is None else f"{us / 1000:.4g}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
