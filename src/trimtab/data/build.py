"""Making a version of a table: the work behind ``steps``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.check.tables import judge_table, quality_score
from trimtab.core.clock import monotonic
from trimtab.core.errors import BadInput
from trimtab.core.nouns import Check, Data, Verdict
from trimtab.core.optional import need
from trimtab.data.checks import Evaluated, evaluate
from trimtab.data.frames import to_arrow
from trimtab.data.read import read_file
from trimtab.pipeline.kinds import Made, StepContext, StepResult
from trimtab.store import facts as ledger_facts

RECEIVED = ("_source", "_batch", "_row", "_received")


def build_table(context: StepContext, table: Any, checks: Sequence[Check]) -> StepResult:
    """Judge a table in one pass, set failing rows aside, and publish the rest if the gate passes."""
    started = monotonic()
    declaration = context.declaration
    frame = need("polars").from_arrow(table)
    found = evaluate(frame, checks, key=declaration.spec["key"])
    verdicts = judge_table(checks, found.measured, rows=frame.height, columns=frame.columns, at=context.now)
    passed = all(verdict.status != "fail" for verdict in verdicts)
    meta = {**_meta(context, found.kept if passed else frame, found, verdicts), "rows_in": frame.height}
    made = [_publish(context, found, meta) if passed else _refuse(context, frame, meta, verdicts)]
    made += _quarantine(context, found)
    facts = {
        "rows_in": frame.height,
        "rows_out": meta["rows"] if passed else 0,
        "bytes_out": made[0].location.get("bytes", 0),
        "quarantined": found.quarantined.height,
        "rules": {name: one.failing for name, one in found.measured.items() if one.failing},
        "seconds_checking": monotonic() - started,
    }
    return StepResult(made=made, verdicts=verdicts, facts=facts)


def _publish(context: StepContext, found: Evaluated, meta: Data) -> Made:
    table_id = context.table_id()
    staged = context.store.tables.stage(table_id, found.kept)
    location = context.store.tables.commit([staged], table_id=table_id, mode="overwrite", run_id=context.run_id)
    name, kind = context.declaration.name, context.declaration.kind
    return Made(asset=name, kind=kind, digest=location["digest"], state="published", location=location, meta=meta)


def _refuse(context: StepContext, frame: Any, meta: Data, verdicts: Sequence[Verdict]) -> Made:
    """Return a version that is told of and not kept: nobody ever reads rows that failed their gate."""
    failed = [verdict.check for verdict in verdicts if verdict.status == "fail"]
    name, kind = context.declaration.name, context.declaration.kind
    digest = f"refused:{context.run_id}"
    return Made(asset=name, kind=kind, digest=digest, state="refused", location={}, meta={**meta, "failed": failed})


def _quarantine(context: StepContext, found: Evaluated) -> list[Made]:
    name = f"{context.declaration.name}.quarantine"
    if not found.quarantined.height and ledger_facts.current(context.store.ledger, name) is None:
        return []
    table_id = context.table_id(name)
    staged = context.store.tables.stage(table_id, found.quarantined)
    location = context.store.tables.commit([staged], table_id=table_id, mode="overwrite", run_id=context.run_id)
    meta = {"rows": found.quarantined.height, "of": context.declaration.name}
    return [Made(asset=name, kind="table", digest=location["digest"], state="published", location=location, meta=meta)]


def _meta(context: StepContext, frame: Any, found: Evaluated, verdicts: Sequence[Verdict]) -> Data:
    spec = context.declaration.spec
    low, high = time_range(frame, spec.get("time"), context.declaration.where)
    score = quality_score(verdicts, rows=frame.height + found.quarantined.height, failing_rows=found.failing_rows)
    bar = float(spec.get("bar") or 0.0)
    return {
        "rows": frame.height,
        "columns": {name: str(kind) for name, kind in frame.schema.items()},
        "time": spec.get("time"),
        "time_min": low,
        "time_max": high,
        "layer": spec.get("layer"),
        "quality": {"score": score, "bar": bar, "distance": score - bar},
        "quarantined": found.quarantined.height,
        "profile": found.profile,
    }


def time_range(frame: Any, column: str | None, where: str) -> tuple[str | None, str | None]:
    """Return the oldest and newest event time of a frame, as ISO text; None without rows or a time column.

    Text is read as ISO 8601; what cannot be read does not count.

    Raises:
        BadInput: the declared time column is not there.
    """
    if not column:
        return None, None
    pl: Any = need("polars")
    if column not in frame.columns:
        raise BadInput(f"the time column {column!r} is not there", where=where, fix=f"it has {frame.columns[:12]}")
    values = frame[column]
    if values.dtype == pl.String:
        values = values.str.to_datetime(strict=False, time_zone="UTC")
    if not values.dtype.is_temporal():
        return None, None
    low, high = values.min(), values.max()
    return _iso(low), _iso(high)


def _iso(moment: Any) -> str | None:
    if moment is None:
        return None
    text = str(moment.isoformat())
    return text if "+" in text or "T" not in text else f"{text}+00:00"


def build_source(context: StepContext) -> StepResult:
    """Append new files to the bronze table, replace changed ones, and judge the whole."""
    started = monotonic()
    batches: dict[str, Data] = dict((context.previous.meta.get("batches") or {}) if context.previous else {})
    files = context.fingerprint.get("files")
    fresh = _new_files(files, batches) if files is not None else [""]
    staged, drop, rows_in = [], [], 0
    table_id = context.table_id()
    number = max((batch["batch"] for batch in batches.values()), default=0)
    columns = _known_columns(context)
    for name in fresh:
        table = _read(context, name)
        columns = _same_columns(columns, table.schema.names, name or context.declaration.name)
        number += 1
        part = context.store.tables.stage(table_id, _received(context, table, name, number))
        staged.append(part)
        rows_in += part.rows
        old = batches.get(name)
        if old is not None:
            drop.append(old["file"])
        digest = files[name] if files is not None else part.digest
        batches[name] = {"digest": digest, "rows": part.rows, "batch": number, "file": part.file}
    location = _commit_source(context, table_id, staged, drop)
    frame = need("polars").from_arrow(context.store.tables.arrow(location)) if _looks(context) else None
    verdicts = _judge_source(context, frame, location)
    passed = all(verdict.status != "fail" for verdict in verdicts)
    meta = _source_meta(context, frame, location, batches)
    made = Made(
        asset=context.declaration.name,
        kind="source",
        digest=location["digest"],
        state="published" if passed else "refused",
        location=location,
        meta=meta,
    )
    seconds = monotonic() - started
    gone = sorted(set(batches) - set(files)) if files is not None else []
    facts = {
        "rows_in": rows_in, "rows_out": location["rows"], "bytes_out": location["bytes"], "files_new": len(fresh),
        "files_replaced": len(drop), "files_gone": len(gone), "rows_per_second": rows_in / seconds if seconds else 0.0,
    }  # fmt: skip
    return StepResult(made=[made], verdicts=verdicts, facts=facts)


def _new_files(files: Mapping[str, str], batches: Mapping[str, Data]) -> list[str]:
    return [name for name, digest in sorted(files.items()) if batches.get(name, {}).get("digest") != digest]


def _looks(context: StepContext) -> bool:
    return bool(context.declaration.checks or context.declaration.spec.get("time"))


def _read(context: StepContext, name: str) -> Any:
    """Return the rows of one file, or of a source without files."""
    spec, function = context.declaration.spec, context.function
    path = context.project_root / name
    wants_path = bool(inspect.signature(function).parameters) and bool(name)
    made = function(path, **context.params) if wants_path else function(**context.params)
    if made is not None:
        return to_arrow(made, what=f"what {context.declaration.name} returned")
    if not name:
        raise BadInput(
            f"source {context.declaration.name} returned nothing",
            where=context.declaration.where,
            fix="return a frame, or give path='data/*.csv'",
        )
    return read_file(
        Path(name) if path.is_file() and Path(name).is_file() else path, format=spec["format"], null=spec["null"]
    )


def _known_columns(context: StepContext) -> list[str] | None:
    if context.previous is None:
        return None
    return [name for name in context.previous.location["schema"] if name not in RECEIVED]


def _same_columns(known: list[str] | None, names: Sequence[str], what: str) -> list[str]:
    if known is None or set(known) == set(names):
        return known or list(names)
    missing, extra = sorted(set(known) - set(names)), sorted(set(names) - set(known))
    parts = [f"missing {', '.join(missing)}"] if missing else []
    parts += [f"new {', '.join(extra)}"] if extra else []
    raise BadInput(
        f"the columns differ from earlier batches: {'; '.join(parts)}",
        where=what,
        fix="deliver the file with the known columns, or declare it as a source of its own",
    )


def _received(context: StepContext, table: Any, name: str, number: int) -> Any:
    pl: Any = need("polars")
    frame = pl.from_arrow(table)
    return frame.with_columns(
        pl.lit(name or context.declaration.name).alias("_source"),
        pl.lit(number, pl.Int64).alias("_batch"),
        pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("_row"),
        pl.lit(context.now).cast(pl.Datetime("us", "UTC")).alias("_received"),
    )


def _commit_source(context: StepContext, table_id: str, staged: Sequence[Any], drop: Sequence[str]) -> Data:
    if not staged and context.previous is not None:
        return dict(context.previous.location)
    return context.store.tables.commit(staged, table_id=table_id, mode="append", run_id=context.run_id, drop_files=drop)


def _judge_source(context: StepContext, frame: Any, location: Data) -> list[Verdict]:
    checks = context.declaration.checks
    if not checks:
        return []
    found = evaluate(frame, checks)
    return judge_table(checks, found.measured, rows=frame.height, columns=frame.columns, at=context.now)


def _source_meta(context: StepContext, frame: Any, location: Data, batches: Mapping[str, Data]) -> Data:
    spec = context.declaration.spec
    low, high = time_range(frame, spec.get("time"), context.declaration.where) if frame is not None else (None, None)
    return {
        "rows": location["rows"], "columns": dict(location["schema"]), "time": spec.get("time"), "time_min": low,
        "time_max": high, "layer": "bronze", "batches": dict(batches), "quarantined": 0,
        "quality": {"score": 1.0, "bar": 0.0, "distance": 1.0},
    }  # fmt: skip
