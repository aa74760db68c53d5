"""A report made a page: the template filled, with every text escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vlconv.page.content import content

if TYPE_CHECKING:
    from jinja2 import Template

    from vlconv.converters import Report

HERE = Path(__file__).parent


def as_html(report: Report, *, a: str = "", b: str = "") -> str:
    """The page: one document that loads nothing and runs nothing, some 400 kB for a model of 94 layers.

    Args:
        report: of verify, in any of its forms.
        a, b: what was held against what; "": not said.

    Raises:
        MissingLibrary: jinja2 is not installed.
    """
    return template().render(content(report, a, b))


def template() -> Template:
    """The page without its words.

    Raises:
        MissingLibrary: jinja2 is not installed.
    """
    from vlconv.converters import MissingLibrary

    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError as fault:
        raise MissingLibrary("jinja2 is not installed, and --report needs it", "pip install jinja2") from fault
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["number"] = number
    return made.get_template("page.html")


def number(value: float) -> str:
    """Three digits, or a whole number with its thousands apart."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
