"""All checks of a table in one Polars query: a mask for each check, its sum, and a profile on the side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab.check.tables import Measured, is_row_check, removes_rows
from trimtab.core.errors import BadInput, closest
from trimtab.core.nouns import Check, Data
from trimtab.core.optional import need

if TYPE_CHECKING:
    import polars

_SAMPLE = 5


@dataclass(frozen=True)
class Evaluated:
    """What one pass over a frame found.

    Attributes:
        measured: check name -> what was measured.
        kept: the rows that may be published.
        quarantined: the other rows, with ``_check`` and ``_reason``.
        failing_rows: how many rows fail some row check, kept ones included.
        profile: column -> ``{"type", "missing"}``.
    """

    measured: dict[str, Measured]
    kept: polars.DataFrame
    quarantined: polars.DataFrame
    failing_rows: int
    profile: Data


def evaluate(frame: polars.DataFrame, checks: Sequence[Check], *, key: Sequence[str] = ()) -> Evaluated:
    """Judge every row by every check, in one query.

    Args:
        frame: the whole version.
        checks: table checks.
        key: the columns that tell a row in samples; the checks' own columns otherwise.

    Raises:
        BadInput: a check names a column that is not there, or a condition that is no SQL.
    """
    pl: Any = need("polars")
    rowwise = [check for check in checks if is_row_check(check)]
    for check in rowwise:
        _there(check, frame)
    exact = [check for check in rowwise if not check.params.get("approximate")]
    masks = {f"__{index}": _failing(check, frame) for index, check in enumerate(exact)}
    nulls = [_missing(pl, name, frame.schema[name]).sum().alias(f"n_{name}") for name in frame.columns]
    estimates = {check.name: _estimate(check) for check in rowwise if check.params.get("approximate")}
    lazy = frame.lazy().with_columns(**masks)
    counts = lazy.select(
        *[pl.col(name).sum() for name in masks], *nulls, *[expr.alias(f"e_{name}") for name, expr in estimates.items()]
    )
    try:
        marked, summary = pl.collect_all([lazy, counts])
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise BadInput(
            f"a check does not fit its column: {error}", where="checks", fix="compare like with like"
        ) from error
    numbers = summary.row(0, named=True)
    measured = {
        check.name: Measured(failing=int(numbers[mask] or 0), sample=_sample(marked, mask, check, key, numbers[mask]))
        for mask, check in zip(masks, exact, strict=True)
    }
    for name in estimates:
        measured[name] = Measured(failing=max(0, frame.height - int(numbers[f"e_{name}"])), exact=False)
    profile = {
        name: {"type": str(frame.schema[name]), "missing": int(numbers[f"n_{name}"] or 0)} for name in frame.columns
    }
    removing = {mask: check for mask, check in zip(masks, exact, strict=True) if removes_rows(check)}
    return _split(frame, marked, list(masks), removing, measured, profile)


def _split(
    frame: polars.DataFrame,
    marked: polars.DataFrame,
    masks: Sequence[str],
    removing: dict[str, Check],
    measured: dict[str, Measured],
    profile: Data,
) -> Evaluated:
    pl: Any = need("polars")
    failing = int(marked.select(pl.any_horizontal(pl.col(*masks)).sum()).item()) if masks and frame.height else 0
    if not removing or not any(measured[check.name].failing for check in removing.values()):
        none = frame.head(0).with_columns(_check=pl.lit("", pl.String), _reason=pl.lit("", pl.String))
        return Evaluated(measured, frame, none, failing, profile)
    bad = pl.any_horizontal(pl.col(*removing))
    names = pl.concat_str(
        [pl.when(pl.col(mask)).then(pl.lit(check.name)) for mask, check in removing.items()],
        separator="; ",
        ignore_nulls=True,
    )
    reasons = pl.concat_str(
        [pl.when(pl.col(mask)).then(pl.lit(reason_of(check))) for mask, check in removing.items()],
        separator="; ",
        ignore_nulls=True,
    )
    quarantined = marked.filter(bad).with_columns(_check=names, _reason=reasons).drop(*masks)
    return Evaluated(measured, marked.filter(~bad).drop(*masks), quarantined, failing, profile)


def reason_of(check: Check) -> str:
    """Return why a row fails a check, for the quarantine table."""
    of = check.params
    return {
        "unique": lambda: f"{', '.join(of['columns'])} is there before",
        "missing": lambda: f"{of['column']} is missing",
        "between": lambda: f"{of['column']} is not between {of['low']} and {of['high']}",
        "one_of": lambda: f"{of['column']} is not one of the allowed values",
        "matches": lambda: f"{of['column']} does not match {of['pattern']}",
        "where": lambda: f"not true: {of['condition']}",
    }[check.kind]()


def _there(check: Check, frame: polars.DataFrame) -> None:
    of = check.params
    for name in of.get("columns") or ([of["column"]] if "column" in of else []):
        if name not in frame.columns:
            raise BadInput(
                f"{check.name} names column {name!r}, which is not there{closest(name, frame.columns)}",
                where=name,
                fix=f"the columns are {', '.join(frame.columns[:12])}",
            )


def _missing(pl: Any, name: str, kind: Any) -> Any:
    column = pl.col(name)
    return column.is_null() | column.is_nan().fill_null(False) if kind.is_float() else column.is_null()


def _failing(check: Check, frame: polars.DataFrame) -> Any:
    """Return the expression that is true for rows that fail the check."""
    pl: Any = need("polars")
    of = check.params
    if check.kind == "unique":
        return ~pl.struct(*of["columns"]).is_first_distinct()
    if check.kind == "where":
        try:
            return ~pl.sql_expr(of["condition"]).cast(pl.Boolean).fill_null(True)
        except pl.exceptions.PolarsError as error:
            raise BadInput(f"{of['condition']!r} is no SQL condition: {error}", where=check.name) from error
    column, name = pl.col(of["column"]), of["column"]
    if check.kind == "missing":
        return _missing(pl, name, frame.schema[name])
    if check.kind == "one_of":
        return ~column.is_in(of["values"]).fill_null(True)
    if check.kind == "matches":
        return ~column.cast(pl.String).str.contains(f"^(?:{of['pattern']})$").fill_null(True)
    bad = pl.lit(False)
    if of["low"] is not None:
        bad = bad | (column < of["low"])
    if of["high"] is not None:
        bad = bad | (column > of["high"])
    return bad.fill_null(False)


def _estimate(check: Check) -> Any:
    pl: Any = need("polars")
    return pl.struct(*check.params["columns"]).approx_n_unique() if len(check.params["columns"]) > 1 else pl.col(
        check.params["columns"][0]
    ).approx_n_unique()  # fmt: skip


def _sample(marked: polars.DataFrame, mask: str, check: Check, key: Sequence[str], failing: Any) -> tuple[Data, ...]:
    if not failing:
        return ()
    own = check.params.get("columns") or ([check.params["column"]] if "column" in check.params else [])
    names = [name for name in dict.fromkeys([*key, *own]) if name in marked.columns][:6]
    if not names:
        return ()
    pl: Any = need("polars")
    rows = marked.lazy().filter(pl.col(mask)).select(names).head(_SAMPLE).collect().to_dicts()
    plain = (str, int, float, bool, type(None))
    return tuple(
        {name: value if isinstance(value, plain) else str(value) for name, value in row.items()} for row in rows
    )
