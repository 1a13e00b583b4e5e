"""Exceptions of the load generator. Wrong input ends in one line and exit code 2; anything else keeps its traceback."""

from __future__ import annotations


class LoadgenError(Exception):
    """Base class of every exception that this package defines."""


class InputError(LoadgenError):
    """An option, a file or a locustfile asks for something that is not possible.

    The text is one sentence that says what is wrong and what was expected.
    """


class MessageRefused(LoadgenError):
    """A message to the master is dropped. The text is the reason under which it is counted."""


class SendError(LoadgenError):
    """A message could not be sent to the master or to a generator."""


class LocustVersionError(LoadgenError, ImportError):
    """The installed Locust is not one that this package works with."""
