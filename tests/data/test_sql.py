"""`trimtab sql`: reads tables and records of the store, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

import trimtab as tt
from tests.data.conftest import START, Bench
from trimtab import check as ck
from trimtab.core.clock import to_micros
from trimtab.core.errors import NotFound, WrongUse
from trimtab.data.sql import query
from trimtab.store import calls, facts, live
from trimtab.store.calls import CallRow, LabelRow


@tt.source(path="data/*.csv")
def raw() -> None:
    """Rows as received."""


@tt.table(key="id", checks=[ck.unique("id", at_most=0.5)])
def clean(raw: pl.DataFrame) -> pl.DataFrame:
    """Numbers."""
    return raw.select(pl.col("id").cast(pl.Int64), pl.col("x").cast(pl.Float64))


@pytest.fixture
def filled(bench: Bench) -> Bench:
    """A source and a table with one quarantined row."""
    bench.write("data/a.csv", "id,x\n1,0.5\n2,nan\n1,3\n")
    bench.run(raw)
    bench.run(clean)
    return bench


def rows(bench: Bench, text: str) -> list[list[Any]]:
    """Return the rows of a query."""
    return query(bench.store, text)["rows"]  # type: ignore[no-any-return]


def test_tables_stand_under_their_names(filled: Bench) -> None:
    """Current versions, quarantine and columns with their types."""
    answer = query(filled.store, "select * from clean order by id")
    assert answer["columns"] == ["id", "x"] and answer["types"] == ["BIGINT", "DOUBLE"]
    assert answer["rows"] == [[1, 0.5], [2, "NaN"]] and answer["more"] is False
    assert rows(filled, 'select id, _check from "clean".quarantine') == [[1, "unique(id)"]]
    assert rows(filled, "select count(*), sum(_row), min(_received) from RAW") == [[3, 6, START.isoformat()]]
    assert rows(filled, "select count(*) from raw.quarantine") == [[0]]


@pytest.mark.parametrize(
    ("expression", "value", "kind"),
    [
        ("sum(id)", 4, "HUGEINT"),
        ("1.50::decimal(10,2)", "1.50", "DECIMAL(10,2)"),
        ("date '2024-01-02'", "2024-01-02", "DATE"),
        ("timestamp '2024-01-02 03:04:05.6'", "2024-01-02T03:04:05.600000", "TIMESTAMP"),
        ("timestamptz '2024-01-02 03:04:05+02'", "2024-01-02T01:04:05+00:00", "TIMESTAMP WITH TIME ZONE"),
        ("'-inf'::double", "-Infinity", "DOUBLE"),
        ("null", None, '"NULL"'),
        ("[1, 2]", [1, 2], "INTEGER[]"),
        ("{'a': 1.5::double}", {"a": 1.5}, "STRUCT(a DOUBLE)"),
        ("'\\x00\\xff'::blob", "00ff", "BLOB"),
        ("timestamp_ns '2024-01-02 03:04:05.123456789'", "2024-01-02 03:04:05.123456789", "TIMESTAMP_NS"),
        ("9223372036854775807", 9223372036854775807, "BIGINT"),
        ("true", True, "BOOLEAN"),
        ("timestamp 'infinity'", "infinity", "TIMESTAMP"),
        ("date '0044-01-01 (BC)'", "0044-01-01 (BC)", "DATE"),
    ],
)
def test_values_are_what_json_can_say(filled: Bench, expression: str, value: Any, kind: str) -> None:
    """Nothing is rounded on its way to JSON, and the types are told."""
    answer = query(filled.store, f"select {expression} as v from (select 4 as id)")
    assert answer["types"] == [kind] and answer["rows"] == [[value]]
    msgspec.json.encode(answer)


@pytest.mark.parametrize(
    "text",
    [
        "drop table clean", "create table t as select 1", "copy clean to 'x.csv'", "insert into clean values (1, 2)",
        "attach 'x.db'", "set threads = 1", "pragma database_list", "install httpfs", "export database 'x'",
        "select 1; drop table clean", "", "explain analyze copy clean to 'x.csv'", "call pragma_version()",
        "delete from clean", "pivot clean on id using count(*); drop table clean",
    ],
)  # fmt: skip
def test_only_reading_is_allowed(filled: Bench, text: str) -> None:
    """Whatever is not one reading statement is refused, with the way it can be said."""
    with pytest.raises(WrongUse) as caught:
        query(filled.store, text)
    assert "read" in str(caught.value)
    assert not Path("x.csv").exists() and not (filled.root / "x.csv").exists()


@pytest.mark.parametrize(
    "text",
    [
        "select * from read_text('/etc/passwd')", "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from glob('/etc/*')", "select * from read_blob('{store}/ledger.db')",
        "select * from read_parquet('{orphan}')",
        "select * from parquet_metadata('{orphan}')", "select * from sniff_csv('/etc/passwd')", "select getenv('HOME')",
        "select * from read_csv('http://localhost:1/x')",
    ],
)  # fmt: skip
def test_nothing_outside_the_query_can_be_reached(filled: Bench, text: str) -> None:
    """Files, the network, and files of the store that no version names stay closed."""
    orphan = next(filled.store.home.tables.glob("*/*.parquet")).parent / "part-orphan.parquet"
    pl.DataFrame({"secret": [1]}).write_parquet(orphan)
    secret = pl.DataFrame({"a": [1]})
    with pytest.raises(WrongUse) as caught:
        query(filled.store, text.format(store=filled.store.home.root, orphan=orphan))
    assert "passwd:" not in str(caught.value) and "root:" not in str(caught.value)
    with pytest.raises(NotFound):
        query(filled.store, "select * from secret")
    assert secret.height


def test_unknown_names_get_the_closest(filled: Bench) -> None:
    """Tables, their parts and columns are told by what is there; what was never made says so."""
    for text, says in (
        ("select * from claen", "did you mean 'clean'"),
        ("select * from claen.quarantine", "did you mean 'clean.quarantine'"),
        ("select * from clean.quarantin", "did you mean 'clean.quarantine'"),
        ("select * from _run", "did you mean '_runs'"),
    ):
        with pytest.raises(NotFound, match=says):
            query(filled.store, text)
    with pytest.raises(WrongUse, match='"id"'):
        query(filled.store, "select idd from clean")
    filled.store.ledger.write(
        lambda tx: facts.put_asset(tx, name="later", kind="table", spec={}, at=START), what="declare"
    )
    with pytest.raises(NotFound, match="later was never made"):
        query(filled.store, "select * from later")


def test_refused_versions_are_not_shown_and_their_rows_are(filled: Bench) -> None:
    """The table shows the old version; quarantine shows what the refused one set aside."""
    filled.write("data/b.csv", "id,x\n1,1\n1,1\n1,1\n1,1\n")
    filled.run(raw)
    assert filled.run(clean).state == "refused"
    assert rows(filled, "select count(*) from clean") == [[2]]
    assert rows(filled, "select count(*) from clean.quarantine") == [[5]]


def test_a_first_version_that_is_refused_has_quarantine_only(bench: Bench) -> None:
    """There is no table yet, and its failing rows can be looked at."""
    bench.write("data/a.csv", "id,x\n1,1\n1,2\n1,3\n")
    bench.run(raw)
    bench.run(clean)
    assert rows(bench, "select x from clean.quarantine order by x") == [[2.0], [3.0]]
    with pytest.raises(NotFound, match="no version that passed"):
        query(bench.store, "select * from clean")


def test_listing_and_describing(filled: Bench) -> None:
    """SHOW, DESCRIBE, SUMMARIZE and EXPLAIN read too."""
    names = {row[0] for row in rows(filled, "show tables")}
    assert {"clean", "raw", "_runs", "_versions", "_verdicts", "_alarms"} <= names
    everything = query(filled.store, "select schema_name || '.' || view_name from duckdb_views() where not internal")
    assert ["clean.quarantine"] in everything["rows"]
    assert [row[0] for row in rows(filled, "describe clean")] == ["id", "x"]
    assert len(rows(filled, "summarize clean")) == 2
    assert rows(filled, "explain select * from clean")
    assert rows(filled, "from clean select count(*)") == [[2]]


def test_records(filled: Bench) -> None:
    """Runs, versions and verdicts of this environment are tables too."""
    assert rows(filled, "select name, kind, state from _runs order by id") == [
        ["raw", "make", "done"],
        ["clean", "make", "done"],
    ]
    assert rows(filled, "select asset, number, state from _versions where asset = 'clean'") == [
        ["clean", 1, "published"]
    ]
    assert rows(filled, "select \"check\", status, evidence->>'failing' from _verdicts") == [
        ["unique(id)", "pass", "1"]
    ]
    assert rows(filled, "select count(*) from _alarms") == [[0]]


def test_limit_tells_that_there_is_more(filled: Bench) -> None:
    """No answer is cut short silently."""
    answer = query(filled.store, "select * from raw", limit=2)
    assert len(answer["rows"]) == 2 and answer["more"] is True
    assert query(filled.store, "select * from raw", limit=3)["more"] is False


def test_one_name_twice_keeps_both_columns(filled: Bench) -> None:
    """Columns of one name are not merged."""
    answer = query(filled.store, "select 1 as a, 2 as a")
    assert answer["columns"] == ["a", "a"] and answer["rows"] == [[1, 2]]


def test_calls_and_labels_of_an_endpoint(filled: Bench) -> None:
    """What an endpoint answered and what was true stand under its name, from the ledger."""
    version = facts.current(filled.store.ledger, "clean")
    assert version is not None
    at = to_micros(START)

    def serve(tx: Any) -> None:
        endpoint = live.put_endpoint(tx, name="api", spec={}, at=START)
        deployment = live.add_deployment(tx, endpoint_id=endpoint.id, version_id=version.id, runtime={}, at=START)
        shared = dict(
            request_id="r", endpoint_id=endpoint.id, deployment_id=deployment.id, version_id=version.id, at=at,
            candidate=False, weight=1.0, candidate_weight=0.0, status=200, latency_us=900,
        )  # fmt: skip
        calls.record_calls(
            tx,
            [
                CallRow(prediction_id="r.0", row=0, prediction=True, score=0.75, **shared),  # type: ignore[arg-type]
                CallRow(prediction_id="r.1", row=1, prediction="late", score=None, **shared),  # type: ignore[arg-type]
            ],
        )
        calls.record_labels(
            tx, [LabelRow(prediction_id="r.0", endpoint_id=endpoint.id, label=True, at=at, arrived_at=at)]
        )

    filled.store.ledger.write(serve, what="serve")
    assert rows(filled, "select prediction_id, version, deployment, prediction, score from api.calls") == [
        ["r.0", "clean:1", 1, "True", 0.75],
        ["r.1", "clean:1", 1, "late", None],
    ]
    assert rows(
        filled, "select c.score, l.label, l.arrived_at from api.calls c join api.labels l using (prediction_id)"
    ) == [[0.75, "True", START.isoformat()]]
    assert rows(filled, "select row_index, event_time from api.calls where row_index = 1") == [[1, START.isoformat()]]
    assert rows(filled, "select judged_at, raised_at from _verdicts, _alarms") == []
    with pytest.raises(NotFound, match=r"did you mean 'api\.calls'"):
        query(filled.store, "select * from api.callz")
