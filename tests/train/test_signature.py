"""Requests against a signature: every field is checked, and the error names its path."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.errors import BadInput
from trimtab.core.nouns import Data
from trimtab.train.signature import Signature, answerable, columns_from, columns_of, signature_of

INPUTS: list[Data] = [
    {"name": "temp", "type": "number", "nullable": True, "categories": None},
    {"name": "seats", "type": "integer", "nullable": False, "categories": None},
    {"name": "dest", "type": "string", "nullable": False, "categories": ["ATL", "BOS", "ORD"]},
    {"name": "note", "type": "string", "nullable": True, "categories": None},
    {"name": "night", "type": "boolean", "nullable": False, "categories": None},
]
REFUSE: Data = {"inputs": INPUTS, "unseen": "refuse"}
ACCEPT: Data = {"inputs": INPUTS, "unseen": "accept"}
ROW: Data = {"temp": 20.5, "seats": 180, "dest": "ATL", "note": "x", "night": False}
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "temp": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300),
    "seats": st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-1000, 1000).map(float),
    "dest": st.sampled_from(["ATL", "BOS", "ORD"]),
    "note": st.none() | st.text(),
    "night": st.booleans(),
}
VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
    | st.sampled_from(["ATL", "BOS", 10**400, math.nan, math.inf])
)  # fmt: skip


def _refused(body: Any, signature: Data = REFUSE) -> BadInput:
    with pytest.raises(BadInput) as caught:
        columns_of(body, signature)
    assert caught.value.fix
    return caught.value


@given(st.lists(st.fixed_dictionaries(GOOD), min_size=1, max_size=4))
def test_what_fits_is_taken_by_rows_and_by_columns_alike(rows: list[Data]) -> None:
    """Rows that fit become columns in the signature's order and types, however they are sent, and nothing is lost."""
    turned = {name: [row[name] for row in rows] for name in reversed(ROW)}
    columns, warnings = columns_of({"rows": rows}, REFUSE)
    assert columns_of({"columns": turned}, REFUSE) == (columns, warnings) and not warnings
    assert list(columns) == list(ROW)
    for name, kind in (("temp", float), ("seats", int), ("dest", str), ("note", str), ("night", bool)):
        assert all(value is None or type(value) is kind for value in columns[name])
        sent = [float(row[name]) if kind is float and row[name] is not None else row[name] for row in rows]
        assert columns[name] == sent


@given(st.sampled_from(sorted(ROW)), VALUES, st.integers(0, 2), st.booleans())
def test_any_value_is_taken_or_refused_at_its_path(name: str, value: Any, at: int, by_row: bool) -> None:
    """Whatever stands in a field, it is taken in the field's type or the error names the row and the field."""
    rows = [{**ROW, name: value} if index == at else dict(ROW) for index in range(3)]
    body: Any = {"rows": rows} if by_row else {"columns": {key: [row[key] for row in rows] for key in ROW}}
    try:
        columns, _ = columns_of(body, REFUSE)
    except BadInput as error:
        assert error.where == (f"rows[{at}].{name}" if by_row else f"columns.{name}[{at}]")
        assert error.message and error.fix and len(error.message) < 300
    else:
        taken = columns[name][at]
        assert taken is None or (taken == value and math.isfinite(taken if not isinstance(taken, str) else 0))
        assert body["rows"][at][name] is value if by_row else True


@given(st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
@settings(max_examples=200)
def test_any_body_is_taken_or_refused(body: Any) -> None:
    """No body whatever raises anything but the error for bad input."""
    for wrapped in (body, {"rows": body}, {"columns": body}, {"rows": [body]}):
        with pytest.raises(BadInput):
            columns_of(wrapped, REFUSE)


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"temp": math.nan}, "rows[1].temp", "finite"),
        ({"temp": -math.inf}, "rows[1].temp", "finite"),
        ({"temp": True}, "rows[1].temp", "True is not a number"),
        ({"temp": "20"}, "rows[1].temp", "'20' is not a number"),
        ({"temp": 10**400}, "rows[1].temp", "too large"),
        ({"seats": 1.5}, "rows[1].seats", "1.5 is not an integer"),
        ({"seats": True}, "rows[1].seats", "True is not an integer"),
        ({"seats": 2**63}, "rows[1].seats", "too large"),
        ({"seats": 1e300}, "rows[1].seats", "too large"),
        ({"seats": None}, "rows[1].seats", "null"),
        ({"dest": 3}, "rows[1].dest", "3 is not a string"),
        ({"dest": "ATI"}, "rows[1].dest", "did you mean 'ATL'"),
        ({"night": 0}, "rows[1].night", "0 is not a boolean"),
        ({"note": "x" * 500, "dest": "y" * 500}, "rows[1].dest", "never saw"),
        ({"dst": "ATL"}, "rows[1].dst", "not an input"),
    ],
)
def test_each_fault_has_its_words(change: Data, where: str, says: str) -> None:
    """Wrong types, NaN, null and unseen categories are told apart, and the row is named."""
    error = _refused({"rows": [ROW, {**ROW, **change}]})
    assert error.where == where
    assert says in error.message


def test_a_misspelt_field_names_the_missing_one() -> None:
    """An extra field beside a missing one is told as a misspelling of it."""
    row = {name: value for name, value in ROW.items() if name != "dest"}
    assert "did you mean 'dest'" in _refused({"rows": [{**row, "dst": "ATL"}]}).message
    assert _refused({"rows": [row]}).where == "rows[0].dest"
    assert _refused({"columns": {name: [value] for name, value in row.items()}}).where == "columns.dest"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (None, "$"),
        ([ROW], "$"),
        ({}, "$"),
        ({"rows": [ROW], "columns": {}}, "$"),
        ({"rows": [ROW], "more": 1}, "$"),
        ({"rows": []}, "rows"),
        ({"rows": ROW}, "rows"),
        ({"rows": [ROW, 3]}, "rows[1]"),
        ({"columns": []}, "columns"),
        ({"columns": {name: [] for name in ROW}}, "columns.temp"),
        ({"columns": {**{name: [value] for name, value in ROW.items()}, "note": "x"}}, "columns.note"),
        ({"columns": {**{name: [value] for name, value in ROW.items()}, "note": ["x", "y"]}}, "columns.note"),
    ],
)
def test_a_body_of_another_form_is_refused(body: Any, where: str) -> None:
    """A request is rows or columns, at least one, all of one length."""
    assert _refused(body).where == where


def test_what_training_never_saw_may_be_accepted_with_a_warning() -> None:
    """With unseen='accept' categories and nulls that training lacked are answered, and told once with their count."""
    rows = [{**ROW, "dest": "LAX"}, ROW, {**ROW, "dest": "LAX", "seats": None}]
    columns, warnings = columns_of({"rows": rows}, ACCEPT)
    assert columns["dest"] == ["LAX", "ATL", "LAX"] and columns["seats"] == [180, 180, None]
    assert [(one["where"], one["rows"]) for one in warnings] == [("rows[2].seats", 1), ("rows[0].dest", 2)]
    assert "'LAX' is a category that training never saw" in warnings[1]["message"]
    assert _refused({"rows": [{**ROW, "dest": 3}]}, ACCEPT).where == "rows[0].dest"


def test_a_signature_serves_many_requests() -> None:
    """One signature checks request after request, and leaves the caller's lists alone."""
    signature = Signature(REFUSE)
    body = {"columns": {name: [value] for name, value in {**ROW, "temp": 3}.items()}}
    for _ in range(2):
        columns, _ = signature.columns(body)
        assert columns["temp"] == [3.0] and type(columns["temp"][0]) is float
    assert type(body["columns"]["temp"][0]) is int


FRAME = pl.DataFrame(
    {
        "f": [1.0, None, 3.0],
        "nan": [1.0, math.nan, 3.0],
        "whole": [1, 2, 3],
        "text": ["b", None, "a"],
        "cat": pl.Series(["u", "v", "u"], dtype=pl.Categorical),
        "flag": [True, False, True],
        "price": pl.Series(["1.50", "2.25", "3.00"]).cast(pl.Decimal(10, 2)),
        "when": [datetime(2024, 1, 1, tzinfo=UTC)] * 3,
    }
)


def test_a_signature_is_read_off_the_training_rows() -> None:
    """Types, categories and whether a value may be missing follow from the rows; NaN is missing."""
    made = signature_of(FRAME, FRAME.columns[:-1], "refuse")
    assert made["unseen"] == "refuse"
    assert [(one["name"], one["type"], one["nullable"], one["categories"]) for one in made["inputs"]] == [
        ("f", "number", True, None),
        ("nan", "number", True, None),
        ("whole", "integer", False, None),
        ("text", "string", True, ["a", "b"]),
        ("cat", "string", False, ["u", "v"]),
        ("flag", "boolean", False, None),
        ("price", "number", False, None),
    ]
    with pytest.raises(BadInput, match="'when' is Datetime"):
        signature_of(FRAME, ["when"], "refuse")


def test_many_categories_are_not_checked() -> None:
    """A text column with more than a thousand values has no list of them."""
    frame = pl.DataFrame({"c": [str(number) for number in range(1001)]})
    assert signature_of(frame, ["c"], "refuse")["inputs"][0]["categories"] is None
    assert len(signature_of(frame.head(1000), ["c"], "refuse")["inputs"][0]["categories"]) == 1000


def test_rows_become_columns_as_a_request_brings_them() -> None:
    """NaN is null, decimals are numbers, and everything can be said in JSON."""
    signature = signature_of(FRAME, FRAME.columns[:-1], "refuse")
    columns = columns_from(FRAME, signature)
    assert columns["nan"] == [1.0, None, 3.0] and columns["price"] == [1.5, 2.25, 3.0]
    assert columns_of(json.loads(json.dumps({"columns": columns})), signature) == (columns, [])
    with pytest.raises(BadInput, match="no column 'text'"):
        columns_from(FRAME.drop("text"), signature)
    with pytest.raises(BadInput, match="'whole' is Float64, and the model takes an integer"):
        columns_from(FRAME.with_columns(pl.col("whole") / 2), signature)


def test_only_rows_that_an_endpoint_would_answer_are_measured_on() -> None:
    """Rows with a category or a missing value that training lacked are left out, unless these are accepted."""
    training = pl.DataFrame({"x": [1.0, 2.0], "n": [1, 2], "c": ["a", None]})
    later = pl.DataFrame(
        {
            "x": [1.0, None, math.nan, math.inf, 5.0, 6.0, 7.0],
            "n": [1, 1, 1, 1, None, 1, 1],
            "c": ["a", "a", "a", "a", "a", "z", None],
        }
    )
    strict = signature_of(training, ["x", "n", "c"], "refuse")
    assert answerable(later, strict)["x"].to_list() == [1.0, 7.0]
    assert answerable(later, {**strict, "unseen": "accept"}).height == 6
