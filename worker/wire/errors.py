"""The error that the plain readers of this folder raise; each package maps it to its own class of wrong input."""


class FormatError(ValueError):
    """Text or a file from a user that cannot be read. The message says what is wrong and what is expected."""
