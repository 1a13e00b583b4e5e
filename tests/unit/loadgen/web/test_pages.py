"""The live page, its data, a run's files and the login, in Locust's own Flask app. Locust patches whatever process
imports it, so each test asks a child."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

CLIENT_PREFACE = """
import json, sys
from locust.argument_parser import get_empty_argument_parser, setup_parser_arguments
from locust.env import Environment
from capacity.pricing import Catalogue
from capacity.measures import HardwareCombination, Series, Tally
from loadgen import _options
from loadgen.web import LiveView, add_pages
from loadgen._errors import InputError
from pathlib import Path

def app_of(web_login=False, web_users="", base=""):
    parser = get_empty_argument_parser()
    setup_parser_arguments(parser)
    _options.register(parser)
    words = ["--web-base-path", base, "--web-users", web_users, *(["--web-login"] if web_login else [])]
    environment = Environment(parsed_options=parser.parse_args(words))
    environment.create_local_runner()
    ui = environment.create_web_ui(
        host="127.0.0.1", port=0, delayed_start=True, web_login=web_login, web_base_path=base
    )
    live = LiveView()
    add_pages(ui, live, base_path=base, users_file=web_users)
    return ui, live

def show(value):
    print(json.dumps(value))
"""


def child(tmp_path: Path, script: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT_PREFACE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_its_data_and_a_runs_files(tmp_path: Path) -> None:
    answers = child(
        tmp_path,
        """
        ui, live = app_of()
        get = ui.app.test_client().get
        series = Series(HardwareCombination("c5.large", "eia2.medium"), "gpt", "sim:0 @ h:1", True)
        before = get("/inferload/run/report.html").status_code
        live.begin([series], Catalogue.load(), None, "closed")
        tally = Tally(50, 50)
        for measure in ("latency", "service", "lateness"):
            tally.histograms[measure].record_ns([10_000_000] * 50)
        live.tick({series: tally})
        page, data = get("/inferload"), get("/inferload/live.json")
        stats = get("/stats/requests").json
        (Path("run")).mkdir()
        Path("run/report.html").write_text("<p>the report</p>")
        Path("secret.txt").write_text("secret")
        live.end(Path("run"), [], True)
        show({
            "before": before,
            "page": [page.status_code, page.headers["Content-Security-Policy"], page.text.count("<script")],
            "data": [data.json["rows"][0]["name"], data.headers["Cache-Control"]],
            "tab": stats["extended_stats"],
            "index": "extended_tabs" in ui.template_args and "inferload" in get("/").text,
            "report": get("/inferload/run/report.html").text,
            "others": [get(f"/inferload/run/{name}").status_code
                       for name in ("run.json", "secret.txt", "../secret.txt", "%2e%2e/secret.txt")],
        })
        """,
    )
    assert answers["before"] == 404
    assert answers["page"][0] == 200
    assert answers["page"][1].startswith("default-src 'none'")
    assert answers["data"] == ["c5.large + eia2.medium", "no-store"]
    (tab,) = answers["tab"]
    assert tab["key"] == "inferload"
    assert tab["data"][0]["hardware"] == "c5.large + eia2.medium, gpt (simulated)"
    assert tab["data"][0]["p50"] == "10"
    assert answers["index"] is True
    assert answers["report"] == "<p>the report</p>"
    assert set(answers["others"]) == {404}


def test_with_a_login_nothing_is_shown_without_it(tmp_path: Path) -> None:
    password = subprocess.run(
        [sys.executable, "-m", "loadgen", "password", "ada"],
        input="engine\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    (tmp_path / "users.txt").write_text(f"# who may\n\n{password.stdout}")
    assert "engine" not in password.stdout
    answers = child(
        tmp_path,
        """
        ui, live = app_of(web_login=True, web_users="users.txt")
        client = ui.app.test_client()
        paths = ["/inferload", "/inferload/live.json", "/inferload/run/run.json"]
        without = [client.get(path).status_code for path in paths]
        def login(name, password):
            return client.post("/inferload/login", data={"username": name, "password": password}).headers["Location"]
        wrong = [login("ada", "wrong"), login("bob", "engine"), login("", "")]
        page = "Wrong name or password" in client.get("/login").text
        still = client.get("/inferload").status_code
        right = login("ada", "engine")
        show({"without": without, "wrong": wrong, "still": still, "page": page, "right": right,
             "with": [client.get(path).status_code for path in paths]})
        """,
    )
    assert answers["without"] == [302, 302, 302]
    assert answers["wrong"] == ["/login", "/login", "/login"]
    assert answers["still"] == 302
    assert answers["page"] is True
    assert answers["right"] == "/"
    assert answers["with"] == [200, 200, 404]


def test_a_wrong_user_file_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("ada:engine\n")
    (tmp_path / "empty.txt").write_text("\n")
    answers = child(
        tmp_path,
        """
        errors = []
        for login, users in ((True, ""), (True, "none.txt"), (True, "plain.txt"), (True, "empty.txt"), (False, "x")):
            try:
                app_of(web_login=login, web_users=users)
            except InputError as error:
                errors.append(str(error))
        show(errors)
        """,
    )
    assert answers == [
        "--web-login: expected a file of users, give --web-users FILE",
        "--web-users none.txt: No such file or directory",
        "--web-users plain.txt, line 1: expected name:hash, as `inferload password NAME` prints it",
        "--web-users empty.txt: expected at least one line name:hash",
        "--web-users: expected --web-login beside it",
    ]


def test_below_a_base_path_everything_moves(tmp_path: Path) -> None:
    answers = child(
        tmp_path,
        """
        ui, live = app_of(base="/bench")
        client = ui.app.test_client()
        paths = ("/inferload", "/bench/inferload", "/bench/inferload/live.json")
        show([client.get(path).status_code for path in paths])
        """,
    )
    assert answers == [404, 200, 200]
