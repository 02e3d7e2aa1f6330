"""What every table store must do; subclass ``TablesConformance`` and override ``tables``."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput, Conflict, NotFound, WrongUse
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store.tables import Tables, open_tables

ROWS: dict[str, list[Any]] = {
    "whole": [1, None, -(2**63)],
    "real": [0.1, float("inf"), None],
    "text": ["a", "", None],
    "flag": [True, None, False],
    "day": [date(2013, 1, 1), None, date(1969, 12, 31)],
    "moment": [datetime(2013, 1, 1, 5, 0, 0, 123456, UTC), None, datetime(1900, 1, 1, tzinfo=UTC)],
    "local": [datetime(2013, 1, 1, 5, 0, 0, 1), None, datetime(1900, 1, 1)],  # noqa: DTZ001 - that is the point
    "money": [Decimal("1.10"), None, Decimal("-0.01")],
    "raw": [b"\0x", b"", None],
    "list": [[1, None], [], None],
    "struct": [{"a": 1, "b": "x"}, {"a": None, "b": None}, None],
}


def table(**columns: list[Any]) -> Any:
    """Return an Arrow table of columns."""
    return need("pyarrow").table(columns)


WRITERS, COMMITS = 2, 20
_WRITER = """
import json, sys
from trimtab.core.errors import Conflict
from trimtab.store.tables import open_tables
import pyarrow
location, options, cache, ident, who, commits = json.loads(sys.argv[1])
from pathlib import Path
tables = open_tables(location, json.loads(sys.stdin.readline()), cache=Path(cache))
names = [f"{who}.{number}" for number in range(commits)]
files = [tables.stage(ident, pyarrow.table({"run": [name]})) for name in names]
print("ready", flush=True)
sys.stdin.readline()
for name, staged in zip(names, files):
    while True:
        try:
            made = tables.commit([staged], table_id=ident, mode="append", run_id=name)
            print(made["delta_version"], made["rows"])
            break
        except Conflict:
            pass
"""


class TwoWriters:
    """Two processes that commit to one table at once; subclass it where the store takes that."""

    def test_two_writers_lose_and_double_nothing(self, place: tuple[str, dict[str, str], Path]) -> None:
        """Of two processes that make a table and append to it at once, every commit is there once."""
        location, options, cache = place
        ident = new_id("ast")
        writers = []
        for who in range(WRITERS):
            request = json.dumps([location, {}, str(cache / str(who)), ident, f"w{who}", COMMITS])
            writers.append(
                subprocess.Popen(
                    [sys.executable, "-c", _WRITER, request],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
        try:
            for writer in writers:
                assert writer.stdin is not None and writer.stdout is not None
                writer.stdin.write(json.dumps(options) + "\n")
                writer.stdin.flush()
                assert writer.stdout.readline() == "ready\n", writer.communicate()[1]
            told = [writer.communicate("go\n", timeout=120) for writer in writers]
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
        assert [writer.returncode for writer in writers] == [0] * WRITERS, told
        tables = open_tables(location, options, cache=cache)
        newest = tables.latest(ident)
        assert newest is not None
        rows = tables.arrow(tables.location(ident, newest)).to_pydict()["run"]
        expected = {f"w{who}.{number}" for who in range(WRITERS) for number in range(COMMITS)}
        assert len(rows) == WRITERS * COMMITS and set(rows) == expected
        made = sorted(tuple(map(int, line.split())) for output, _ in told for line in output.splitlines())
        assert [rows for _, rows in made] == list(range(1, WRITERS * COMMITS + 1)), made
        last = tables.find_commit(ident, "w0.0")
        assert last is not None and (last["delta_version"], last["rows"]) in made


class TablesConformance:
    """The contract of ``Tables`` as tests; each test gets a new, empty store."""

    @pytest.fixture
    def tables(self) -> Tables:
        """Return a new table store."""
        raise NotImplementedError("override the fixture tables")

    @pytest.fixture
    def ident(self) -> str:
        """Return the id of a table that does not exist yet."""
        return new_id("ast")

    def put(self, tables: Tables, ident: str, frame: Any, mode: Any = "overwrite", **options: Any) -> Data:
        """Stage and commit a frame in a run of its own."""
        run_id = options.pop("run_id", None) or new_id("run")
        return tables.commit([tables.stage(ident, frame)], table_id=ident, mode=mode, run_id=run_id, **options)

    def test_rows_come_back_as_they_were(self, tables: Tables, ident: str) -> None:
        """Values of every kept type come back exactly, as Arrow and as a lazy frame, nulls included."""
        location = self.put(tables, ident, table(**ROWS))
        assert tables.arrow(location).to_pydict() == ROWS
        assert tables.scan(location).collect().to_dict(as_series=False) == ROWS
        assert (location["table"], location["rows"]) == (ident, 3)
        assert list(location["schema"]) == list(ROWS)
        assert location["bytes"] > 0

    def test_a_polars_frame_is_kept_too(self, tables: Tables, ident: str) -> None:
        """A Polars frame with categories, unsigned numbers and an empty column comes back in plain types."""
        polars = need("polars")
        frame = polars.DataFrame(
            {
                "c": polars.Series(["a", None], dtype=polars.Categorical),
                "e": polars.Series(["x", "y"], dtype=polars.Enum(["x", "y"])),
                "u": polars.Series([2**32 - 1, None], dtype=polars.UInt32),
                "n": polars.Series([None, None], dtype=polars.Null),
                "l": polars.Series([["a"], None], dtype=polars.List(polars.String)),
            }
        )
        location = self.put(tables, ident, frame)
        assert location["schema"] == {
            "c": "string",
            "e": "string",
            "u": "int64",
            "n": "string",
            "l": "list<item: string>",
        }
        assert tables.arrow(location).to_pydict() == frame.to_dict(as_series=False)

    def test_a_frame_without_rows_is_a_version(self, tables: Tables, ident: str) -> None:
        """No rows are kept with their columns, first, in between and after others."""
        empty = table(x=[1]).slice(0, 0)
        for frame in (empty, table(x=[1]), empty):
            location = self.put(tables, ident, frame)
            assert location["rows"] == frame.num_rows
            assert tables.arrow(location).to_pydict() == frame.to_pydict()
            assert tables.scan(location).collect().height == frame.num_rows
        appended = self.put(tables, ident, empty, "append")
        assert tables.scan(appended).collect().schema == {"x": need("polars").Int64}

    def test_staged_rows_are_seen_by_nobody(self, tables: Tables, ident: str) -> None:
        """What was staged is in no version until it is committed."""
        tables.stage(ident, table(x=[1]))
        assert tables.latest(ident) is None
        location = self.put(tables, ident, table(x=[2]))
        tables.stage(ident, table(x=[3]))
        assert tables.arrow(location).to_pydict() == {"x": [2]}
        assert tables.latest(ident) == location["delta_version"]

    def test_versions_never_change(self, tables: Tables, ident: str) -> None:
        """Every version stays readable as it was, whatever is written after it."""
        first = self.put(tables, ident, table(x=[1]))
        second = self.put(tables, ident, table(x=[2]), "append")
        third = self.put(tables, ident, table(y=["a"]))
        assert tables.arrow(first).to_pydict() == {"x": [1]}
        assert sorted(tables.arrow(second).to_pydict()["x"]) == [1, 2]
        assert tables.arrow(third).to_pydict() == {"y": ["a"]}
        assert tables.scan(first).collect().to_dict(as_series=False) == {"x": [1]}

    def test_equal_rows_have_equal_digests(self, tables: Tables, ident: str) -> None:
        """The digest depends on rows and columns only: not on the table, the run or how rows are cut in memory."""
        pyarrow = need("pyarrow")
        frame = table(x=list(range(5000)), s=[str(n % 7) for n in range(5000)])
        pieces = pyarrow.concat_tables([frame.slice(start, 13) for start in range(0, 5000, 13)])
        wide = frame.cast(pyarrow.schema([("x", pyarrow.int64()), ("s", pyarrow.large_string())]))
        coded = frame.set_column(1, "s", frame["s"].dictionary_encode())
        digests = {
            self.put(tables, new_id("ast"), one)["digest"]
            for one in (frame, pieces, wide, coded, need("polars").from_arrow(frame))
        }
        assert len(digests) == 1
        assert self.put(tables, ident, frame.slice(1))["digest"] not in digests
        assert self.put(tables, ident, frame.rename_columns(["x", "t"]))["digest"] not in digests

    def test_an_append_keeps_and_adds(self, tables: Tables, ident: str) -> None:
        """Appending keeps what is there; a new column is null in earlier rows, a missing one in later rows."""
        self.put(tables, ident, table(x=[1]), "append")
        self.put(tables, ident, table(x=[2], y=["b"]), "append")
        location = self.put(tables, ident, table(y=["c"]), "append")
        rows = {(row["x"], row["y"]) for row in tables.arrow(location).to_pylist()}
        assert rows == {(1, None), (2, "b"), (None, "c")}
        lazy = tables.scan(location).collect()
        assert {(row["x"], row["y"]) for row in lazy.to_dicts()} == rows
        assert len(tables.files(location)) == 3

    def test_an_append_can_replace_a_batch(self, tables: Tables, ident: str) -> None:
        """Files can be dropped in the commit that adds others: a batch is replaced at once."""
        old = tables.stage(ident, table(x=[1]))
        stays = tables.stage(ident, table(x=[5]))
        tables.commit([old, stays], table_id=ident, mode="append", run_id=new_id("run"))
        location = self.put(tables, ident, table(x=[2]), "append", drop_files=[old.file])
        assert sorted(tables.arrow(location).to_pydict()["x"]) == [2, 5]
        alone = tables.commit([], table_id=ident, mode="append", run_id=new_id("run"), drop_files=[stays.file])
        assert tables.arrow(alone).to_pydict() == {"x": [2]}

    def test_dropping_what_is_not_there_is_refused(self, tables: Tables, ident: str) -> None:
        """A file that the table does not have cannot be dropped, and an overwrite drops no single ones."""
        location = self.put(tables, ident, table(x=[1]))
        with pytest.raises(NotFound, match="no file"):
            self.put(tables, ident, table(x=[2]), "append", drop_files=["part-0.parquet"])
        with pytest.raises(WrongUse, match="overwrite drops all"):
            self.put(tables, ident, table(x=[2]), drop_files=["part-0.parquet"])
        with pytest.raises(BadInput, match="nothing to commit"):
            tables.commit([], table_id=ident, mode="append", run_id=new_id("run"))
        assert tables.latest(ident) == location["delta_version"]

    def test_types_that_disagree_are_refused_by_column(self, tables: Tables, ident: str) -> None:
        """A batch whose column has another type than the table, or than its neighbour, is refused by name."""
        location = self.put(tables, ident, table(x=[1], y=["a"]))
        with pytest.raises(BadInput, match="column 'y' is int64") as caught:
            self.put(tables, ident, table(x=[1], y=[2]), "append")
        assert caught.value.where == "y"
        parts = [tables.stage(ident, table(z=[1])), tables.stage(ident, table(z=["a"]))]
        with pytest.raises(BadInput, match="column 'z'"):
            tables.commit(parts, table_id=ident, mode="overwrite", run_id=new_id("run"))
        with pytest.raises(BadInput, match="have one name"):
            self.put(tables, ident, table(X=[1]), "append")
        assert tables.arrow(location).num_rows == 1
        assert tables.latest(ident) == location["delta_version"]

    def test_a_column_without_values_takes_the_tables_type(self, tables: Tables, ident: str) -> None:
        """A batch whose column is null all over fits whatever type the table has."""
        self.put(tables, ident, table(x=[1], y=[1.5]), "append")
        location = self.put(tables, ident, table(x=[2], y=[None]), "append")
        assert location["schema"]["y"] == "double"
        assert set(tables.scan(location).collect()["y"].to_list()) == {1.5, None}

    def test_a_runs_commit_is_found_by_its_id(self, tables: Tables, ident: str) -> None:
        """A commit is found by its run, also after others; a run that did not commit finds nothing."""
        run_id, other = new_id("run"), new_id("run")
        assert tables.find_commit(ident, run_id) is None
        location = self.put(tables, ident, table(x=[1]), run_id=run_id)
        self.put(tables, ident, table(x=[2]))
        assert tables.find_commit(ident, run_id) == location
        assert tables.find_commit(ident, other) is None

    def test_a_run_commits_once(self, tables: Tables, ident: str) -> None:
        """The same commit again returns the same version; another one of the same run is refused."""
        run_id = new_id("run")
        staged = tables.stage(ident, table(x=[1]))
        first = tables.commit([staged], table_id=ident, mode="append", run_id=run_id)
        assert tables.commit([staged], table_id=ident, mode="append", run_id=run_id) == first
        with pytest.raises(Conflict, match="before"):
            self.put(tables, ident, table(x=[2]), "append", run_id=run_id)
        assert tables.latest(ident) == first["delta_version"]

    def test_a_rollback_drops_what_came_after(self, tables: Tables, ident: str) -> None:
        """After a rollback the next append builds on the kept version, and dropped commits are not found."""
        kept, dropped = new_id("run"), new_id("run")
        first = self.put(tables, ident, table(x=[1]), run_id=kept)
        self.put(tables, ident, table(x=[2], y=[2]), "append", run_id=dropped)
        tables.rollback_to(ident, first["delta_version"])
        after = tables.latest(ident)
        tables.rollback_to(ident, first["delta_version"])
        assert tables.latest(ident) == after
        assert tables.find_commit(ident, dropped) is None
        assert tables.find_commit(ident, kept) == first
        third = self.put(tables, ident, table(x=[3]), "append")
        assert sorted(tables.arrow(third).to_pydict()["x"]) == [1, 3]
        assert list(third["schema"]) == ["x"]
        assert tables.arrow(first).to_pydict() == {"x": [1]}

    def test_a_rollback_of_everything_leaves_no_rows(self, tables: Tables, ident: str) -> None:
        """When no version is to be kept, the next append starts from nothing."""
        tables.rollback_to(ident, None)
        assert tables.latest(ident) is None
        self.put(tables, ident, table(x=[1]), "append")
        tables.rollback_to(ident, None)
        location = self.put(tables, ident, table(x=[2]), "append")
        assert tables.arrow(location).to_pydict() == {"x": [2]}

    def test_an_append_builds_on_the_version_that_is_named(self, tables: Tables, ident: str) -> None:
        """An append to an earlier version leaves out what later ones, such as refused ones, had added."""
        first = self.put(tables, ident, table(x=[1]), "append")
        refused = self.put(tables, ident, table(x=[666]), "append")
        third = self.put(tables, ident, table(x=[2]), "append", base=first["delta_version"])
        assert sorted(tables.arrow(third).to_pydict()["x"]) == [1, 2]
        assert sorted(tables.arrow(refused).to_pydict()["x"]) == [1, 666]

    def test_what_is_not_there_is_not_found(self, tables: Tables, ident: str) -> None:
        """A table or a version that does not exist says so; only an id names a table."""
        with pytest.raises(NotFound, match="not in this store"):
            tables.files({"table": ident, "delta_version": 0})
        location = self.put(tables, ident, table(x=[1]))
        with pytest.raises(NotFound, match="no version 99"):
            tables.arrow({**location, "delta_version": 99})
        with pytest.raises(NotFound, match="no version 99"):
            tables.rollback_to(ident, 99)
        for name in ("", "flights", "../ast_" + "0" * 32):
            with pytest.raises(WrongUse, match="not a table's id"):
                tables.stage(name, table(x=[1]))

    def test_files_are_ordered_by_content(self, tables: Tables) -> None:
        """The order of files and rows of equal content is the same in every table, whatever was staged first."""
        frames = [table(x=[n]) for n in range(5)]
        orders = []
        for part in (frames, frames[::-1]):
            ident = new_id("ast")
            staged = [tables.stage(ident, frame) for frame in part]
            location = tables.commit(staged, table_id=ident, mode="append", run_id=new_id("run"))
            orders.append((location["digest"], tables.arrow(location).to_pydict()["x"]))
            assert tables.scan(location).collect()["x"].to_list() == orders[-1][1]
        assert orders[0] == orders[1]

    def test_leftovers_are_swept_and_versions_are_not(self, tables: Tables, ident: str) -> None:
        """What was staged and never committed goes when it is old enough; every version stays whole."""
        first = self.put(tables, ident, table(x=[1]))
        second = self.put(tables, ident, table(x=[2]))
        assert tables.sweep(ident, 2.0**40) == 0
        tables.stage(ident, table(x=[3]))
        assert tables.sweep(ident, 0.0) == 0
        assert tables.sweep(ident, 2.0**40) == 1
        assert tables.arrow(first).to_pydict() == {"x": [1]}
        assert tables.arrow(second).to_pydict() == {"x": [2]}
        assert tables.sweep(new_id("ast"), 2.0**40) == 0

    def test_a_removed_table_is_missed(self, tables: Tables, ident: str) -> None:
        """A version is there while its table is; removing a table again changes nothing, and others stay."""
        other = new_id("ast")
        here, there = (self.put(tables, one, table(x=[1])) for one in (ident, other))
        assert tables.missing(here) == tables.missing(there) == ""
        for _ in range(2):
            tables.remove(ident)
        assert ident in tables.missing(here) and tables.missing(there) == "" and tables.latest(ident) is None
