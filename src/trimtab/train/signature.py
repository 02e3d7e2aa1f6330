"""What a model's requests look like, and the check that names the path of a bad field.

Checking requests is standard library only: it runs in the serving worker, once for each request.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trimtab.core.errors import BadInput, closest
from trimtab.core.nouns import Data
from trimtab.core.optional import need

MOST_CATEGORIES = 1000
_EXACT: dict[str, type] = {"number": float, "integer": int, "string": str, "boolean": bool}
_LARGEST = {"number": sys.float_info.max, "integer": 2**63 - 1}
Place = Callable[[int, str], str]


def columns_of(body: Any, signature: Mapping[str, Any]) -> tuple[dict[str, list[Any]], list[Data]]:
    """Return a request's columns in the signature's order, and warnings; for one request, see ``Signature``."""
    return Signature(signature).columns(body)


class Signature:
    """The inputs of a model, made ready to check many requests.

    Args:
        data: ``{"inputs": [{name, type, nullable, categories}], "unseen"}`` as a version's meta has it.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.names = [str(spec["name"]) for spec in data["inputs"]]
        self._known = set(self.names)
        self._columns = [_Column(spec) for spec in data["inputs"]]
        self._accept = data.get("unseen", "refuse") == "accept"

    def columns(self, body: Any) -> tuple[dict[str, list[Any]], list[Data]]:
        """Return a request's columns in the signature's order, and warnings.

        Whole numbers in a ``number`` column become floats, floats without a fraction in an ``integer`` column
        whole numbers.

        Args:
            body: ``{"rows": [{name: value}]}`` or ``{"columns": {name: [values]}}``.

        Returns:
            The columns, and for each value that was accepted with a warning ``{"where", "message", "rows"}``:
            where it stands first, and in how many rows.

        Raises:
            BadInput: a field is missing, extra or of the wrong type; or, unless that is to be accepted, a
                category that training never saw, or null where training saw no missing value. Its path, such
                as ``rows[3].dest``, is in ``where``.
        """
        if not isinstance(body, Mapping) or len(body) != 1 or not body.keys() <= {"rows", "columns"}:
            raise BadInput(
                "a request is an object with rows or columns", where="$", fix='{"rows": [{...}]} or {"columns": {...}}'
            )
        by_row = "rows" in body
        columns = self._from_rows(body["rows"]) if by_row else self._from_columns(body["columns"])
        warnings: list[Data] = []
        for column in self._columns:
            warnings += column.check(columns[column.name], _in_rows if by_row else _in_columns, self._accept)
        return columns, warnings

    def _from_rows(self, rows: Any) -> dict[str, list[Any]]:
        if not isinstance(rows, list) or not rows:
            raise BadInput("rows is not a list with at least one row", where="rows", fix='{"rows": [{...}]}')
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise BadInput("a row is not an object", where=f"rows[{index}]", fix="name the fields")
            if row.keys() != self._known:
                self._fields(row.keys(), f"rows[{index}]")
        return {name: [row[name] for row in rows] for name in self.names}

    def _from_columns(self, given: Any) -> dict[str, list[Any]]:
        if not isinstance(given, Mapping) or not given:
            raise BadInput("columns is not an object", where="columns", fix='{"columns": {"name": [values]}}')
        self._fields(given.keys(), "columns")
        first = self.names[0]
        for name in self.names:
            values = given[name]
            if not isinstance(values, list) or not values:
                raise BadInput("a column is not a list of values", where=f"columns.{name}", fix="give one for each row")
            if len(values) != len(given[first]):
                raise BadInput(
                    f"{len(values)} values where {first} has {len(given[first])}",
                    where=f"columns.{name}",
                    fix="one value for each row",
                )
        return {name: list(given[name]) for name in self.names}

    def _fields(self, given: Iterable[Any], path: str) -> None:
        there = set(given)
        missing = [name for name in self.names if name not in there]
        for name in given:
            if name not in self._known:
                raise BadInput(
                    f"field {name!r} is not an input{closest(str(name), missing or self.names)}",
                    where=f"{path}.{name}",
                    fix=f"the inputs are {', '.join(self.names)}",
                )
        for name in missing:
            raise BadInput(
                f"field {name!r} is missing", where=f"{path}.{name}", fix="send it; null where it is unknown"
            )


def _in_rows(row: int, name: str) -> str:
    return f"rows[{row}].{name}"


def _in_columns(row: int, name: str) -> str:
    return f"columns.{name}[{row}]"


class _Column:
    """One input and its check."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.name = str(spec["name"])
        self._kind = str(spec["type"])
        self._nullable = bool(spec["nullable"])
        categories = spec.get("categories")
        self._known = frozenset(categories) if categories is not None else None
        self._exact = _EXACT[self._kind]
        self._largest = _LARGEST.get(self._kind)

    def check(self, values: list[Any], place: Place, accept: bool) -> Sequence[Data]:
        """Check the values, put those into the column's type that fit it, and return warnings.

        Raises:
            BadInput: a value that cannot be accepted.
        """
        exact: Any = self._exact  # any type: mypy would narrow the value to object
        known, largest = self._known, self._largest
        for value in values:
            # One comparison refuses NaN, infinity and what int64 cannot hold.
            if type(value) is exact and (
                -largest <= value <= largest if largest is not None else known is None or value in known
            ):
                continue
            return self._check_each(values, place, accept)
        return ()

    def _check_each(self, values: list[Any], place: Place, accept: bool) -> list[Data]:
        odd: dict[str, list[int]] = {}
        for row, value in enumerate(values):
            if value is None:
                if self._nullable:
                    continue
                text, fix = "null, and training saw no missing ones", "send a value"
            else:
                values[row] = value = self._fitting(value, row, place)
                if self._known is None or value in self._known:
                    continue
                text, fix = f"{_short(value)} is a category that training never saw", "send a known one"
            if not accept:
                hint = closest(str(value), sorted(self._known)) if self._known and value is not None else ""
                raise BadInput(
                    text + hint, where=place(row, self.name), fix=f"{fix}, or declare the model with unseen='accept'"
                )
            odd.setdefault(text, []).append(row)
        return [{"where": place(rows[0], self.name), "message": text, "rows": len(rows)} for text, rows in odd.items()]

    def _fitting(self, value: Any, row: int, place: Place) -> Any:
        """Return the value in the column's type, exactly the number that was sent as far as a float can say it."""
        kind, problem = self._kind, ""
        if kind in ("string", "boolean"):
            good = isinstance(value, str if kind == "string" else bool)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            good = False
        elif value != value or value in (float("inf"), float("-inf")):
            good, problem = False, f"{value} is not a finite number"
        elif not -_LARGEST[kind] <= value <= _LARGEST[kind]:
            good, problem = False, f"{_short(value)} is too large a number"
        else:
            good = kind == "number" or isinstance(value, int) or value.is_integer()
        if not good:
            problem = problem or f"{_short(value)} is not {_article(kind)}"
            raise BadInput(problem, where=place(row, self.name), fix=f"{self.name} is {_article(kind)}")
        return self._exact(value) if kind in ("number", "integer") else value


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 10**40:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "\N{HORIZONTAL ELLIPSIS}"


def signature_of(frame: Any, names: Sequence[str], unseen: str) -> Data:
    """Return the signature of a Polars frame's columns.

    A column may be null where the frame has a missing value (null or NaN) in it; texts have categories where
    there are at most 1,000.

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
        missing = series.null_count() > 0 or (series.dtype.is_float() and bool(series.is_nan().any()))
        categories = None
        if kind == "string":
            found = series.drop_nulls().cast(need("polars").String).unique().sort().to_list()
            categories = found if len(found) <= MOST_CATEGORIES else None
        inputs.append({"name": name, "type": kind, "nullable": missing, "categories": categories})
    return {"inputs": inputs, "unseen": unseen}


def columns_from(frame: Any, signature: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return a Polars frame's inputs as a request would bring them; NaN is null.

    Raises:
        BadInput: an input is not there, or of another type; ``where`` names it.
    """
    pl: Any = need("polars")
    types = {"number": pl.Float64, "integer": pl.Int64, "string": pl.String, "boolean": pl.Boolean}
    columns = {}
    for spec in signature["inputs"]:
        name, wanted = spec["name"], spec["type"]
        if name not in frame.columns:
            raise BadInput(f"there is no column {name!r}{closest(name, frame.columns)}", where=name)
        kind = _kind(frame.schema[name])
        if kind != wanted and (kind, wanted) != ("integer", "number"):
            raise BadInput(f"{name!r} is {frame.schema[name]}, and the model takes {_article(wanted)}", where=name)
        series = frame[name].cast(types[wanted])
        columns[name] = (series.fill_nan(None) if wanted == "number" else series).to_list()
    return columns


def answerable(frame: Any, signature: Mapping[str, Any]) -> Any:
    """Return the rows of a Polars frame that an endpoint with this signature would answer."""
    pl: Any = need("polars")
    checks = [pl.lit(True)]
    for spec in signature["inputs"]:
        column, dtype = pl.col(spec["name"]), frame.schema[spec["name"]]
        if dtype.is_float():
            checks.append(column.is_finite() | column.is_nan() | column.is_null())
        if signature["unseen"] == "accept":
            continue
        if not spec["nullable"]:
            checks.append(column.is_not_null() & ~column.is_nan() if dtype.is_float() else column.is_not_null())
        if spec["categories"] is not None:
            checks.append(column.cast(pl.String).is_in(spec["categories"]) | column.is_null())
    return frame.filter(pl.all_horizontal(checks))


def _kind(dtype: Any) -> str:
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    text = str(dtype)
    if text == "Boolean":
        return "boolean"
    return "string" if text.startswith(("String", "Categorical", "Enum")) else ""
