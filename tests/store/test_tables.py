"""Delta tables: the conformance suite, plain readers, odd folders, rot, conflicts and kill -9."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.store.crash import KILLS, kill_loop
from trimtab.core.errors import Conflict, Corrupt
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store.tables import DeltaTables, Tables
from trimtab.testing.tables import ROWS, TablesConformance, TwoWriters, table

LOCAL = datetime(2013, 1, 1)  # noqa: DTZ001 - without a zone on purpose


class TestDeltaTables(TablesConformance):
    """Delta tables keep the contract."""

    @pytest.fixture
    def tables(self, tmp_path: Path) -> Tables:
        """Return Delta tables in a new folder."""
        return DeltaTables(tmp_path / "tables")


@pytest.fixture
def tables(tmp_path: Path) -> DeltaTables:
    """Return Delta tables in a folder whose name looks like a partition and a pattern."""
    return DeltaTables(tmp_path / "env=prod" / "a*[b]")


def _put(tables: DeltaTables, ident: str, frame: Any, mode: Any = "overwrite", **options: Any) -> Data:
    run_id = options.pop("run_id", None) or new_id("run")
    return tables.commit([tables.stage(ident, frame)], table_id=ident, mode=mode, run_id=run_id, **options)


def test_any_delta_reader_reads_every_version(tables: DeltaTables) -> None:
    """A plain Delta reader sees each version by its number, and no feature that others lack."""
    ident = new_id("ast")
    locations = [_put(tables, ident, table(x=[number], s=["a"])) for number in range(3)]
    for number, location in enumerate(locations):
        plain = need("deltalake").DeltaTable(tables.uri(ident), version=location["delta_version"])
        assert plain.to_pyarrow_table().to_pydict() == {"x": [number], "s": ["a"]}
        assert (plain.protocol().min_reader_version, plain.protocol().min_writer_version) == (1, 2)


def test_the_folders_name_adds_no_columns(tables: DeltaTables) -> None:
    """A store below a folder like ``env=prod`` or ``a*[b]`` reads its own files and columns only."""
    location = _put(tables, new_id("ast"), table(x=[1]))
    assert tables.arrow(location).schema.names == ["x"]
    assert tables.scan(location).collect().columns == ["x"]


def test_local_times_may_come_later(tables: DeltaTables) -> None:
    """A table that had no times without a zone takes them up, by overwrite and by append, and stays readable."""
    local = table(t=[LOCAL])
    for mode, frame in (("overwrite", local), ("append", local)):
        ident = new_id("ast")
        first = _put(tables, ident, table(x=[1]))
        second = _put(tables, ident, frame, mode)
        assert LOCAL in tables.arrow(second).to_pydict()["t"]
        assert tables.arrow(first).to_pydict() == {"x": [1]}
        tables.rollback_to(ident, first["delta_version"])
        assert _put(tables, ident, table(x=[2]), "append")["rows"] == 2


def test_every_row_type_survives_an_append(tables: DeltaTables) -> None:
    """Rows of all kept types can be appended to a table that has them."""
    ident = new_id("ast")
    _put(tables, ident, table(**ROWS))
    location = _put(tables, ident, table(**ROWS).slice(0, 1), "append")
    assert location["rows"] == 4
    assert tables.scan(location).collect().height == 4


def test_old_versions_outlive_checkpoints(tables: DeltaTables) -> None:
    """After a checkpoint and the engine's own clean-up, the first version and its run are still found."""
    ident, run_id = new_id("ast"), new_id("run")
    first = _put(tables, ident, table(x=[1]), run_id=run_id)
    second = _put(tables, ident, table(x=[2]))
    plain = need("deltalake").DeltaTable(tables.uri(ident))
    plain.create_checkpoint()
    plain.cleanup_metadata()
    third = _put(tables, ident, table(x=[3]), "append")
    assert plain.metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
    assert tables.arrow(first).to_pydict() == {"x": [1]}
    assert tables.find_commit(ident, run_id) == first
    assert sorted(tables.arrow(third).to_pydict()["x"]) == [2, 3]
    assert tables.latest(ident) == third["delta_version"]
    tables.rollback_to(ident, second["delta_version"])
    assert _put(tables, ident, table(x=[4]), "append")["rows"] == 2


def test_a_missing_or_changed_file_is_told(tables: DeltaTables) -> None:
    """A file that is gone or has other bytes is an error that names it."""
    location = _put(tables, new_id("ast"), table(x=[1, 2, 3]))
    tables.verify(location)
    path = tables.files(location)[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(Corrupt, match="other content") as caught:
        tables.verify(location)
    assert caught.value.where == str(path)
    path.unlink()
    for read in (tables.arrow, tables.scan, tables.files):
        with pytest.raises(Corrupt, match="is missing"):
            read(location)


def test_a_failed_stage_leaves_nothing(tables: DeltaTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, no half file lies around."""
    ident = new_id("ast")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            tables.stage(ident, table(x=[1]))
    assert list(Path(tables.uri(ident)).iterdir()) == []


def test_writers_that_collide_are_told(tables: DeltaTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two overwrites that began from the same version the second one is a conflict, and nothing is lost."""
    ident = new_id("ast")
    _put(tables, ident, table(x=[1]))
    staged = tables.stage(ident, table(x=[2]))
    from_before = need("deltalake").DeltaTable(tables.uri(ident))
    _put(tables, ident, table(x=[3]))
    with monkeypatch.context() as patch:
        patch.setattr(tables, "_open", lambda table_id: from_before)
        with pytest.raises(Conflict, match="somebody else"):
            tables.commit([staged], table_id=ident, mode="overwrite", run_id=new_id("run"))
    newest = tables.latest(ident)
    assert newest is not None
    assert tables.arrow(tables.location(ident, newest)).to_pydict() == {"x": [3]}


def test_an_answer_that_was_lost_is_no_second_commit(tables: DeltaTables) -> None:
    """A run whose commit went in unseen, as by its own attempt before, gets that version and does not double it."""
    ident, run_id = new_id("ast"), new_id("run")
    _put(tables, ident, table(x=[1]))
    staged = tables.stage(ident, table(x=[2]))
    from_before = need("deltalake").DeltaTable(tables.uri(ident))
    first = tables.commit([staged], table_id=ident, mode="append", run_id=run_id)
    current, opened = tables._open, [from_before]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_open", lambda table_id: opened.pop() if opened else current(table_id))
        assert tables.commit([staged], table_id=ident, mode="append", run_id=run_id) == first
    assert opened == []
    assert tables.arrow(first).num_rows == 2
    assert tables.latest(ident) == first["delta_version"]


def test_kill_9_loses_and_doubles_no_commit(tmp_path: Path) -> None:
    """After kill -9 at any moment, every acknowledged commit is found, and no rows are there that no run committed."""
    acknowledged = kill_loop("tables", tmp_path, max(2, KILLS // 3), at_least=0.4)
    tables = DeltaTables(tmp_path)
    ident = "ast_" + "0" * 32
    for run_id in acknowledged:
        assert tables.find_commit(ident, run_id) is not None
    newest = tables.latest(ident)
    assert newest is not None
    names = tables.arrow(tables.location(ident, newest)).to_pydict()["run"]
    log = sorted((Path(tables.uri(ident)) / "_delta_log").glob("*.json"))
    committed = {
        action["txn"]["appId"].removeprefix("trimtab-run-")
        for path in log
        for action in map(json.loads, path.read_text().splitlines())
        if "txn" in action
    }
    assert len(names) == len(set(names))
    assert set(names) == committed
    assert set(acknowledged) <= committed


class TestTwoWriters(TwoWriters):
    """A folder takes two writers at once, too."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> tuple[str, dict[str, str], Path]:
        """Return where two processes open the same tables."""
        return str(tmp_path / "tables"), {}, tmp_path
