"""Login for Locust's pages (--web-login): its file of `name:hash` lines, and the command that prints such a line."""

from __future__ import annotations

import getpass
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
from flask import redirect, request, session, url_for
from flask_login import UserMixin, login_user  # type: ignore[import-untyped]
from werkzeug.security import check_password_hash, generate_password_hash

from loadgen._errors import InputError

#: What `generate_password_hash` gives: method, salt, hash.
_HASH = re.compile(r"(scrypt|pbkdf2)(:[\w]+)*\$[^$]+\$[0-9a-f]+")


class _User(UserMixin):
    """A user who is logged in."""

    def __init__(self, name: str) -> None:
        self.id = name


def read_users(path: Path) -> dict[str, str]:
    """Names and password hashes of a user file. Blank lines and comments (#) are skipped. Raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--web-users {path}: {getattr(error, 'strerror', None) or error}") from None
    users = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.strip().partition(":")
        if not colon or not name or not _HASH.fullmatch(hashed):
            # The line itself is not shown: it may hold a password in plain text.
            raise InputError(
                f"--web-users {path}, line {number}: expected name:hash, as `inferload password NAME` prints it"
            )
        users[name] = hashed
    if not users:
        raise InputError(f"--web-users {path}: expected at least one line name:hash")
    return users


def add_login(web_ui: Any, users: dict[str, str], base: str = "") -> None:
    """Connects Locust's login page to these users. Sessions end with this process. `base` is --web-base-path."""
    app = web_ui.app
    app.secret_key = secrets.token_bytes(32)
    app.config.update(SESSION_COOKIE_SAMESITE="Lax", SESSION_COOKIE_HTTPONLY=True, REMEMBER_COOKIE_HTTPONLY=True)
    web_ui.login_manager.user_loader(lambda name: _User(name) if name in users else None)
    # An unknown name takes as long to refuse as a known one.
    unknown = generate_password_hash(secrets.token_hex())

    @app.route(f"{base}/inferload/login", methods=["POST"])
    def inferload_login() -> Any:
        name, password = request.form.get("username", ""), request.form.get("password", "")
        password_hash = users.get(name, unknown)
        # Takes tens of milliseconds by design: not on the event loop that sends the load.
        matches = gevent.get_hub().threadpool.apply(check_password_hash, (password_hash, password))
        if matches and name in users:
            login_user(_User(name))
            return redirect(url_for("locust.index"))
        session["auth_error"] = "Wrong name or password"
        return redirect(url_for("locust.login"))

    web_ui.auth_args = {
        **web_ui.auth_args,
        "title": "inferload",
        "username_password_callback": f"{base}/inferload/login",
    }


def print_user(arguments: Sequence[str], program: str) -> int:
    """Prints the line of the user file for the one name in `arguments`; returns the exit code.

    The password is read from the terminal, or from standard input where that is none.
    """
    usage = f"usage: {program} NAME >> users.txt"
    if {"-h", "--help"} & set(arguments):
        print(f"{usage}\n\nAsks for a password and prints NAME:HASH, a line of the file of --web-users.")
        return 0
    if len(arguments) != 1 or ":" in arguments[0] or not arguments[0].strip():
        print(f"error: expected one name without a colon; {usage}", file=sys.stderr)
        return 2
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    print(f"{arguments[0]}:{generate_password_hash(password)}")
    return 0
