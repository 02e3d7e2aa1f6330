"""Tables of another system's database."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from trimtab.core.errors import NotFound, Unavailable, WrongUse
from trimtab.migrate.tables import BATCH, SqliteRows, Tables, open_rows, without_secrets


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Return a database with more rows than a page has."""
    connection = apsw.Connection(str(tmp_path / "a.db"))
    connection.execute("CREATE TABLE t (id INTEGER, home INTEGER, workspace TEXT); CREATE INDEX i ON t (home, id)")
    rows = [(number, number % 3, "default" if number % 2 else "other") for number in range(3 * BATCH)]
    connection.executemany("INSERT INTO t VALUES (?,?,?)", rows)
    connection.close()
    return Tables(SqliteRows(tmp_path / "a.db"))


def test_pages_hold_each_row_once(tables: Tables) -> None:
    """All rows of the default workspace come, in pages, and only those of the owners that are asked for."""
    wanted = [number for number in range(3 * BATCH) if number % 2]
    assert [row[0] for page in tables.paged("t", ("id",), "id") for row in page] == wanted
    chosen = [row[0] for page in tables.paged("t", ("id",), "id", ("home", [0, 2])) for row in page]
    assert sorted(chosen) == [number for number in wanted if number % 3 != 1]
    assert {home: len(rows) for home, rows in tables.grouped("t", "home", ("id",), [0, 1]).items()} == {0: 100, 1: 100}


def test_an_older_schema_is_read(tables: Tables) -> None:
    """A column that is not there is nothing, a table that is not there has no rows; an index is asked for if it is."""
    assert tables.select("t", ("id", "later"), "WHERE id=?", (1,)) == [(1, None)]
    assert tables.select("later", ("id",)) == [] and not tables.has("later")
    assert tables.rows.hint("t", "i") == "INDEXED BY i" and tables.rows.hint("t", "j") == ""


def test_only_databases_that_are_there_are_opened(tmp_path: Path) -> None:
    """A file that is not there is not made, and what is no database is told as such."""
    with pytest.raises(NotFound):
        open_rows(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text").write_text("no database, and long enough to look like one" * 100)
    with pytest.raises(Unavailable):
        open_rows(str(tmp_path / "text"))
    with pytest.raises(WrongUse):
        open_rows("mysql+pymysql://somewhere/mlflow")
    assert without_secrets("postgresql://u:secret@h:1/db?password=x") == "postgresql://h:1/db"


def test_a_source_is_never_written(tables: Tables) -> None:
    """The connection refuses to change anything."""
    with pytest.raises(Unavailable, match="readonly"):
        tables.rows.query("DELETE FROM t")
