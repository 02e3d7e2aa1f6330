"""Migrations: from nothing, from an earlier release, and twins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.store.crash import ROOT
from trimtab.core.errors import Fault
from trimtab.store import calls, facts, live
from trimtab.store.ledger import Ledger, Reader, Value
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


class _Planner:
    """Asks SQLite how it would answer, and notes where it would look at every row."""

    workspace, environment = "default", "dev"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.scans: list[str] = []
        self.plans: list[str] = []

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        for *_, detail in self._ledger.query(f"EXPLAIN QUERY PLAN {sql}", params):
            self.plans.append(detail)
            # Walking the rows of a recursive step is no such look.
            if detail.startswith("SCAN") and detail.split()[1] not in ("walk", "w", "step", "CONSTANT"):
                self.scans.append(f"{detail}: {sql}")
        return self._ledger.query(sql, params)


LOOKUPS: dict[str, Callable[[Reader], object]] = {
    "find_asset": lambda r: facts.find_asset(r, "a"),
    "get_version": lambda r: facts.find_asset(r, "a") or facts.list_versions(r, "a"),
    "current": lambda r: facts.current(r, "a"),
    "newest": lambda r: facts.newest(r, "a"),
    "aliases": lambda r: facts.aliases(r, "a"),
    "get_run": lambda r: facts.get_run(r, "run_1"),
    "list_runs by name": lambda r: facts.list_runs(r, name="a", limit=1),
    "list_runs by kind": lambda r: facts.list_runs(r, kind="a", limit=1),
    "list_runs by parent": lambda r: facts.list_runs(r, parent="run_1"),
    "used_by": lambda r: facts.used_by(r, "run_1"),
    "made_by": lambda r: facts.made_by(r, "run_1"),
    "users_of": lambda r: facts.users_of(r, "ver_1"),
    "metrics_of": lambda r: facts.metrics_of(r, "run_1"),
    "verdicts_of": lambda r: facts.verdicts_of(r, "ver_1"),
    "verdicts_by": lambda r: facts.verdicts_by(r, "run_1"),
    "cache_get": lambda r: facts.cache_get(r, "k"),
    "last_cache": lambda r: facts.last_cache(r, "a", "make"),
    "ancestors": lambda r: facts.ancestors(r, "ver_1"),
    "descendants": lambda r: facts.descendants(r, "ver_1"),
    "is_granted": lambda r: facts.is_granted(r, "sha256:1"),
    "find_endpoint": lambda r: live.find_endpoint(r, "e"),
    "list_deployments": lambda r: live.list_deployments(r, "end_1"),
    "active_rollout": lambda r: live.active_rollout(r, "end_1"),
    "list_firings": lambda r: live.list_firings(r, "aut_1"),
    "list_alarms": lambda r: live.list_alarms(r, "end_1"),
    "get_state": lambda r: live.get_state(r, "k"),
    "find_calls": lambda r: calls.find_calls(r, [("e", "p.0")]),
    "labelled": lambda r: calls.labelled(r, "end_1", 0, 1),
    "corrections": lambda r: calls.corrections(r, "e", "p.0"),
    "get_offset": lambda r: calls.get_offset(r, "calls"),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_use_an_index(tmp_path: Path, name: str) -> None:
    """Whatever is looked up by a key is found by an index, however long the table is."""
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        planner = _Planner(ledger)
        LOOKUPS[name](planner)
        assert planner.scans == []


@pytest.mark.parametrize("column", ["name", "kind", "state", "parent"])
def test_runs_are_listed_newest_first_without_sorting(tmp_path: Path, column: str) -> None:
    """A list of runs reads only the runs that it returns, in their order."""
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        planner = _Planner(ledger)
        facts.list_runs(planner, limit=1)
        facts.list_runs(planner, limit=1, **{column: "x"})
        assert not [plan for plan in planner.plans if "TEMP B-TREE" in plan]
        assert f"{'parent_id' if column == 'parent' else column}=?" in planner.plans[-1]


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
