"""Templates of the HTML pages that we write: self-contained, readable offline, text escaped."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from mirnet import redaction


def template(name: str) -> Template:
    """A template by its path below this package, such as ``evaluation/report.html``.

    Text is escaped and shown without control characters and secrets.
    """
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_plain,
    )
    environment.filters["anchor"] = lambda name: "".join(c if c.isalnum() else "-" for c in name)
    return environment.get_template(name)


def _source(name: str) -> str:
    return (resources.files("mirnet") / name).read_text(encoding="utf-8")


def _plain(value: object) -> object:
    """Names without control characters; HTML of ours stays."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.startswith("data:"):
        return value
    return redaction.shown(value)
