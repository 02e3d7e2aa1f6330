"""Servers that tests need; each is started once and ended with the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers import Postgres, binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a PostgreSQL server; ``.ci/run`` installs one, elsewhere the tests are skipped without it."""
    bins = binaries()
    if bins is None:
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(bins)
    yield server
    server.close()
