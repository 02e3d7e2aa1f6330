"""From judged rows to a version: what passes is committed, what fails is set aside with the reason.

The gate speaks before anything is committed, so that no reader ever sees rows that were not checked. Of a
version that fails its gate nothing is kept but the facts; the rows that failed lie in ``NAME.quarantine``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from trimtab.check.tables import is_row_check, judge_table, quality
from trimtab.core.clock import as_utc, monotonic
from trimtab.core.digest import digest
from trimtab.core.errors import BadInput, closest
from trimtab.core.nouns import Check, Data, Verdict
from trimtab.core.optional import need
from trimtab.data.checks import CHECK, REASON, Examined, examine, removing
from trimtab.pipeline.kinds import Made, StepContext, StepResult
from trimtab.store import facts
from trimtab.store.columns import narrow

if TYPE_CHECKING:
    import polars
    import pyarrow

QUARANTINE = "quarantine"


def quarantine_of(name: str) -> str:
    """Return the name of the table that holds the rows of ``name`` that failed a check."""
    return f"{name}.{QUARANTINE}"


def sets_aside(checks: Sequence[Check]) -> bool:
    """Say whether a table with these checks has a quarantine."""
    return any(is_row_check(check) and check.severity == "fail" for check in checks)


@dataclass(frozen=True)
class Judged:
    """The gate's word on the rows of a version to be.

    Attributes:
        aside: the rows that go to quarantine.
        passed: no check fails; warnings do not count.
    """

    checks: Sequence[Check]
    found: Examined
    verdicts: list[Verdict]
    aside: polars.DataFrame
    passed: bool

    @property
    def kept(self) -> polars.DataFrame:
        """The rows that may be published."""
        return self.found.kept(removing(self.checks))

    @property
    def rules(self) -> Data:
        """Failing and quarantined rows by check, for the checks that some row fails."""
        aside = self._aside_by()
        return {
            name: {"failing": count, "quarantined": aside.get(name, 0)}
            for name, count in self.found.measured.failing.items()
            if count
        }

    def _aside_by(self) -> dict[str, int]:
        counted = self.found.measured.failing
        moved = removing(self.checks) if self.passed else _row_gates(self.checks)
        return {check.name: counted[check.name] for check in moved}


def judge(frame: polars.DataFrame, checks: Sequence[Check], *, key: Sequence[str], at: datetime, where: str) -> Judged:
    """Judge rows by their checks in one pass.

    When the gate passes, the rows that fail a check which removes rows are set aside; when it fails, all
    rows that fail any of its row-level checks are, so that they can be looked at.

    Raises:
        BadInput: a check does not fit the rows (see ``checks.examine``), or a column has a reserved name.
    """
    for name in (CHECK, REASON):
        if name in frame.columns:
            raise BadInput(f"a column is called {name!r}, which quarantine needs", where=where, fix="rename it")
    found = examine(frame, checks, key=key, where=where)
    verdicts = judge_table(checks, found.measured, at=at)
    passed = all(verdict.status != "fail" for verdict in verdicts)
    aside = found.set_aside(removing(checks) if passed else _row_gates(checks))
    return Judged(checks, found, verdicts, aside, passed)


def publish(
    context: StepContext, table: pyarrow.Table, checks: Sequence[Check], *, rows_in: int, bytes_in: int, began: float
) -> StepResult:
    """Judge a whole new table and publish it in place of the old one, or refuse it.

    Args:
        context: of the step.
        table: what its function made, with storable types.
        checks: what must hold.
        rows_in: rows of the inputs.
        bytes_in: bytes of the inputs.
        began: monotonic seconds at which the step began.
    """
    declaration = context.declaration
    frame = need("polars").from_arrow(table)
    judged = judge(frame, checks, key=declaration.spec["key"], at=context.now, where=declaration.where)
    kept = judged.kept if judged.passed else frame
    aside = keep_aside(context, judged.aside)
    meta = {
        **describe(context, kept, judged),
        "rows_in": frame.height,
        "quarantine": aside.location if aside else None,
        "profile": judged.found.profile,
    }
    if judged.passed:
        staged = context.store.tables.stage(context.table_id(), kept)
        location = context.store.tables.commit(
            [staged], table_id=context.table_id(), mode="overwrite", run_id=context.run_id
        )
        own = Made(
            asset=declaration.name,
            kind=declaration.kind,
            digest=location["digest"],
            state="published",
            location=location,
            meta=meta,
        )
    else:
        own = refused(context, judged, meta)
    told = throughput(rows_in, bytes_in, own, judged, began)
    return StepResult(made=[own, *([aside] if aside else [])], verdicts=judged.verdicts, facts=told)


def refused(context: StepContext, judged: Judged, meta: Data) -> Made:
    """Return a version of which only the facts are kept; its digest is that of the facts."""
    broken = [verdict.check for verdict in judged.verdicts if verdict.status == "fail"]
    evidence = {verdict.check: verdict.evidence for verdict in judged.verdicts}
    return Made(
        asset=context.declaration.name,
        kind=context.declaration.kind,
        digest=digest({"refused": evidence, "columns": meta["columns"], "rows": meta["rows"]}),
        state="refused",
        location={},
        meta={**meta, "failed": broken},
    )


def keep_aside(context: StepContext, aside: polars.DataFrame) -> Made | None:
    """Commit the rows that were set aside as the quarantine's new version.

    Without such rows an empty version is made only if the current one has rows.
    """
    name = quarantine_of(context.declaration.name)
    if name not in context.assets:
        return None
    if not aside.height:
        before = facts.current(context.store.ledger, name)
        if before is None or not before.meta.get("rows"):
            return None
    table_id = context.table_id(name)
    staged = context.store.tables.stage(table_id, aside)
    location = context.store.tables.commit([staged], table_id=table_id, mode="overwrite", run_id=context.run_id)
    meta = {"rows": aside.height, "columns": dict(location["schema"]), "of": context.declaration.name}
    return Made(asset=name, kind="table", digest=location["digest"], state="published", location=location, meta=meta)


def describe(context: StepContext, frame: polars.DataFrame, judged: Judged) -> Data:
    """Return what later steps and people need to know about a version's rows."""
    spec = context.declaration.spec
    low, high = time_range(frame, spec.get("time"), context.declaration.where)
    return {
        "rows": frame.height,
        "columns": columns_of(frame),
        "layer": spec.get("layer"),
        "key": list(spec.get("key") or ()),
        "time": spec.get("time"),
        "time_min": low,
        "time_max": high,
        "quality": quality(judged.checks, judged.verdicts, judged.found.measured, bar=float(spec.get("bar") or 0.0)),
        "quarantined": judged.aside.height,
        "rules": judged.rules,
    }


def columns_of(frame: polars.DataFrame) -> dict[str, str]:
    """Return a frame's columns and the types in which a table keeps them, as Arrow's text."""
    schema = narrow(frame.clear().to_arrow().schema)
    return {column.name: str(column.type) for column in schema}


def throughput(rows_in: int, bytes_in: int, own: Made, judged: Judged | None, began: float) -> Data:
    """Return the facts of a data step: rows and bytes in and out, seconds, rows/s, and rows by rule."""
    seconds = monotonic() - began
    return {
        "rows_in": rows_in,
        "bytes_in": bytes_in,
        "rows_out": own.location.get("rows", 0),
        "bytes_out": own.location.get("bytes", 0),
        "rows_judged": judged.found.measured.rows if judged else 0,
        "quarantined": judged.aside.height if judged else 0,
        "rules": judged.rules if judged else {},
        "seconds": round(seconds, 6),
        "rows_per_second": round(max(rows_in, own.location.get("rows", 0)) / seconds, 1) if seconds else 0.0,
    }


def time_range(
    frame: polars.DataFrame, column: str | None, where: str, *, strict: bool = True
) -> tuple[str | None, str | None]:
    """Return the oldest and newest event time of a frame as ISO text in UTC; None where there is none.

    Times without a zone are UTC, dates their midnight. Text is read as ISO 8601; a text that is none does
    not count; if none is, that is an error when ``strict``.

    Raises:
        BadInput: the column is not there, or holds no times.
    """
    pl: Any = need("polars")
    if not column:
        return None, None
    if column not in frame.columns:
        raise BadInput(
            f"the time column {column!r} is not there{closest(column, frame.columns)}",
            where=where,
            fix=f"the columns are {', '.join(frame.columns)}",
        )
    values = frame[column]
    if values.dtype == pl.String:
        read = _read_times(values)
        if strict and values.count() and not read.count():
            raise BadInput(
                f"no value of the time column {column!r} is an ISO 8601 time (the first is {values.drop_nulls()[0]!r})",
                where=where,
                fix="give time= to the table that casts it, not to the source",
            )
        values = read
    if not (values.dtype == pl.Date or values.dtype == pl.Datetime or values.dtype == pl.Null):
        raise BadInput(
            f"the time column {column!r} is {values.dtype}", where=where, fix="make it a timestamp or a date"
        )
    return _iso(values.min()), _iso(values.max())


def _read_times(texts: Any) -> Any:
    """Return texts as times in UTC: with a zone or offset, without one, or dates."""
    pl: Any = need("polars")
    frame = texts.alias("x").to_frame()
    zoned = pl.col("x").str.to_datetime("%+", strict=False, time_unit="us", time_zone="UTC")
    plain = [
        pl.col("x").str.to_datetime(form, strict=False, time_unit="us").dt.replace_time_zone("UTC")
        for form in ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")
    ]
    day = pl.col("x").str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return frame.select(pl.coalesce(zoned, *plain, day)).to_series()


def _iso(moment: Any) -> str | None:
    if moment is None:
        return None
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001 - as_utc gives it a zone
    return as_utc(moment).isoformat()


def inputs_size(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """Return rows and bytes of the versions that a step takes."""
    places = [version.location for version in inputs.values()]
    return sum(int(p.get("rows", 0)) for p in places), sum(int(p.get("bytes", 0)) for p in places)


def _row_gates(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if is_row_check(check) and check.severity == "fail"]
