"""Sources: incremental, as received, deterministic whatever the order of arrival, never half."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import trimtab as tt
from tests.data.conftest import START, Bench
from trimtab import check as ck
from trimtab.core.errors import BadInput, BadSource, ProjectError
from trimtab.data.bronze import reads_nothing
from trimtab.data.frames import load
from trimtab.store import facts
from trimtab.store.store import open_store


def source(**options: Any) -> Any:
    """Return a source called raw that reads CSV files."""

    def raw() -> None: ...

    return tt.source(path="data/*.csv", **options)(raw)


def test_rows_are_kept_as_received_with_where_they_came_from(bench: Bench) -> None:
    """Texts stay texts, missing values are null, and file, batch, row and time of receipt stand beside."""
    bench.write("data/a.csv", 'id,x\n007,"1,5"\n8,\n')
    version = bench.run(source())
    assert bench.rows("raw") == [
        ("007", "1,5", "data/a.csv", 1, 1, START),
        ("8", None, "data/a.csv", 1, 2, START),
    ]
    assert version.meta["rows"] == 2 and list(version.meta["columns"])[:2] == ["id", "x"]
    batch = version.meta["batches"]["data/a.csv"]
    assert (batch["rows"], batch["batch"], batch["received_at"]) == (2, 1, START.isoformat())
    assert batch["digest"].startswith("sha256:")
    assert bench.facts()["rows_in"] == 2 and bench.facts()["bytes_in"] == 18


def test_only_new_and_changed_files_are_read(bench: Bench) -> None:
    """A new file becomes a batch, a changed one replaces what it brought, a removed one's rows stay."""
    bench.write("data/a.csv", "id\n1\n2\n")
    bench.write("data/b.csv", "id\n3\n")
    bench.run(source())
    bench.write("data/b.csv", "id\n4\n")
    bench.write("data/c.csv", "id\n5\n")
    (bench.root / "data/a.csv").unlink()
    bench.now = START + timedelta(days=1)
    version = bench.run(source())
    assert bench.rows("raw", ["id", "_source", "_batch"]) == [
        ("1", "data/a.csv", 1),
        ("2", "data/a.csv", 1),
        ("4", "data/b.csv", 3),
        ("5", "data/c.csv", 4),
    ]
    told = bench.facts()
    assert (told["files_read"], told["files_replaced"], told["files_removed"], told["rows_in"]) == (2, 1, 1, 2)
    assert set(version.meta["batches"]) == {"data/a.csv", "data/b.csv", "data/c.csv"}
    assert load(bench.store, version)["id"].to_list() == ["1", "2", "4", "5"]


def test_nothing_new_keeps_the_location(bench: Bench) -> None:
    """A run that finds nothing new commits nothing."""
    bench.write("data/a.csv", "id\n1\n")
    bench.write("data/b.csv", "id\n2\n")
    first = bench.run(source())
    (bench.root / "data/b.csv").unlink()
    second = bench.run(source())
    assert second.location == first.location and second.digest == first.digest
    assert bench.facts()["files_removed"] == 1


def test_rows_come_in_the_order_of_receipt(bench: Bench) -> None:
    """However the parts are named, a source's rows are loaded batch by batch."""
    version = None
    for number in range(6):
        bench.write(f"data/{9 - number}.csv", f"id\n{number}\n")
        version = bench.run(source())
    assert version is not None
    for kind in ("", "pl.LazyFrame", "pd.DataFrame", "pa.Table"):
        frame = load(bench.store, version, kind)
        ids = frame.collect()["id"] if kind == "pl.LazyFrame" else frame["id"]
        values = ids.to_pylist() if kind == "pa.Table" else ids.to_list()
        assert values == [str(n) for n in range(6)]


@pytest.mark.parametrize("checks", [[], [ck.unique("id", at_most=0.9), ck.matches("x", "[0-9]+", at_most=0.9)]])
def test_increments_give_what_one_reading_gives(tmp_path: Path, checks: list[Any]) -> None:
    """Whatever came when, the same files in the same order of receipt give the same rows and quarantine."""
    files = {
        "data/a.csv": "id,x\n1,5\n2,no\n1,6\n",
        "data/b.csv": "id,x\n3,\n2,7\n",
        "data/c.csv": "id,x\n4,8\n3,9\n5,bad\n",
    }
    seen: list[tuple[Any, ...]] = []
    for steps in ([list(files)], [[name] for name in files], [["data/a.csv"], ["data/b.csv", "data/c.csv"]]):
        store = open_store(tmp_path / str(len(seen)) / "store")
        bench = Bench(tmp_path / str(len(seen)) / "project", store)
        for names in steps:
            for name in names:
                bench.write(name, files[name])
            version = bench.run(source(checks=checks))
        aside = version.meta["quarantine"]
        quarantined = store.tables.scan(aside).collect().rows() if aside else []
        seen.append((load(store, version).rows(), quarantined, version.meta["quality"], version.meta["rules"]))
        store.close()
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) + len(seen[0][1]) == 8


def test_a_row_comes_back_when_what_it_repeated_is_gone(bench: Bench) -> None:
    """Quarantined rows are judged again: the file that had the first of two equal keys is delivered anew."""
    declared = source(checks=[ck.unique("id", at_most=0.5)])
    bench.write("data/a.csv", "id\n1\n2\n")
    bench.write("data/b.csv", "id\n1\n3\n")
    bench.run(declared)
    assert [row[0] for row in bench.rows("raw")] == ["1", "2", "3"]
    assert bench.rows("raw.quarantine", ["id", "_source", "_row"]) == [("1", "data/b.csv", 1)]
    bench.write("data/a.csv", "id\n9\n2\n")
    version = bench.run(declared)
    assert [row[0] for row in load(bench.store, version).rows()] == ["1", "3", "9", "2"]
    assert bench.rows("raw.quarantine") == [] and version.meta["quarantine"] is not None


def test_checks_that_are_taken_away_bring_all_rows_back(bench: Bench) -> None:
    """Without the check, what it set aside is published."""
    bench.write("data/a.csv", "id\n1\n1\n")
    bench.run(source(checks=[ck.unique("id", at_most=0.5)]))
    assert len(bench.rows("raw")) == 1
    version = bench.run(source())
    assert len(bench.rows("raw")) == 2 and version.meta["quarantined"] == 0


def test_a_failing_gate_publishes_nothing_and_is_tried_again(bench: Bench) -> None:
    """The old version stays, the failing rows can be looked at, and a mended file is taken."""
    declared = source(checks=[ck.unique("id"), ck.row_count(1, 3)])
    bench.write("data/a.csv", "id\n1\n")
    first = bench.run(declared)
    bench.write("data/b.csv", "id\n1\n2\n")
    refused = bench.run(declared)
    assert refused.state == "refused" and refused.location == {} and refused.meta["failed"] == ["unique(id)"]
    assert bench.store.tables.latest(first.location["table"]) == first.location["delta_version"]
    assert bench.rows("raw.quarantine", ["id", "_source", "_row", "_check"]) == [("1", "data/b.csv", 1, "unique(id)")]
    evidence = bench.last.verdicts[0].evidence if bench.last else {}
    assert evidence["sample"] == [{"_source": "data/b.csv", "_row": 1}]
    bench.write("data/b.csv", "id\n2\n")
    assert bench.run(declared).meta["rows"] == 2
    bench.write("data/c.csv", "id\n3\n4\n")
    assert bench.run(declared).meta["failed"] == ["row_count(1, 3)"]


def test_checks_of_the_whole_table_read_no_old_rows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of rows is known without reading them."""
    declared = source(checks=[ck.row_count(1, 2), ck.columns("id")])
    bench.write("data/a.csv", "id\n1\n")
    bench.run(declared)
    bench.write("data/b.csv", "id\n2\n3\n")
    monkeypatch.setattr(type(bench.store.tables), "scan", lambda *args: pytest.fail("old rows were read"))
    refused = bench.run(declared)
    assert refused.state == "refused" and refused.meta["rows"] == 3
    assert bench.verdicts() == {"row_count(1, 2)": "fail", "columns(id)": "pass"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("id,y\n1,2\n", "x missing; y new"),
        ("id\n1\n", "x missing"),
        ("id,x,z\n1,2,3\n", "z new"),
        ("id,x,_row\n1,2,3\n", "_row new"),
    ],
)
def test_other_columns_than_before_are_refused(bench: Bench, content: str, says: str) -> None:
    """The file and the columns are named, and nothing is published."""
    bench.write("data/a.csv", "id,x\n1,2\n")
    bench.run(source())
    bench.write("data/b.csv", content)
    with pytest.raises(BadSource, match=says) as caught:
        bench.run(source())
    assert caught.value.where == "data/b.csv"
    assert len(bench.rows("raw")) == 1


def test_columns_in_another_order_are_put_in_order(bench: Bench) -> None:
    """The order of a later file's columns is no matter."""
    bench.write("data/a.csv", "id,x\n1,2\n")
    bench.write("data/b.csv", "x,id\n4,3\n")
    bench.run(source())
    assert bench.rows("raw", ["id", "x"]) == [("1", "2"), ("3", "4")]


def test_reserved_names_are_refused(bench: Bench) -> None:
    """A file cannot bring the columns that receipt adds."""
    bench.write("data/a.csv", "id,_batch\n1,2\n")
    with pytest.raises(BadSource, match="_batch"):
        bench.run(source())


def test_header_only_file_is_a_batch_without_rows(bench: Bench) -> None:
    """No rows are fine, and the file is not read again."""
    bench.write("data/a.csv", "id\n")
    bench.write("data/b.csv", "id\n1\n")
    version = bench.run(source())
    assert version.meta["batches"]["data/a.csv"]["rows"] == 0
    bench.write("data/c.csv", "id\n")
    bench.run(source())
    assert bench.facts()["files_read"] == 1 and len(bench.rows("raw")) == 1
    bench.write("data/a.csv", "id\n0\n")
    bench.run(source(checks=[ck.unique("id")]))
    assert [row[0] for row in bench.rows("raw")] == ["1", "0"]


def test_a_changed_reader_reads_everything_again(bench: Bench) -> None:
    """Other null texts or other code mean that all files are read anew, into a table with other columns too."""
    bench.write("data/a.csv", "id\nNA\n1\n")
    bench.run(source())
    assert bench.rows("raw", ["id"]) == [("NA",), ("1",)]
    bench.run(source(null=["NA"]))
    assert bench.rows("raw", ["id"]) == [(None,), ("1",)]
    assert bench.facts()["files_read"] == 1

    @tt.source(path="data/*.csv")
    def raw(path: Path) -> pl.DataFrame:
        return pl.read_csv(path, null_values=["NA"]).rename({"id": "number"})

    version = bench.run(raw, code="v2")
    assert next(iter(version.meta["columns"])) == "number"
    assert bench.rows("raw", ["number"]) == [(None,), (1,)]
    (bench.root / "data/a.csv").rename(bench.root / "data/b.csv")
    with pytest.raises(BadSource, match=r"gone: data/a.csv"):
        bench.run(raw, code="v3")


def test_a_function_reads_one_file(bench: Bench) -> None:
    """A body gets each new file's path and its rows are one batch."""
    seen = []

    @tt.source(path="data/*.txt")
    def raw(path: Path, factor: int = 2) -> pl.DataFrame:
        seen.append(path.name)
        return pl.DataFrame({"n": [int(word) * factor for word in path.read_text().split()]})

    bench.write("data/a.txt", "1 2")
    bench.run(raw)
    bench.write("data/b.txt", "3")
    bench.run(raw)
    assert seen == ["a.txt", "b.txt"]
    assert bench.rows("raw", ["n", "_source", "_row"]) == [
        (2, "data/a.txt", 1),
        (4, "data/a.txt", 2),
        (6, "data/b.txt", 1),
    ]


def test_a_function_without_files_replaces_its_rows_when_they_change(bench: Bench) -> None:
    """The same rows again are the same version; other rows are the next batch."""
    state = {"n": [1, 2]}

    @tt.source
    def raw() -> pl.DataFrame:
        return pl.DataFrame({"n": state["n"]})

    first = bench.run(raw)
    same = bench.run(raw)
    assert (same.digest, same.location) == (first.digest, first.location)
    state["n"] = [2, 3, 4]
    bench.run(raw)
    assert bench.rows("raw", ["n", "_batch", "_source"]) == [(2, 2, "raw"), (3, 2, "raw"), (4, 2, "raw")]


def test_wrong_functions_are_told(bench: Bench) -> None:
    """A body without a path parameter, a body that is empty and a return value that is no frame."""
    bench.write("data/a.csv", "id\n1\n")

    @tt.source(path="data/*.csv")
    def raw() -> pl.DataFrame:
        return pl.DataFrame({"n": [1]})

    with pytest.raises(ProjectError, match="takes 0 parameters"):
        bench.run(raw)

    @tt.source
    def empty() -> None: ...

    with pytest.raises(ProjectError, match="neither files nor a body"):
        bench.run(empty)

    @tt.source
    def wrong() -> Any:
        return 5

    with pytest.raises(BadInput, match=r"what wrong\(\) returned is an int") as caught:
        bench.run(wrong)
    assert caught.value.where.endswith(f":{wrong.__code__.co_firstlineno}")


def test_json_files_agree_on_types(bench: Bench) -> None:
    """A key may be left out, whole and broken numbers are numbers, and a later text among them is refused."""

    def raw() -> None: ...

    declared = tt.source(path="data/*.jsonl")(raw)
    bench.write("data/a.jsonl", '{"id": 1, "note": null}\n{"id": 2}\n')
    bench.write("data/b.jsonl", '{"id": 2.5, "note": "x"}\n')
    bench.run(declared)
    assert bench.rows("raw", ["id", "note"]) == [(1.0, None), (2.0, None), (2.5, "x")]
    bench.write("data/c.jsonl", '{"id": 7}\n')
    bench.run(declared)
    assert bench.rows("raw", ["id"])[-1] == (7.0,)
    bench.write("data/d.jsonl", '{"id": "8"}\n')
    with pytest.raises(BadSource, match="column 'id' is string; in the batches before it is double"):
        bench.run(declared)
    bench.write("data/d.jsonl", '{"id": 8, "other": 1}\n')
    with pytest.raises(BadSource, match="other new"):
        bench.run(declared)


def test_a_file_that_changes_while_it_is_read_is_not_taken(bench: Bench) -> None:
    """What the version says it was made from is what it was made from."""
    path = bench.write("data/a.csv", "id\n1\n")

    @tt.source(path="data/*.csv")
    def raw(path: Path) -> pl.DataFrame:
        frame = pl.read_csv(path)
        path.write_text("id\n2\n")
        return frame

    with pytest.raises(BadSource, match="changed while it was read"):
        bench.run(raw)
    assert path.read_text() == "id\n2\n"


def test_time_range_of_texts(bench: Bench) -> None:
    """Freshness comes from ISO texts; one that is none does not count, none at all is an error."""
    declared = source(time="at")
    bench.write("data/a.csv", "at\n2024-01-02T03:04:05Z\nsoon\n2024-01-01T00:00:00+02:00\n")
    bench.write("data/b.csv", "at\n2024-01-05 10:00\n2024-01-04\n")
    meta = bench.run(declared).meta
    assert (meta["time_min"], meta["time_max"]) == ("2023-12-31T22:00:00+00:00", "2024-01-05T10:00:00+00:00")
    other = source(time="when")
    with pytest.raises(BadInput, match="'when' is not there"):
        bench.run(other, code="v2")
    bench.write("data/a.csv", "at\nsoon\n")
    bench.write("data/b.csv", "at\nlater\n")
    with pytest.raises(BadInput, match="no value of the time column"):
        bench.run(declared)


def test_another_environment_shares_the_table_and_not_the_rows(bench: Bench, tmp_path: Path) -> None:
    """Two environments write versions of one table in turn; each keeps its own rows."""
    bench.write("data/a.csv", "id\n1\n")
    bench.run(source())
    store = open_store(tmp_path / "store", environment="prod")
    prod = Bench(tmp_path / "prod", store)
    prod.write("data/p.csv", "id\n100\n")
    prod.run(source())
    bench.write("data/b.csv", "id\n2\n")
    bench.run(source())
    prod.write("data/q.csv", "id\n200\n")
    prod.run(source())
    assert bench.rows("raw", ["id"]) == [("1",), ("2",)]
    assert prod.rows("raw", ["id"]) == [("100",), ("200",)]
    store.close()


def test_nothing_is_visible_before_the_ledger_says_so(bench: Bench) -> None:
    """A step that was carried out and not recorded changes no current version, and doing it again is the same."""
    bench.write("data/a.csv", "id\n1\n")
    bench.run(source())
    bench.write("data/b.csv", "id\n2\n")
    lost = bench.step(source())
    assert len(bench.rows("raw")) == 1
    done = bench.run(source())
    assert done.digest == lost.made[0].digest
    assert bench.rows("raw", ["id"]) == [("1",), ("2",)]
    assert facts.current(bench.store.ledger, "raw") == done


def test_functions_without_a_body_are_known() -> None:
    """A docstring, dots and pass are no body; anything else is."""

    def dots() -> None: ...

    def told(path: Path) -> None:
        """It says something."""

    def does(path: Path) -> int:
        return 5

    assert reads_nothing(dots) and reads_nothing(told) and not reads_nothing(does)
