"""Checking a ledger: whole ones pass, and every kind of damage is told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from tests.store.filled import Filled, fill, running
from trimtab.core.digest import digest_bytes
from trimtab.core.errors import Corrupt
from trimtab.store.catalogue import is_sqlite, open_ledger
from trimtab.store.leases import holder
from trimtab.store.ledger import Ledger, Value
from trimtab.store.ledgercheck import as_data, audit_gaps, check_ledger


@pytest.fixture
def filled(ledger: Ledger, tmp_path: Path) -> Filled:
    """Return what a ledger was filled with."""
    return fill(ledger, tmp_path / "blobs")


def damage(ledger: Ledger, sql: str, params: Sequence[Value] = ()) -> None:
    """Change rows as nobody should."""
    ledger.write(lambda tx: tx.execute(sql, params), what="damage")


def problems(ledger: Ledger, filled: Filled | None = None, *, deep: bool = False) -> list[tuple[str, str]]:
    """Return what a check finds: which check, and what is wrong."""
    report = check_ledger(ledger, filled.blobs if filled else None, deep=deep)
    assert report.found == len(report.problems)
    return [(one.check, one.message) for one in report.problems]


def test_a_whole_ledger_passes(ledger: Ledger, filled: Filled) -> None:
    """Nothing is found in a ledger that was only written as it should be; rows and blobs are counted."""
    report = check_ledger(ledger, filled.blobs, deep=True)
    assert report.problems == []
    assert report.blobs == 3
    assert report.rows["run"] == 3
    assert as_data(report)["ok"] is True


def test_an_empty_ledger_passes(ledger: Ledger) -> None:
    """A ledger without a row is in order."""
    assert problems(ledger) == []


_DAMAGE = [
    ("tracked", "DELETE FROM tracked"),
    ("tracked", "UPDATE run SET kind='make' WHERE kind='tracked'"),
    ("tracked", "UPDATE tracked SET experiment=99"),
    ("tracked", "UPDATE tracked SET stage='deleted'"),
    ("tracked", "UPDATE tracked SET status='FAILED'"),
    ("runs", "UPDATE run SET ended_at=started_at-1"),
    ("runs", "UPDATE run SET ended_at=NULL"),
    ("runs", "UPDATE run SET parent_id='run_none'"),
    ("metrics", "DELETE FROM latest WHERE name='loss'"),
    ("metrics", "DELETE FROM metric WHERE name='loss'"),
    ("metrics", "UPDATE latest SET value=1.0, kind='' WHERE name='loss'"),
    ("metrics", "UPDATE latest SET step=2 WHERE name='loss'"),
    ("names", "INSERT INTO tag(subject, workspace, environment, name, value) VALUES ('run_x', 'w', 'e', 'n', 'v')"),
    ("aliases", "UPDATE alias SET version_id=(SELECT id FROM version WHERE digest='x1')"),
    ("edges", "UPDATE version SET run_id='run_none' WHERE run_id<>''"),
    ("edges", "UPDATE run_model SET model_id='m-none'"),
    ("models", "UPDATE logged_model SET run_id='none'"),
    ("models", "UPDATE version SET state='candidate'"),
    ("models", "UPDATE model_metric SET model_id='m-none'"),
    ("traces", "UPDATE trace SET experiment=99"),
    ("blobs", "UPDATE artifact SET blob='nothing'"),
    ("blobs", "UPDATE artifact SET size=size+1"),
]


@pytest.mark.parametrize(("check", "sql"), _DAMAGE)
def test_damage_is_told(ledger: Ledger, filled: Filled, check: str, sql: str) -> None:
    """Rows that do not go with others are found by the check that looks for them."""
    damage(ledger, sql)
    assert check in {name for name, _ in problems(ledger, filled)}


def test_a_changed_leaf_is_told(ledger: Ledger, filled: Filled) -> None:
    """A leaf of the audit whose bytes changed does not go with its digest."""
    damage(ledger, "UPDATE audit SET leaf=? WHERE id=2", (b"another story",))
    assert problems(ledger, filled) == [("audit", "its bytes are not those of its digest")]


def test_a_missing_leaf_is_told(ledger: Ledger, filled: Filled) -> None:
    """A leaf that is gone is found in a file; a server leaves numbers out by itself, so there it is a remark."""
    damage(ledger, "DELETE FROM audit WHERE id IN (3, 4)")
    report = check_ledger(ledger, filled.blobs)
    assert report.checks["audit"] == (2 if is_sqlite(ledger) else 0)
    assert bool(report.remarks) != is_sqlite(ledger)
    assert audit_gaps(ledger) == [3, 4]


def test_a_lost_blob_is_told(ledger: Ledger, filled: Filled) -> None:
    """A blob that a row names and that is not there is found, whoever names it."""
    for content in (b"notes", b"weights", b"a model"):
        filled.blobs.delete(digest_bytes(content))
    told = problems(ledger, filled)
    assert [name for name, _ in told] == ["blobs"] * 3
    assert problems(ledger) == []


def test_a_changed_blob_is_told_by_a_deep_look(ledger: Ledger, filled: Filled) -> None:
    """A blob with other bytes of the same length is found when every byte is read."""
    path = filled.blobs.path(digest_bytes(b"notes"))
    path.chmod(0o600)
    path.write_bytes(b"other")
    assert problems(ledger, filled) == []
    assert [name for name, _ in problems(ledger, filled, deep=True)] == ["blobs"]


def test_a_run_whose_process_died_is_told(ledger: Ledger, filled: Filled) -> None:
    """A run of a living process is in order; one of a dead process is not."""
    running(ledger, holder())
    assert problems(ledger, filled) == []
    machine = holder().rsplit("/", 2)[0]
    running(ledger, f"{machine}/{os.getpid()}/1")
    assert [name for name, _ in problems(ledger, filled)] == ["running"]


def test_rows_without_owners_are_told(tmp_path: Path) -> None:
    """SQLite itself finds rows that point to others which are not there."""
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        filled = fill(ledger, tmp_path / "blobs")
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute("DELETE FROM version WHERE digest='x1'")
    connection.close()
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert "database" in {name for name, _ in problems(ledger, filled)}


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    """Pages that were overwritten are found, and the rest is looked at all the same."""
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as ledger:
        filled = fill(ledger, tmp_path / "blobs")
        ((page,),) = ledger.query("SELECT rootpage FROM sqlite_master WHERE name='used_version'")
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with Ledger.open(path) as ledger:
        assert "database" in {name for name, _ in problems(ledger, filled)}


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """A file that is no ledger, or whose first pages are gone, is refused in words."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(Corrupt, match="cannot be read"):
        open_ledger(str(path))
