"""Rows that go elsewhere: into a file and out of it, and from one database into another."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import Postgres
from tests.store.builders import write
from tests.store.filled import Filled, fill, running, track
from trimtab.core.errors import Conflict, Corrupt, WrongUse
from trimtab.store.catalogue import sum_of, tables
from trimtab.store.leases import holder
from trimtab.store.ledger import Ledger, Reader
from trimtab.store.ledgercheck import check_ledger
from trimtab.store.live import put_state
from trimtab.store.transfer import copy_ledger, export_ledger, import_ledger, need_still, read_header

Open = Callable[[], Ledger]


@pytest.fixture
def filled(ledger: Ledger, tmp_path: Path) -> Filled:
    """Return what a ledger was filled with."""
    return fill(ledger, tmp_path / "blobs")


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """Return another new ledger, of either kind."""
    place = str(tmp_path / "other" / "ledger.db")
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        place = server.new_ledger()
    with Ledger.open(place) as opened:
        yield opened


def sums(reader: Reader) -> dict[str, str]:
    """Return the digest of each table's rows, without the audit's."""
    return {table.name: sum_of(reader, table).digest for table in tables() if table.name != "audit"}


def leaves(reader: Reader) -> list[tuple[object, ...]]:
    """Return the rows of the audit."""
    return reader.query("SELECT id, at, leaf, sha256, workspace, environment FROM audit ORDER BY id")


def test_a_file_brings_everything_back(ledger: Ledger, filled: Filled, target: Ledger, tmp_path: Path) -> None:
    """What comes out of a file is what went in, to the bit, whichever database either ledger is in."""
    path = tmp_path / "kept.ledger"
    before = leaves(ledger)
    out = export_ledger(ledger, path)
    assert out.size == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_header(path).rows["metric"] == 7
    assert import_ledger(target, path).sums == out.sums
    assert sums(target) == sums(ledger)
    assert leaves(target)[:-1] == before
    assert check_ledger(target, filled.blobs).problems == []
    assert [one.name for one in tmp_path.glob("kept.ledger*")] == ["kept.ledger"]


def test_a_ledger_moves_to_another_database(ledger: Ledger, filled: Filled, target: Ledger) -> None:
    """A copy has every row exactly, and both databases can be written to afterwards."""
    copied = copy_ledger(ledger, target)
    assert sums(target) == sums(ledger)
    assert copied.total == sum(read_rows(ledger).values())
    track(target, filled.experiment)
    assert check_ledger(target, filled.blobs).problems == []
    numbers = [row[0] for row in leaves(target)]
    assert numbers == list(range(1, len(leaves(ledger)) + 3))


def test_a_ledger_moves_within_a_folder(tmp_path: Path) -> None:
    """Two files beside each other share a lock, which does not stand in the way."""
    with Ledger.open(tmp_path / "ledger.db") as one, Ledger.open(tmp_path / "other.db") as other:
        fill(one, tmp_path / "blobs")
        copy_ledger(one, other)
        assert sums(one) == sums(other)


def read_rows(ledger: Ledger) -> dict[str, int]:
    """Return how many rows each table has."""
    return check_ledger(ledger).rows


def test_numbers_go_on(ledger: Ledger, target: Ledger) -> None:
    """A table that numbers its rows goes on after the highest copied number."""
    sql = (
        "INSERT INTO correction(prediction_id, workspace, environment, endpoint_id, label, at, arrived_at, replaced_at)"
        " VALUES ('p', 'w', 'e', 'x', ?, 1, 2, 3)"
    )
    ledger.write(lambda tx: tx.execute_many(sql, [(b"a",), (b"b",)]), what="correct")
    copy_ledger(ledger, target)
    target.write(lambda tx: tx.execute(sql, (b"c",)), what="correct")
    assert target.query("SELECT id, label FROM correction ORDER BY id") == [(1, b"a"), (2, b"b"), (3, b"c")]


def test_missing_numbers_of_the_audit_are_known(ledger: Ledger, filled: Filled, target: Ledger) -> None:
    """Numbers that were never used where the rows came from are no damage where they went."""
    ledger.write(lambda tx: tx.execute("DELETE FROM audit WHERE id IN (3, 4)"), what="damage")
    copy_ledger(ledger, target)
    assert check_ledger(target, filled.blobs).problems == []


def test_only_an_empty_ledger_is_filled(ledger: Ledger, filled: Filled, target: Ledger, tmp_path: Path) -> None:
    """A ledger in which something is recorded is refused and stays as it was."""
    path = tmp_path / "kept.ledger"
    export_ledger(ledger, path)
    write(target, put_state, "a", {"x": 1})
    before = sums(target)
    with pytest.raises(Conflict, match="not empty: 1 rows of state"):
        import_ledger(target, path)
    with pytest.raises(Conflict, match="not empty"):
        copy_ledger(ledger, target)
    assert sums(target) == before


def test_a_ledger_that_had_something_is_not_empty(ledger: Ledger, target: Ledger) -> None:
    """What was recorded and removed is still told by the audit."""
    target.write(lambda tx: tx.note("a", x=1), what="something")
    with pytest.raises(Conflict, match="its audit tells of acts"):
        copy_ledger(ledger, target)


def test_a_broken_file_is_refused(ledger: Ledger, filled: Filled, tmp_path: Path) -> None:
    """A file that is cut off, changed, or something else is refused, and nothing of it is kept."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    export_ledger(ledger, whole)
    content = whole.read_bytes()
    plain = gzip.decompress(content)
    at = plain.index(b"weights" if b"weights" in plain else b"flights")
    damaged = [content[: len(content) // 2], content[:-9], gzip.compress(plain[:-5]), gzip.compress(b""), b"", b"text"]
    damaged += [gzip.compress(plain[:at] + b"F" + plain[at + 1 :]), gzip.compress(plain + plain[:1]), plain]
    with Ledger.open(tmp_path / "other.db") as other:
        for bytes_ in damaged:
            broken.write_bytes(bytes_)
            with pytest.raises(Corrupt):
                import_ledger(other, broken)
        import_ledger(other, whole)
        assert sums(other) == sums(ledger)


def test_an_unwritable_place_is_told(ledger: Ledger, tmp_path: Path) -> None:
    """A file in a folder that is not there is refused in words."""
    with pytest.raises(WrongUse, match="cannot be written"):
        export_ledger(ledger, tmp_path / "none" / "file")
    with pytest.raises(WrongUse, match="cannot be read"):
        import_ledger(ledger, tmp_path / "none")


def test_a_file_of_another_schema_is_refused(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another release wrote is for that release to read."""
    path = tmp_path / "kept.ledger"
    with monkeypatch.context() as patch:
        patch.setattr("trimtab.store.transfer.MIGRATIONS", ("one",))
        export_ledger(ledger, path)
    with pytest.raises(WrongUse, match="the file has schema 1"):
        import_ledger(ledger, path)


def test_a_write_meanwhile_undoes_the_copy(
    ledger: Ledger, filled: Filled, target: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written to the source while it is copied is not lost: the copy is refused and leaves nothing."""
    before = sums(target)

    def meanwhile(_: Reader) -> list[int]:
        write(ledger, put_state, "a", {"x": 1})
        return []

    monkeypatch.setattr("trimtab.store.transfer.audit_gaps", meanwhile)
    with pytest.raises(Conflict, match="while it was copied"):
        copy_ledger(ledger, target)
    assert sums(target) == before


def test_a_ledger_in_use_is_not_moved(ledger: Ledger) -> None:
    """A living process that executes a run stands in the way; a dead one does not."""
    need_still(ledger)
    machine = holder().rsplit("/", 2)[0]
    running(ledger, f"{machine}/1/1")
    need_still(ledger)
    running(ledger, f"elsewhere/boot/1/{1}")
    ledger.write(lambda tx: tx.execute("UPDATE run SET beat=?", (1 << 60,)), what="beat")
    with pytest.raises(Conflict, match="a process works with the ledger"):
        need_still(ledger)
