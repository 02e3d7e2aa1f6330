"""What a model's requests look like, and the check that names the path of a bad field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.core.errors import BadInput, closest
from trimtab.core.nouns import Data

MOST_CATEGORIES = 1000
_NUMBERS = (int, float)


def columns_of(body: Any, signature: Mapping[str, Any]) -> tuple[dict[str, list[Any]], list[Data]]:
    """Return a request's columns in the signature's order, and warnings.

    Args:
        body: ``{"rows": [{name: value}]}`` or ``{"columns": {name: [values]}}``.
        signature: ``{"inputs": [{name, type, nullable, categories}], "unseen"}``.

    Raises:
        BadInput: a field is missing, extra, of the wrong type, or a category that training never saw; its
            path, such as ``rows[3].dest``, is in ``where``.
    """
    inputs = signature["inputs"]
    if not isinstance(body, Mapping) or len(body.keys() & {"rows", "columns"}) != 1 or len(body) != 1:
        raise BadInput(
            "a request is an object with rows or columns", where="$", fix='{"rows": [{...}]} or {"columns": {...}}'
        )
    if "rows" in body:
        columns, path = _from_rows(body["rows"], inputs), "rows[{row}].{name}"
    else:
        columns, path = _from_columns(body["columns"], inputs), "columns.{name}[{row}]"
    warnings: list[Data] = []
    for spec in inputs:
        _check(spec, columns[spec["name"]], path, signature.get("unseen", "refuse"), warnings)
    return columns, warnings


def _names(inputs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(spec["name"]) for spec in inputs]


def _from_rows(rows: Any, inputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not rows:
        raise BadInput("rows is not a list with at least one row", where="rows", fix='{"rows": [{...}]}')
    names = _names(inputs)
    known = set(names)
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise BadInput("a row is not an object", where=f"rows[{index}]", fix="name the fields")
        if row.keys() != known:
            _fields(row.keys(), names, f"rows[{index}]")
    return {name: [row[name] for row in rows] for name in names}


def _from_columns(given: Any, inputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    if not isinstance(given, Mapping) or not given:
        raise BadInput("columns is not an object", where="columns", fix='{"columns": {"name": [values]}}')
    names = _names(inputs)
    _fields(given.keys(), names, "columns")
    lengths = {}
    for name in names:
        if not isinstance(given[name], list) or not given[name]:
            raise BadInput("a column is not a list of values", where=f"columns.{name}", fix="give one for each row")
        lengths[name] = len(given[name])
    first = lengths[names[0]]
    for name, length in lengths.items():
        if length != first:
            raise BadInput(
                f"{length} values where {names[0]} has {first}", where=f"columns.{name}", fix="one value for each row"
            )
    return {name: list(given[name]) for name in names}


def _fields(given: Any, names: Sequence[str], path: str) -> None:
    missing = [name for name in names if name not in given]
    extra = [name for name in given if name not in names]
    for name in extra:
        hint = closest(str(name), missing or names)
        raise BadInput(
            f"field {name!r} is not an input{hint}", where=f"{path}.{name}", fix=f"the inputs are {', '.join(names)}"
        )
    for name in missing:
        raise BadInput(f"field {name!r} is missing", where=f"{path}.{name}", fix="send it; null where it is unknown")


def _check(spec: Mapping[str, Any], values: list[Any], path: str, unseen: str, warnings: list[Data]) -> None:
    name, kind, nullable = spec["name"], spec["type"], spec["nullable"]
    categories = spec.get("categories")
    known = frozenset(categories) if categories is not None else None
    for row, value in enumerate(values):
        if value is None:
            if nullable:
                continue
            where, text = path.format(row=row, name=name), "null, and training saw no missing ones"
            if unseen == "refuse":
                raise BadInput(text, where=where, fix="send a value, or declare the model with unseen='accept'")
            warnings.append({"where": where, "message": text})
            continue
        problem = _wrong(kind, value)
        if problem:
            raise BadInput(problem, where=path.format(row=row, name=name), fix=f"{name} is {_article(kind)}")
        if known is not None and value not in known:
            where = path.format(row=row, name=name)
            text = f"{value!r} is a category that training never saw{closest(str(value), sorted(known))}"
            if unseen == "refuse":
                raise BadInput(text, where=where, fix="send a known one, or declare the model with unseen='accept'")
            warnings.append({"where": where, "message": text})


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _wrong(kind: str, value: Any) -> str:
    if kind == "string":
        good = isinstance(value, str)
    elif kind == "boolean":
        good = isinstance(value, bool)
    elif isinstance(value, bool) or not isinstance(value, _NUMBERS):
        good = False
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number"
    else:
        good = kind == "number" or isinstance(value, int) or value.is_integer()
    return "" if good else f"{_short(value)} is not {_article(kind)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "\N{HORIZONTAL ELLIPSIS}"


def signature_of(frame: Any, names: Sequence[str], unseen: str) -> Data:
    """Return the signature of a Polars frame's columns.

    Raises:
        BadInput: a column has a type that a JSON request cannot bring.
    """
    inputs = []
    for name in names:
        series = frame[name]
        kind = _kind(series.dtype)
        if not kind:
            raise BadInput(
                f"input {name!r} is {series.dtype}, which a JSON request cannot bring",
                where=name,
                fix="leave it out with features=[...], or turn it into numbers or text",
            )
        categories = None
        if kind == "string":
            found = series.drop_nulls().unique().sort().to_list()
            categories = found if len(found) <= MOST_CATEGORIES else None
        inputs.append({"name": name, "type": kind, "nullable": bool(series.null_count()), "categories": categories})
    return {"inputs": inputs, "unseen": unseen}


def _kind(dtype: Any) -> str:
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    text = str(dtype)
    if text == "Boolean":
        return "boolean"
    return "string" if text.startswith(("String", "Categorical", "Enum")) else ""
