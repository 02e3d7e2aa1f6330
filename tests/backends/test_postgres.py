"""The ledger on PostgreSQL: the conformance suite against a real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.servers import Postgres
from trimtab.backends.postgres import decode, encode, translate
from trimtab.core.errors import Unavailable
from trimtab.core.optional import need
from trimtab.store.ledger import Ledger
from trimtab.testing.ledger import LedgerConformance, OpenLedger


class TestPostgresLedger(LedgerConformance):
    """The PostgreSQL ledger keeps the contract."""

    @pytest.fixture
    def open_ledger(self, postgres: Postgres) -> Iterator[OpenLedger]:
        """Open one new ledger as often as asked."""
        url = postgres.new_ledger()
        opened: list[Ledger] = []

        def open_one() -> Ledger:
            opened.append(Ledger.open(url))
            return opened[-1]

        yield open_one
        for one in opened:
            one.close()


@pytest.mark.parametrize("text", ["", "a", "\0", "a\0b\uf8f0\uf8f1", "\uf8f0", "\uf8f0\uf8f2\0"])
def test_text_is_escaped_and_back(text: str) -> None:
    """What PostgreSQL cannot keep is escaped, and comes back as it was."""
    assert "\0" not in encode(text) and decode(encode(text)) == text


def test_a_plus_for_the_planner_of_sqlite_goes() -> None:
    """SQLite's sign that an index is not to be used means nothing here; an addition stays."""
    assert translate("SELECT a + 1 FROM t WHERE +a=? AND +b=?") == "SELECT a + 1 FROM t WHERE a=%s AND b=%s"


def test_a_full_server_is_told_with_what_to_do(postgres: Postgres) -> None:
    """When the server takes no more clients the error says what to raise."""
    psycopg = need("psycopg")
    Ledger.open(url := postgres.new_ledger()).close()
    held = []
    try:
        with pytest.raises(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(postgres.url))
        with pytest.raises(Unavailable, match=r"slots|too many clients") as caught:
            Ledger.open(url)
        assert "max_connections" in caught.value.fix
    finally:
        for one in held:
            one.close()


def test_the_driver_prints_nothing() -> None:
    """What the driver would warn about is told by errors; a program that sets logging up still gets it."""
    code = "import logging, trimtab.backends.postgres; logging.getLogger('psycopg').warning('lost')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
