"""The exceptions of this package: what the command line reports in one line, and the base of all of them."""

from __future__ import annotations


class CapacityError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(CapacityError, ValueError):
    """The user's input is wrong: a file, an option, or a combination of them. One sentence that says what to change.

    The command line prints it without a traceback and exits with code 2. It is a ValueError, so a pydantic validator
    may raise it.
    """
