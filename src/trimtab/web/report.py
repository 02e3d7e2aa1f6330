"""Self-contained HTML reports: text, tables and charts, one file, no script, no outside request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from trimtab.core.optional import need


class Section(Struct, frozen=True, kw_only=True):
    """A part of a report.

    Attributes:
        title: its heading.
        text: paragraphs in plain text.
        columns: headings of a table, or empty.
        rows: the table's cells; numbers are shown as given, None as an en dash.
        charts: SVG texts made by ``web.charts``.
    """

    title: str
    text: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[Any]] = ()
    charts: tuple[str, ...] = ()


def cell(value: Any) -> str:
    """Return one table cell as text: floats to four significant digits, None as an en dash."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def render(title: str, sections: Sequence[Section], *, lead: str = "") -> str:
    """Return a whole HTML page.

    Args:
        title: of the page.
        sections: shown in their order.
        lead: a paragraph under the title.
    """
    jinja2 = need("jinja2")
    markup = need("markupsafe").Markup
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page: str = environment.get_template("report.html").render(
        title=title, lead=lead, sections=sections, cell=cell, svg=markup
    )
    return page
