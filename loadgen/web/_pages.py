"""The live page: a page of our own, and a tab in Locust's, both served by Locust's Flask app from a `LiveView`."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from flask import Response, request, send_file

from capacity.pricing import format_money
from loadgen._errors import InputError
from loadgen.web import _login
from loadgen.web._live import LiveView

#: The files of a finished run that the page links to.
FILES = ("report.html", "run.json", "run.hlog", "telemetry.csv")
#: The page comes from here alone and talks to here alone.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
_TAB = "inferload"
_COLUMNS = {
    "hardware": "Hardware (charts: /inferload)",
    "rate": "Answered/s, 10 s",
    "inFlight": "In flight",
    "p50": "P50 ms, 10 s",
    "p90": "P90 ms, 10 s",
    "p99": "P99 ms, 10 s",
    "run90": "P90 ms, run",
    "errors": "Errors",
    "cost": "Per 100,000",
    "slo": "SLO",
}


def install(environment: Any, live: LiveView) -> None:
    """Adds the page, its data, a finished run's files and the tab. Call in `init`. Raises InputError for the login."""
    web_ui = environment.web_ui
    if web_ui is None:
        return
    options = environment.parsed_options
    base = (options.web_base_path or "").rstrip("/")
    if web_ui.web_login:
        if not options.web_users:
            raise InputError("--web-login: say who may log in, with --web-users FILE")
        _login.install(web_ui, _login.read_users(Path(options.web_users)), base)
    elif options.web_users:
        raise InputError("--web-users: give --web-login too")
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
            # Not raised: Locust's guard would make a page of status 200 of it.
            return Response("there is no such file of a finished run", 404, mimetype="text/plain")
        kind = "text/html" if name.endswith(".html") else "application/json" if name.endswith(".json") else "text/plain"
        return send_file(path.resolve(), mimetype=kind, max_age=0)

    web_ui.template_args["extended_tabs"] = [{"title": "inferload", "key": _TAB}]
    structure = [{"key": key, "title": title} for key, title in _COLUMNS.items()]
    web_ui.template_args["extended_tables"] = [{"key": _TAB, "structure": structure}]

    @app.after_request
    def extended(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json and response.json:
            response.set_data(json.dumps({**response.json, "extended_stats": [{"key": _TAB, "data": rows(live)}]}))
        return response


def rows(live: LiveView) -> list[dict[str, Any]]:
    """The tab's table: a row for each combination, times in ms; the page has more."""
    found = []
    for row in live.state()["rows"]:
        last, run = row["last"], row["run"]
        found.append(
            {
                "hardware": f"{row['name']}, {row['model']}{' (simulated)' if row['simulated'] else ''}",
                "rate": _number(row["rate"], 1),
                "inFlight": _number(row["in_flight"], 0),
                "p50": _ms(last["p50"]),
                "p90": _ms(last["p90"]),
                "p99": _ms(last["p99"]),
                "run90": _ms(run["p90"]),
                "errors": sum(row["errors"].values()),
                "cost": "–" if row["cost"] is None else format_money(row["cost"], row["currency"]),
                "slo": {True: "met", False: "missed", None: "–"}[row["meets"]],
            }
        )
    return found


def _ms(us: float | None) -> str:
    return "–" if us is None else f"{us / 1000:.4g}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
