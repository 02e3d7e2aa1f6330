"""Reports: one self-contained page."""

from __future__ import annotations

from trimtab.web.charts import Series, line_chart
from trimtab.web.report import Section, cell, render


def test_report_is_self_contained_and_escapes() -> None:
    """Charts are embedded, text is escaped, nothing is loaded from elsewhere."""
    chart = line_chart(["a", "b"], [Series(name="auc", values=[0.7, None])], title="AUC")
    section = Section(title="<T>", columns=("x",), rows=[["<script>"], [None], [0.123456]], charts=(chart,))
    page = render("A & B", [section])
    assert "<svg" in page and "&lt;script&gt;" in page and "<script" not in page
    assert "0.1235" in page and "src=" not in page and "A &amp; B" in page


def test_cells() -> None:
    """Cells are short and readable."""
    assert [cell(value) for value in (True, None, 0.5, 3, "x")] == ["yes", "\N{EN DASH}", "0.5", "3", "x"]
