"""How every page here is made from its template: escaped, and with an error for a name that is not there."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """A new one, to which a page adds filters of its own."""
    return Environment(
        loader=PackageLoader("capacity.reporting", "html_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
