"""The live page, the login of --web-login, and the user file that it reads."""

from loadgen.web._live_view import LiveView, merge_checks
from loadgen.web._login import print_user
from loadgen.web._pages import add_pages

__all__ = ["LiveView", "add_pages", "merge_checks", "print_user"]
