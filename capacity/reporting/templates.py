"""The Jinja environment of the pages: values are escaped, and an undefined name is an error."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Returns a new environment; a page adds its own filters to it."""
    return Environment(
        loader=PackageLoader("capacity.reporting", "html_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
