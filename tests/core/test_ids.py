"""Ids: typed, unique and ordered by time."""

from __future__ import annotations

import uuid

import pytest

from trimtab.core.errors import WrongUse
from trimtab.core.ids import IdMaker, is_id, new_hex, new_id


def test_ids_sort_by_time_even_when_the_clock_stands() -> None:
    """Ids made in one millisecond, or with the clock set back, still come in order."""
    times = iter([5.0, 5.0, 4.0, 6.0])
    maker = IdMaker(wall=lambda: next(times), random=lambda count: bytes(count))
    made = [maker.new("run") for _ in range(4)]
    assert made == sorted(made) and len(set(made)) == 4


def test_ids_are_uuid_version_7() -> None:
    """The digits are a UUIDv7 of RFC 9562."""
    value = uuid.UUID(new_id("ver").removeprefix("ver_"))
    assert value.version == 7 and value.variant == uuid.RFC_4122


def test_prefixes_are_known() -> None:
    """An id names its noun, and other prefixes are refused."""
    assert is_id(new_id("dep")) and not is_id("dep_123") and not is_id("abc_" + new_hex())
    with pytest.raises(WrongUse, match="not an id prefix"):
        new_id("xyz")
