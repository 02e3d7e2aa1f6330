"""Plain data as bytes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import WrongUse
from trimtab.store.packing import pack, unpack

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@given(PLAIN)
def test_plain_data_comes_back_as_it_was(data: Any) -> None:
    """What is packed comes back equal, with its types."""
    assert repr(unpack(pack(data))) == repr(data)


def test_nan_comes_back() -> None:
    """NaN survives, at any depth."""
    assert math.isnan(unpack(pack({"a": [math.nan]}))["a"][0])


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (2**64, "", "can't serialize ints"),
        ([1, -(2**63) - 1], "[1]", "can't serialize ints"),
        ({"a": {"b": ("x", "\udfff")}}, "a.b[1]", "surrogates"),
        ({"\ud800": 1}, "", "surrogates"),
        ({"f": print}, "f", "unsupported"),
    ],
)
def test_what_cannot_be_kept_is_named(data: Any, place: str, words: str) -> None:
    """The error names the place of what cannot be kept, and why."""
    with pytest.raises(WrongUse, match=words) as caught:
        pack(data)
    assert caught.value.where == place


def test_endless_data_is_refused() -> None:
    """A list that contains itself is refused and does not hang."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(WrongUse, match="cannot be stored"):
        pack({"x": endless})
