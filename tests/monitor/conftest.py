"""A scene for each test of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitor.scene import Scene
from trimtab.store.store import open_store


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Return a watched endpoint in a store of its own."""
    with open_store(tmp_path / "store", actor="tests") as store:
        made = Scene(store)
        yield made
        made.close()
