"""The ledger on PostgreSQL: the conformance suite against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Postgres
from trimtab.backends.postgres import decode, encode
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
