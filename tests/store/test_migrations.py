"""Migrations: from nothing, from an earlier release, and twins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from tests.store.crash import ROOT
from trimtab.core.errors import Fault
from trimtab.store.ledger import Ledger
from trimtab.store.live import get_state, put_state
from trimtab.store.migrations import MIGRATIONS, migrate


def _schema(path: Path) -> list[tuple[str, ...]]:
    connection = apsw.Connection(str(path))
    try:
        return list(connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name"))
    finally:
        connection.close()


def test_every_table_is_strict_and_scoped(tmp_path: Path) -> None:
    """Every table keeps its columns' types, and every row says its workspace and environment."""
    Ledger.open(tmp_path / "ledger.db").close()
    whole = {"workspace", "environment"}
    for kind, name, sql in _schema(tmp_path / "ledger.db"):
        if kind == "table" and not name.startswith("sqlite_") and name not in whole:
            assert "STRICT" in sql, name
            assert "workspace TEXT NOT NULL" in sql, name
            assert "environment TEXT NOT NULL" in sql, name


def test_an_old_ledger_is_brought_up_to_date(tmp_path: Path) -> None:
    """From each earlier schema, opening leads to the same schema as a new ledger, and keeps what is there."""
    Ledger.open(tmp_path / "new.db").close()
    for have in range(1, len(MIGRATIONS)):
        path = tmp_path / f"{have}.db"
        connection = apsw.Connection(str(path))
        for number, text in enumerate(MIGRATIONS[:have], start=1):
            connection.execute(text)
            connection.pragma("user_version", number)
        connection.execute("INSERT INTO state VALUES ('default', 'dev', 'a', x'81a17801')")
        connection.close()
        with Ledger.open(path) as ledger:
            assert get_state(ledger, "a") == {"x": 1}
            ledger.write(lambda tx: put_state(tx, "a", {}), what="put", key="k")
        assert _schema(path) == _schema(tmp_path / "new.db")


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    """A ledger that a newer release wrote is refused and left as it is."""
    path = tmp_path / "ledger.db"
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", len(MIGRATIONS) + 1)
    with pytest.raises(Fault, match="this release knows"):
        migrate(connection)
    connection.close()
    with pytest.raises(Fault, match="a newer one"):
        Ledger.open(path)
    assert _schema(path) == []


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that breaks off half way is undone as a whole."""
    path = tmp_path / "ledger.db"
    Ledger.open(path).close()
    before = _schema(path)
    broken = (*MIGRATIONS, "CREATE TABLE half (a TEXT) STRICT; CREATE TABLE half (a TEXT) STRICT")
    monkeypatch.setattr("trimtab.store.migrations.MIGRATIONS", broken)
    with pytest.raises(apsw.SQLError, match="half"):
        Ledger.open(path)
    assert _schema(path) == before


def test_ten_pairs_of_twins_start_together(tmp_path: Path) -> None:
    """Two processes that open the same new store at the same time both work, ten times of ten."""
    code = (
        "import sys; from pathlib import Path; from trimtab.store.store import open_store\n"
        "from trimtab.store.live import put_state\n"
        "print('up', flush=True); folders = sys.stdin.read().split()\n"
        "for folder in folders:\n"
        "    with open_store(Path(folder)) as store:\n"
        "        store.ledger.write(lambda tx: put_state(tx, sys.argv[1], {}), what='put')\n"
    )
    folders = [str(tmp_path / f"s{number}") for number in range(10)]
    twins = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        for name in ("a", "b")
    ]  # fmt: skip
    for twin in twins:
        assert twin.stdout is not None
        twin.stdout.readline()
    for twin in twins:
        assert twin.stdin is not None
        twin.stdin.write("\n".join(folders))
        twin.stdin.close()
    assert [twin.wait(60) for twin in twins] == [0, 0]
    for twin in twins:
        assert twin.stdout is not None
        twin.stdout.close()
    for folder in folders:
        with Ledger.open(Path(folder) / "ledger.db") as ledger:
            assert ledger.query("SELECT key FROM state ORDER BY key") == [("a",), ("b",)]
            assert ledger.query("SELECT count(*) FROM environment") == [(1,)]
