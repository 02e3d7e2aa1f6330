"""Tables and feature sets: frames and SQL in and out, one judgement, quarantine, nothing unchecked to be seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import trimtab as tt
from tests.data.conftest import KINDS, Bench
from trimtab import check as ck
from trimtab.core.declare import declaration_of
from trimtab.core.errors import BadInput, BadSource, ProjectError
from trimtab.pipeline.files import FileDigests


@tt.source(path="data/*.csv")
def raw() -> None:
    """Rows as received."""


@tt.table(
    key="id",
    time="at",
    bar=0.99,
    checks=[ck.unique("id"), ck.between("x", 0, 10, at_most=0.5), ck.missing("note", at_most=0.6)],
)
def clean(raw: pl.DataFrame, shift: int = 0) -> pl.DataFrame:
    """Typed rows."""
    return raw.select(
        pl.col("id").cast(pl.Int64),
        pl.col("x").cast(pl.Float64) + shift,
        pl.col("at").str.to_datetime("%Y-%m-%d", time_zone="UTC"),
        "note",
    )


@pytest.fixture
def filled(bench: Bench) -> Bench:
    """A source with four rows."""
    bench.write("data/a.csv", "id,x,at,note\n1,5,2024-01-01,a\n2,50,2024-01-02,\n3,7,2024-01-03,\n4,,2024-01-04,d\n")
    bench.run(raw)
    return bench


def test_failing_rows_go_to_quarantine_with_the_reason(filled: Bench) -> None:
    """The version holds what passes, quarantine the rest, and both are counted by rule."""
    version = filled.run(clean)
    assert version.state == "published"
    assert filled.rows("clean", ["id", "x", "note"]) == [(1, 5.0, "a"), (3, 7.0, None), (4, None, "d")]
    assert filled.rows("clean.quarantine", ["id", "x", "_check", "_reason"]) == [
        (2, 50.0, "between(x, 0, 10)", "x is 50.0, not between 0 and 10")
    ]
    meta = version.meta
    assert meta["rows"] == 3 and meta["rows_in"] == 4 and meta["quarantined"] == 1
    assert (meta["time_min"], meta["time_max"]) == ("2024-01-01T00:00:00+00:00", "2024-01-04T00:00:00+00:00")
    # Two rows lack a note and one of these is out of range: half of the rows pass every check.
    assert meta["quality"] == {"score": 0.5, "bar": 0.99, "distance": 0.5 - 0.99}
    assert meta["rules"] == {
        "between(x, 0, 10)": {"failing": 1, "quarantined": 1},
        "missing(note)": {"failing": 2, "quarantined": 0},
    }
    assert meta["profile"]["x"] == {"missing": 1, "min": 5.0, "max": 50.0, "distinct": 4}
    told = filled.facts()
    assert told["rows_in"] == 4 and told["rows_out"] == 3 and told["quarantined"] == 1
    assert told["bytes_in"] > 0 and told["bytes_out"] > 0 and told["rows_per_second"] > 0
    assert filled.verdicts() == {"unique(id)": "pass", "between(x, 0, 10)": "pass", "missing(note)": "pass"}


def test_a_version_that_fails_its_gate_is_not_kept(filled: Bench) -> None:
    """The old one stays current and is not touched; all failing rows can be looked at."""
    first = filled.run(clean)
    filled.write("data/b.csv", "id,x,at,note\n1,9,2024-01-05,e\n1,99,2024-01-05,\n5,,2024-01-05,\n6,,2024-01-05,\n")
    filled.run(raw)
    refused = filled.run(clean)
    assert (
        refused.state == "refused"
        and refused.location == {}
        and refused.meta["failed"]
        == [
            "unique(id)",
            "missing(note)",
        ]
    )
    assert filled.store.tables.latest(first.location["table"]) == first.location["delta_version"]
    assert len(filled.rows("clean")) == 3
    aside = filled.rows("clean.quarantine", ["id", "x", "_check"])
    assert (1, 99.0, "unique(id); between(x, 0, 10); missing(note)") in aside
    assert len(aside) == 6
    assert refused.meta["rows"] == 8 and refused.meta["quality"]["score"] == 0.25
    verdict = {v.check: v for v in filled.last.verdicts}["unique(id)"] if filled.last else None
    assert verdict is not None and verdict.evidence["sample"] == [{"id": 1}, {"id": 1}]
    assert verdict.evidence["failing"] == 2 and verdict.evidence["share"] == 0.25


def test_quarantine_is_emptied_by_a_clean_version_only_once(filled: Bench) -> None:
    """A version without failing rows empties quarantine; the next one makes no version of it."""
    filled.run(clean)
    filled.write("data/a.csv", "id,x,at,note\n1,5,2024-01-01,a\n")
    filled.run(raw)
    version = filled.run(clean)
    assert filled.rows("clean.quarantine") == [] and version.meta["quarantined"] == 0
    filled.write("data/a.csv", "id,x,at,note\n1,6,2024-01-01,a\n")
    filled.run(raw)
    filled.run(clean)
    assert filled.last is not None and [made.asset for made in filled.last.made] == ["clean"]


def test_equal_rows_have_equal_digests(filled: Bench) -> None:
    """Doing a step again gives the same digest; other rows another one."""
    first = filled.run(clean)
    assert filled.run(clean).digest == first.digest
    filled.write("data/a.csv", "id,x,at,note\n1,5,2024-01-01,a\n")
    filled.run(raw)
    assert filled.run(clean).digest != first.digest


def test_warnings_tell_and_remove_nothing(filled: Bench) -> None:
    """A broken check of severity warn is told; its rows stay and nothing is refused."""

    @tt.table(checks=[ck.between("x", "0", "1", severity="warn"), ck.row_count(100, severity="warn")])
    def warned(raw: pl.DataFrame) -> pl.DataFrame:
        return raw

    version = filled.run(warned)
    assert version.state == "published" and len(filled.rows("warned")) == 4
    assert set(filled.verdicts().values()) == {"warn"}
    assert "warned.quarantine" not in filled.contexts[-1].assets
    assert version.meta["quality"]["score"] == 0.0


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas", "arrow", "relation", "sql", "batch"])
def test_the_same_step_in_every_frame_gives_the_same_table(filled: Bench, kind: str) -> None:
    """Polars, lazy Polars, pandas, Arrow, DuckDB and SQL agree, also before and after the load."""

    @tt.table
    def doubled(raw: pl.DataFrame) -> Any:
        return raw.select(pl.col("id").cast(pl.Int64), y=pl.col("x").cast(pl.Float64) * 2)

    def lazy(raw: pl.LazyFrame) -> Any:
        return raw.select(pl.col("id").cast(pl.Int64), y=pl.col("x").cast(pl.Float64) * 2)

    def pandas(raw: pd.DataFrame) -> Any:
        return pd.DataFrame({"id": raw["id"].astype("int64"), "y": raw["x"].astype("float64") * 2})

    def arrow(raw: pa.Table) -> Any:
        values = [None if x is None else float(x) * 2 for x in raw["x"].to_pylist()]
        return pa.table({"id": [int(n) for n in raw["id"].to_pylist()], "y": values})

    def relation(raw: duckdb.DuckDBPyRelation) -> Any:
        return raw.project("id::bigint as id, x::double * 2 as y")

    def sql(raw: Any) -> Any:
        return tt.sql("select id::bigint as id, x::double * ? as y from raw order by _row", 2)

    def batch(raw: pa.Table) -> Any:
        return arrow(raw).to_reader()

    expected = filled.run(doubled)

    def polars(raw: pl.DataFrame) -> Any:
        return doubled(raw)

    steps = {step.__name__: step for step in (polars, lazy, pandas, arrow, relation, sql, batch)}
    chosen: Callable[..., Any] = steps[kind]
    chosen.__name__ = "again"
    version = filled.run(tt.table(chosen))
    assert filled.rows("again") == [(1, 10.0), (2, 100.0), (3, 14.0), (4, None)]
    assert version.digest == expected.digest


def test_sql_steps_see_their_inputs_and_nothing_else(filled: Bench) -> None:
    """A SQL step reads no file and no Python variable, and its errors are DuckDB's with the place."""
    secret = pl.DataFrame({"a": [1]})
    assert secret.height
    for text, says in (
        ("select * from secret", "secret"),
        ("select * from read_text('/etc/hostname')", "disabled"),
        ("select nope from raw", "nope"),
        ("selec 1", "syntax"),
        ("create table x as select 1; drop table x", "is CREATE and DROP, not one query"),
        ("select 1 as a, 2 as a", "two columns called 'a'"),
    ):

        @tt.table
        def broken(raw: Any, text: str = text) -> Any:
            return tt.sql(text)

        with pytest.raises(BadInput, match=says) as caught:
            filled.run(broken)
        assert "test_steps.py" in caught.value.where


def test_sums_of_whole_numbers_stay_whole_numbers(filled: Bench) -> None:
    """DuckDB's HUGEINT becomes a BIGINT where it fits, and is refused where it does not."""

    @tt.table
    def total(raw: Any, times: int = 1) -> Any:
        return tt.sql("select sum(id::bigint * ?::bigint) as n from raw", times)

    filled.run(total)
    assert filled.rows("total") == [(10,)]

    @tt.table
    def overflow(raw: Any) -> Any:
        return tt.sql("select sum(9223372036854775807::bigint) as n from raw")

    with pytest.raises(BadInput, match=r"INT64|BIGINT|range"):
        filled.run(overflow)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (5, "is an int, not a frame"),
        (None, "is None, not a frame"),
        (pl.DataFrame({"a": [timedelta(1)]}), "column 'a' of what bad"),
        (pl.DataFrame({"a": [2**63]}, schema={"a": pl.UInt64}), "'a' .* does not fit int64"),
        (pl.DataFrame(), "no columns"),
        (pl.DataFrame({"a": [1], "A": [2]}), "'a' and 'A'"),
        (pl.DataFrame({"_check": [1]}), "_check"),
        (pd.DataFrame({"a": [1, "x"]}), "column 'a' .* mixes types"),
        (pd.DataFrame({"a": [1]}, index=pd.Index(["k"], name="key")), "index \\(key\\)"),
    ],
)
def test_what_cannot_be_kept_is_refused(filled: Bench, value: Any, says: str) -> None:
    """The function, the column and the fix are named."""

    @tt.table
    def bad() -> Any:
        return value

    with pytest.raises(BadInput, match=says) as caught:
        filled.run(bad)
    assert caught.value.fix and "test_steps.py" in caught.value.where


def test_types_are_kept_exactly(bench: Bench) -> None:
    """What a table says it holds is what is read back."""
    frame = pl.DataFrame(
        {
            "i": [1, None],
            "u": pl.Series([255, None], dtype=pl.UInt8),
            "f": [float("nan"), -0.0],
            "b": [True, None],
            "d": [date(2024, 1, 1), None],
            "t": [datetime(2024, 1, 1, 12, 0, 0, 123456), None],  # noqa: DTZ001
            "z": pl.Series([datetime(2024, 7, 1, tzinfo=UTC), None]).dt.convert_time_zone("America/New_York"),
            "n": [Decimal("12345678901234567890.12"), None],
            "c": pl.Series(["a", None], dtype=pl.Categorical),
            "l": [[1, None], None],
            "s": [{"a": "x", "b": None}, None],
            "y": [b"\x00\xff", None],
            "empty": [None, None],
        }
    )

    @tt.table
    def typed() -> pl.DataFrame:
        return frame

    version = bench.run(typed)
    back = bench.store.tables.scan(version.location).collect()
    expected = frame.with_columns(
        pl.col("u").cast(pl.Int16),
        pl.col("z").dt.convert_time_zone("UTC"),
        pl.col("c").cast(pl.String),
        pl.col("empty").cast(pl.String),
    )
    assert back.columns == frame.columns and back.equals(expected.cast(back.schema))
    assert str(back["f"].to_list()) == "[nan, -0.0]"
    assert back.schema["n"] == pl.Decimal(22, 2) or back["n"].to_list() == frame["n"].to_list()


def test_a_missing_key_or_checked_column_is_named(filled: Bench) -> None:
    """The check, the column and the closest one that is there are told."""

    @tt.table(checks=[ck.unique("idd")])
    def checked(raw: pl.DataFrame) -> pl.DataFrame:
        return raw

    with pytest.raises(BadInput, match=r"unique\(idd\) looks at column 'idd'.*did you mean 'id'"):
        filled.run(checked)

    @tt.table(key="nope")
    def keyed(raw: pl.DataFrame) -> pl.DataFrame:
        return raw

    with pytest.raises(BadInput, match="the key looks at column 'nope'"):
        filled.run(keyed)

    @tt.table(time="id")
    def timed(raw: pl.DataFrame) -> pl.DataFrame:
        return raw.select(pl.col("id").cast(pl.Int64))

    with pytest.raises(BadInput, match="the time column 'id' is Int64"):
        filled.run(timed)


def test_features_have_one_row_for_each_entity_and_time(filled: Bench) -> None:
    """Entity and time must be there, not missing, and unique; the rows that break this are named."""

    @tt.features(entity="id", time="at", fresh="1d")
    def good(clean: pl.DataFrame) -> pl.DataFrame:
        return clean.select("id", "at", "x")

    @tt.features(entity="id", time="at")
    def twice(clean: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([clean.select("id", "at"), clean.select("id", "at").head(1)])

    @tt.features(entity="id", time="at")
    def nobody(clean: pl.DataFrame) -> pl.DataFrame:
        return clean.select(pl.when(pl.col("id") > 1).then("id"), "at")

    @tt.features(entity="carrier", time="at")
    def absent(clean: pl.DataFrame) -> pl.DataFrame:
        return clean

    filled.run(clean)
    version = filled.run(good)
    assert version.state == "published" and version.meta["time_max"] == "2024-01-04T00:00:00+00:00"
    refused = filled.run(twice)
    assert refused.state == "refused" and refused.meta["failed"] == ["unique(id, at)"]
    evidence = filled.last.verdicts[0].evidence if filled.last else {}
    assert evidence["sample"] == [{"id": 1, "at": "2024-01-01T00:00:00+00:00"}]
    assert filled.run(nobody).meta["failed"] == ["missing(id)"]
    with pytest.raises(BadInput, match="returned no column 'carrier'"):
        filled.run(absent)


def test_fingerprint_is_the_files_and_their_digests(bench: Bench) -> None:
    """Hidden files do not count; a glob without files and one that leaves the folder are errors."""
    declaration = declaration_of(raw)
    digests = FileDigests(bench.root / ".cache")
    with pytest.raises(BadSource, match=r"no file matches 'data/\*\.csv'"):
        KINDS["source"].fingerprint(declaration, bench.root, digests)
    bench.write("data/.hidden.csv", "x")
    bench.write("data/b.csv", "id\n")
    bench.write("data/a.csv", "id\n1\n")
    found = KINDS["source"].fingerprint(declaration, bench.root, digests)
    assert list(found) == ["data/a.csv", "data/b.csv"] and found["data/a.csv"].startswith("sha256:")
    for path in ("../*.csv", "/etc/*"):

        @tt.source(path=path)
        def outside() -> None: ...

        with pytest.raises(ProjectError, match="not a glob below"):
            KINDS["source"].fingerprint(declaration_of(outside), bench.root, digests)


def test_the_module_is_light() -> None:
    """The planner imports the steps without any engine."""
    heavy = "{'polars', 'duckdb', 'pyarrow', 'deltalake', 'pandas', 'numpy'}"
    code = f"import sys, trimtab.data.steps; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_decorated_functions_stay_callable() -> None:
    """A unit test calls a step like any function."""
    frame = pl.DataFrame({"id": ["1"], "x": ["2"], "at": ["2024-01-01"], "note": [None]})
    assert clean(frame, shift=1)["x"].to_list() == [3.0]
    assert Path(declaration_of(clean).file).name == "test_steps.py"
