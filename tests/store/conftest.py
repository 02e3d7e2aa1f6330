"""Ledgers for the tests of this room: what holds, holds in a file and in a database of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Postgres
from trimtab.store.ledger import Ledger


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a new ledger may be made: in a file, and in a database of a real server."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_ledger()


@pytest.fixture
def ledger(location: str) -> Iterator[Ledger]:
    """Return a new ledger."""
    with Ledger.open(location, actor="tester") as opened:
        yield opened
