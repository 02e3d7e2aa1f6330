"""Digests: equal values have equal digests, unequal ones do not."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.digest import canonical, digest, digest_all
from trimtab.core.errors import WrongUse
from trimtab.core.nouns import Check

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _same(a: object, b: object) -> bool:
    """Equality as the digest means it: types count, NaN equals NaN, 0.0 and -0.0 differ."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return (a != a and b != b) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a == b


@given(PLAIN, PLAIN)
def test_canonical_bytes_tell_values_apart(a: object, b: object) -> None:
    """Two values have the same canonical bytes exactly when they are the same value."""
    assert (canonical(a) == canonical(b)) == _same(a, b)


@given(st.dictionaries(st.text(), st.integers()))
def test_order_of_keys_does_not_matter(data: dict[str, int]) -> None:
    """A mapping's digest does not depend on the order of its keys."""
    assert digest(data) == digest(dict(reversed(list(data.items()))))


def test_known_values_stay() -> None:
    """The encoding is frozen: stored keys would change with it."""
    assert digest(None) == "sha256:8ce86a6ae65d3692e7305e2c58ac62eebd97d3d943e093f577da25c36988246b"
    assert canonical({"a": [1, 1.0, True, "1"]}) == (
        b"{\x00\x00\x00\x00\x00\x00\x00\x01S\x00\x00\x00\x00\x00\x00\x00\x01a[\x00\x00\x00\x00\x00\x00\x00\x04"
        b"I\x00\x00\x00\x00\x00\x00\x00\x011D\x3f\xf0\x00\x00\x00\x00\x00\x00TS\x00\x00\x00\x00\x00\x00\x00\x011"
    )


def test_structs_and_times_encode() -> None:
    """Structs encode as their fields, times as instants whatever their zone."""
    check = Check(name="a", kind="b", params={})
    assert digest(check) == digest({"name": "a", "kind": "b", "params": {}, "severity": "fail"})
    noon = datetime(2013, 4, 1, 12, tzinfo=UTC)
    assert digest(noon) == digest(noon.astimezone(timezone(timedelta(hours=2))))


def test_other_things_are_refused() -> None:
    """What is not plain data has no digest."""
    with pytest.raises(WrongUse, match="set has no canonical encoding"):
        digest({"a": {1}})


def test_digest_all_ignores_order() -> None:
    """A set of digests has one digest."""
    assert digest_all(["a", "b"]) == digest_all(["b", "a"]) != digest_all(["a"])
