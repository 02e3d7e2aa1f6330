"""Stores for tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.store.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an open store in a folder of its own, on simulated time."""
    with open_store(tmp_path / "store", actor="tests") as opened:
        yield opened
