"""The list of tables, and looks at all their rows."""

from __future__ import annotations

from pathlib import Path

from tests.store.builders import write
from tests.store.filled import fill
from trimtab.store.catalogue import Sum, counts, pages, snapshot, sum_of, tables
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.live import put_state


def test_tables_come_after_those_that_they_point_to() -> None:
    """Every table has a key, and its owners stand before it."""
    seen: set[str] = set()
    for table in tables():
        assert table.key
        assert set(table.owners) <= seen
        seen.add(table.name)
    assert {"run", "version", "audit", "case", "webhook"} <= seen


def test_only_two_tables_number_their_rows() -> None:
    """The columns that count by themselves are known."""
    assert {table.name: table.serial for table in tables() if table.serial} == {"audit": "id", "correction": "id"}


def test_a_snapshot_stands_still(ledger: Ledger) -> None:
    """What is written after a look began is not in it, and the writer does not wait."""
    with snapshot(ledger) as reader:
        before = counts(reader)
        write(ledger, put_state, "a", {"x": 1})
        assert counts(reader) == before
        assert counts(ledger)["state"] == before["state"] + 1


def test_pages_hold_every_row_once(ledger: Ledger) -> None:
    """Rows come in pages by key, however many there are."""

    def put(tx: Tx) -> None:
        for number in range(1203):
            put_state(tx, f"k{number}", {"n": number})

    ledger.write(put, what="fill")
    (table,) = [one for one in tables() if one.name == "state"]
    found = list(pages(ledger, table))
    assert [len(page) for page in found] == [500, 500, 203]
    assert len({row[table.columns.index("key")] for page in found for row in page}) == 1203


def test_sums_tell_rows_apart_in_any_order(ledger: Ledger, tmp_path: Path) -> None:
    """Equal rows have equal sums in any order; another value, kind of number or row changes them."""
    left, right, other = Sum(), Sum(), Sum()
    left.add([(1, "a"), (2, "b")])
    right.add([(2, "b"), (1, "a")])
    other.add([(1.0, "a"), (2, "b")])
    assert left == right != other
    fill(ledger, tmp_path)
    assert all(sum_of(ledger, table).rows == counts(ledger)[table.name] for table in tables())
