"""Charts: valid SVG whatever the numbers and names are."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import WrongUse
from trimtab.web.charts import Mark, Series, line_chart


@given(
    st.lists(st.none() | st.floats(-1e9, 1e9), min_size=1, max_size=30),
    st.text(alphabet="ab<>&\"'é ", max_size=9),
)
def test_any_numbers_and_names_make_valid_svg(values: list[float | None], name: str) -> None:
    """Gaps, equal values and hostile names all give well-formed SVG."""
    labels = [f"{index}<" for index in range(len(values))]
    svg = line_chart(labels, [Series(name=name, values=values)], title=name, marks=[Mark(at=0.5, text=name)])
    assert ET.fromstring(svg).tag.endswith("svg")


def test_length_must_agree() -> None:
    """A series of another length is refused."""
    with pytest.raises(WrongUse, match="2 values for 1 labels"):
        line_chart(["a"], [Series(name="x", values=[1.0, 2.0])], title="t")
