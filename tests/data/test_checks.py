"""Checks over rows: each kind against what it says, one query, and an oracle row by row."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab import check as ck
from trimtab.core.errors import BadInput
from trimtab.core.nouns import Check
from trimtab.data.checks import examine, removing

NAN = math.nan
FRAME = pl.DataFrame(
    {
        "id": [1, 2, 2, None, None],
        "x": [0.0, 10.0, NAN, None, 11.0],
        "t": ["a1", "b", None, "a12", ""],
        "d": [date(2024, 1, day) for day in (1, 2, 3, 4, 5)],
        "z": [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4, 5)],
        "b": [True, False, None, True, True],
    }
)


def failing(check: Check, frame: pl.DataFrame = FRAME) -> list[int]:
    """Return the numbers of the rows that fail a check."""
    found = examine(frame, [check])
    rows = found.failing["__trimtab_row"].to_list() if found.failing.height else []
    assert found.measured.failing[check.name] == len(rows)
    return [int(row) for row in rows]


@pytest.mark.parametrize(
    ("check", "rows"),
    [
        (ck.unique("id"), [2, 4]),
        (ck.unique("id", "x"), []),
        (ck.unique("b"), [3, 4]),
        (ck.missing("x"), [2, 3]),
        (ck.missing("t"), [2]),
        (ck.between("x", 0, 10), [4]),
        (ck.between("x", low=5), [0]),
        (ck.between("x", high=10.5), [4]),
        (ck.between("d", "2024-01-02", "2024-01-04"), [0, 4]),
        (ck.between("z", "2024-01-02T00:00:00Z", datetime(2024, 1, 4, tzinfo=UTC)), [0, 4]),
        (ck.between("t", "a", "b"), [4]),
        (ck.one_of("t", ["a1", "b", None]), [3, 4]),
        (ck.one_of("x", [0, 10]), [4]),
        (ck.one_of("id", [1.0, 2.5]), [1, 2]),
        (ck.one_of("b", [True]), [1]),
        (ck.matches("t", "a[0-9]+"), [1, 4]),
        (ck.matches("t", "a|b"), [0, 3, 4]),
        (ck.where("x is null or x < 11"), [2, 4]),
        (ck.where("id > 1"), [0]),
        (ck.where("t like 'a%'"), [1, 4]),
        (ck.where("d > date '2024-01-02'"), [0, 1]),
        (ck.where("regexp_matches(t, '^a')"), [1, 4]),
        (ck.where("strftime(d, '%d') <> '05'"), [4]),
        (ck.where("null"), []),
    ],
)
def test_each_kind_fails_the_rows_that_it_says(check: Check, rows: list[int]) -> None:
    """Missing values pass but for `missing` and `unique`; a condition that is null passes; DuckDB helps out."""
    assert failing(check) == rows


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (ck.between("t", 0, 1), "wants int values such as 0 and column 't' is String"),
        (ck.between("x", "a", "b"), "wants str values"),
        (ck.between("d", "soon"), "not an ISO 8601 time"),
        (ck.one_of("id", ["1"]), "wants str values"),
        (ck.one_of("b", [1]), "wants int values"),
        (ck.matches("x", "a"), "wants text and column 'x' is Float64"),
        (ck.matches("t", "(?<=a)b"), "cannot be evaluated"),
        (ck.where("nope > 1"), "nope"),
        (ck.where("x +"), "cannot be read"),
        (ck.where("x + 1"), "not true or false|Conversion|cannot be read"),
        (ck.where("count(*) > 1"), "whole table"),
        (ck.where("sum(x) > 1"), "whole table"),
        (ck.where("t::int > 1"), "cannot be evaluated|cannot be read"),
        (ck.unique("idd"), r"looks at column 'idd', which is not there; did you mean 'id'"),
        (ck.missing("y"), "looks at column 'y'"),
        (ck.unique("q", approximate=True), "looks at column 'q'"),
    ],
)
def test_a_check_that_does_not_fit_is_named(check: Check, says: str) -> None:
    """The check, the column and its type are told, and where it was declared."""
    with pytest.raises(BadInput, match=says) as caught:
        examine(FRAME, [check], where="steps.py:7")
    assert caught.value.where == "steps.py:7" and caught.value.fix


def test_two_checks_of_one_name_are_refused() -> None:
    """Evidence is kept by name, so a name means one check; the same check twice is one."""
    assert examine(FRAME, [ck.missing("x"), ck.missing("x")]).measured.failing == {"missing(x)": 2}
    with pytest.raises(BadInput, match=r"two checks are called 'missing\(x\)'"):
        examine(FRAME, [ck.missing("x"), ck.missing("x", at_most=0.5)])


def test_samples_tell_rows_by_key_or_number() -> None:
    """At most five failing rows are told: by the key, else by the row's number from 1."""
    frame = pl.DataFrame({"id": range(10), "day": [date(2024, 1, 1)] * 10, "x": [5] * 10})
    check = ck.between("x", 0, 1)
    assert examine(frame, [check]).measured.samples == {check.name: [{"row": n} for n in range(1, 6)]}
    found = examine(frame, [check], key=["day", "id"]).measured.samples[check.name]
    assert found[0] == {"day": "2024-01-01", "id": 0} and len(found) == 5


def test_reasons_tell_the_value() -> None:
    """Quarantined rows say which check they fail and with what."""
    checks = [
        ck.between("x", 0, 5),
        ck.one_of("t", ["a{1}"]),
        ck.matches("t", "a{1,2}"),
        ck.unique("id"),
        ck.missing("t"),
    ]
    found = examine(FRAME, checks)
    aside = found.set_aside(removing(checks)).select("_check", "_reason").rows()
    assert (
        "between(x, 0, 5); one_of(t); matches(t, a{1,2})",
        "x is 10.0, not between 0 and 5; t is b, not one of a{1}; t is b, which does not match a{1,2}",
    ) in aside
    assert any("id = null is there before" in reason for _, reason in aside)
    assert found.kept(removing(checks)).height + len(aside) == FRAME.height
    assert all("missing(t)" not in name for name, _ in aside), "missing keeps its rows unless it is told not to"


def test_profile_counts_missing_distinct_and_ends() -> None:
    """NaN counts as missing; values are plain data; nested columns have only their missing values counted."""
    frame = FRAME.with_columns(l=pl.Series([[1], None, [2], [3], [4]]))
    told = examine(frame, []).profile
    assert told["x"] == {"missing": 2, "min": 0.0, "max": 11.0, "distinct": 5}
    assert told["d"]["max"] == "2024-01-05" and told["z"]["min"] == "2024-01-01T00:00:00+00:00"
    assert told["l"] == {"missing": 1} and told["b"]["min"] is False
    assert examine(frame, [], profile=False).profile == {}


def test_tables_without_rows_and_columns_without_values_pass() -> None:
    """Nothing fails where there is nothing; a column without any value has no type and fits every check."""
    checks = [ck.unique("id"), ck.between("x", 0, 1), ck.matches("t", "a"), ck.where("x > 1"), ck.one_of("t", ["a"])]
    assert set(examine(FRAME.clear(), checks).measured.failing.values()) == {0}
    nulls = pl.DataFrame({"x": [None, None]})
    checks = [ck.between("x", 0, 1), ck.matches("x", "a"), ck.one_of("x", ["a"]), ck.missing("x"), ck.unique("x")]
    assert examine(nulls, checks).measured.failing == {
        "between(x, 0, 1)": 0, "matches(x, a)": 0, "one_of(x)": 0, "missing(x)": 2, "unique(x)": 1,
    }  # fmt: skip


def test_approximate_uniqueness_tells_no_rows() -> None:
    """An estimate of distinct values within its error, and nothing to set aside."""
    frame = pl.DataFrame({"id": range(20_000)})
    check = ck.unique("id", approximate=True)
    found = examine(frame, [check])
    assert abs(found.measured.distinct[check.name] / 20_000 - 1) < 0.03
    assert found.measured.failing == {} and removing([check]) == []


VALUES = st.one_of(st.none(), st.integers(-3, 3))
FLOATS = st.one_of(st.none(), st.sampled_from([NAN, -0.0, 0.0, 1.5, math.inf, -math.inf]))
TEXTS = st.one_of(st.none(), st.sampled_from(["", "a", "ab", "b"]))


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, FLOATS, TEXTS), max_size=12), low=st.integers(-2, 2), width=st.integers(0, 3))
def test_masks_are_what_an_oracle_says_row_by_row(
    rows: list[tuple[int | None, float | None, str | None]], low: int, width: int
) -> None:
    """All checks of a table in one query say of each row what plain Python says of it."""
    frame = pl.DataFrame(rows, schema={"i": pl.Int64, "f": pl.Float64, "t": pl.String}, orient="row")
    checks = [
        ck.unique("i"), ck.unique("f"), ck.unique("i", "t"), ck.missing("f"), ck.between("i", low, low + width),
        ck.between("f", low, low + width), ck.one_of("t", ["a", ""]), ck.matches("t", "a+b?"),
        ck.where("i >= 0", name="w"),
        ck.where("coalesce(i, 0) % 2 = 0 and regexp_matches(coalesce(t, 'a'), 'a')", name="duck"),
    ]  # fmt: skip
    found = examine(frame, checks)
    masks = [_oracle(check, rows, low, low + width) for check in checks]
    assert list(found.measured.failing.values()) == [sum(mask) for mask in masks]
    assert found.measured.failing_rows == sum(map(any, zip(*masks, strict=True)))
    moved = [check.kind != "missing" for check in checks]
    kept = [
        row for row, *bad in zip(rows, *masks, strict=True) if not any(b and m for b, m in zip(bad, moved, strict=True))
    ]
    assert str(found.kept(removing(checks)).rows()) == str(kept)
    assert found.set_aside(removing(checks)).height == len(rows) - len(kept)


def _oracle(check: Check, rows: list[Any], low: int, high: int) -> list[bool]:
    index = {"i": 0, "f": 1, "t": 2}
    of = check.params
    if check.kind == "unique":
        seen: set[Any] = set()
        mask = []
        for row in rows:
            key = tuple("nan" if (v := row[index[name]]) != v else v for name in of["columns"])
            mask.append(key in seen)
            seen.add(key)
        return mask
    if check.kind == "where":
        if check.name == "where(w)":
            return [row[0] is not None and row[0] < 0 for row in rows]
        return [bool((row[0] or 0) % 2 or "a" not in (row[2] if row[2] is not None else "a")) for row in rows]
    values = [row[index[of["column"]]] for row in rows]
    absent = [value is None or value != value for value in values]
    if check.kind == "missing":
        return absent
    tests: dict[str, Callable[[Any], bool]] = {
        "between": lambda value: low <= value <= high,
        "one_of": lambda value: value in of["values"],
        "matches": lambda value: re.fullmatch(of["pattern"], value) is not None,
    }
    test = tests[check.kind]
    return [not gone and not test(value) for value, gone in zip(values, absent, strict=True)]


def test_it_works_with_one_thread() -> None:
    """Steps run with one compute thread, over frames in several chunks."""
    code = (
        "import polars as pl\nfrom trimtab import check as ck\nfrom trimtab.data.checks import examine\n"
        "frame = pl.concat([pl.DataFrame({'id': [1, 2]}), pl.DataFrame({'id': [1, 1]})], rechunk=False)\n"
        "print(examine(frame, [ck.unique('id')]).set_aside([ck.unique('id')]).rows())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    )
    assert answer.stdout.count("id = 1 is there before") == 2
