"""Which rows a model may see, and which are kept back for its gate.

The labelled input is cut by time: rows up to the cutoff are given to the model's function, newer ones are not.
Every other input that has a time column is cut at the same moment, so that nothing that became known later
reaches the function by another way; inputs without one (a list of airports) are given whole. In a column of
dates a date stands for its whole day, so the day of a cutoff at noon is not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from trimtab.core.clock import parse_duration
from trimtab.core.errors import BadInput, closest
from trimtab.core.optional import need
from trimtab.pipeline.kinds import StepContext, load_attribute
from trimtab.store.columns import narrow

_GIVE = "trimtab.data.frames:from_arrow"
_KIND = "trimtab.data.frames:wanted_kind"


@dataclass(frozen=True)
class Labelled:
    """The labelled input of a model.

    Attributes:
        name: the parameter that brings it.
        frame: its rows (Polars) that have a label and a time, in order of time if there is a time column.
        label: the label's column.
        time: the time column, or an empty string.
        dropped: rows without a label.
        undated: rows with a label and without a time.
        key: columns that name a row.
    """

    name: str
    frame: Any
    label: str
    time: str
    dropped: int
    undated: int
    key: tuple[str, ...]


@dataclass(frozen=True)
class Cut:
    """Labelled rows in two.

    Attributes:
        train: rows to fit on (Polars).
        kept: rows that are kept back, all newer than those.
        until: the newest moment that the function may see; None without a time column.
    """

    train: Any
    kept: Any
    until: Any


def labelled(context: StepContext) -> Labelled:
    """Return the labelled input: ``data=``, or the first input that has the label column.

    Raises:
        BadInput: no input has the label column, or a column that the declaration names is not there.
    """
    declaration = context.declaration
    spec, label = declaration.spec, declaration.spec["label"]
    names = [spec["data"]] if spec["data"] else list(declaration.inputs)
    seen: list[str] = []
    for name in names:
        if name not in declaration.inputs:
            raise BadInput(f"data={name!r} is no input{closest(name, declaration.inputs)}", where=declaration.where)
        columns = list(context.inputs[name].location.get("schema", {}))
        seen += columns
        if label in columns:
            return _prepared(context, name, label)
    raise BadInput(
        f"no input of {declaration.name} has the label column {label!r}{closest(label, seen)}",
        where=declaration.where,
        fix=f"name a column of {', '.join(names)} by label=" if names else "give the function an input",
    )


def _prepared(context: StepContext, name: str, label: str) -> Labelled:
    version, spec, where = context.inputs[name], context.declaration.spec, context.declaration.where
    pl: Any = need("polars")
    frame = context.load(name, "pl.DataFrame")
    time = spec["time"] or version.meta.get("time") or ""
    for option, column in (("time", time), ("group", spec["group"])):
        if column and column not in frame.columns:
            raise BadInput(f"{name} has no {option} column {column!r}{closest(column, frame.columns)}", where=where)
    if time and not (frame.schema[time].is_temporal() or frame.schema[time].is_numeric()):
        raise BadInput(
            f"the time column {time!r} of {name} is {frame.schema[time]}", where=where, fix="make it a timestamp"
        )
    rows = frame.height
    frame = frame.drop_nulls(label)
    if frame.schema[label].is_float():
        frame = frame.filter(pl.col(label).is_not_nan())
    known = frame.height
    if time:
        frame = frame.drop_nulls(time).sort(time, maintain_order=True)
    if not frame.height:
        raise BadInput(f"{name} has no labelled rows", where=where, fix=f"fill {label!r}")
    key = tuple(version.meta.get("key") or ())
    return Labelled(name, frame, label, time, rows - known, known - frame.height, key)


def cut(data: Labelled, holdout: str | float) -> Cut:
    """Return the rows to train on and the rows that are kept back, the newest.

    Args:
        data: the labelled input.
        holdout: a length of time, or a share of the rows. Rows of one moment stay together; without a time
            column the last rows are kept back.

    Raises:
        BadInput: nothing is left on one side, or a length is given and there is no column of times.
    """
    frame = data.frame
    count = round(frame.height * (1 - holdout)) if not isinstance(holdout, str) else 0
    if isinstance(holdout, str):
        if not data.time or not frame.schema[data.time].is_temporal():
            raise BadInput(
                f"holdout={holdout!r} needs a column of times",
                where=data.name,
                fix="give time=, or a share such as 0.2",
            )
        border = frame[data.time].max() - parse_duration(holdout)
    elif data.time:
        border = frame[data.time][max(0, count - 1)]
    else:
        return _both(data, frame.head(count), frame.tail(frame.height - count), holdout, None)
    pl: Any = need("polars")
    old = pl.col(data.time) <= border
    return _both(data, frame.filter(old), frame.filter(~old), holdout, border)


def _both(data: Labelled, train: Any, kept: Any, holdout: str | float, until: Any) -> Cut:
    if not train.height or not kept.height:
        side = "to train on" if not train.height else "for the gate"
        raise BadInput(
            f"holdout={holdout!r} of {data.frame.height} rows leaves no rows {side}",
            where=data.name,
            fix="bring more rows, or change holdout=",
        )
    return Cut(train, kept, until)


def given(context: StepContext, data: Labelled, rows: Any, until: Any) -> dict[str, Any]:
    """Return what the model's function is called with: parameter name -> frame of the annotated kind.

    Args:
        context: of the step.
        data: the labelled input.
        rows: those of its rows that the function may see.
        until: the newest moment that it may see of the other inputs; None for all.

    Raises:
        BadInput: an input's time column cannot be compared with the labelled one's.
    """
    frames = {}
    for name in context.declaration.inputs:
        wanted = context.declaration.frames.get(name, "")
        time = context.inputs[name].meta.get("time")
        if name == data.name:
            frames[name] = _as(rows, wanted)
        elif until is None or not time:
            frames[name] = context.load(name)
        else:
            lazy = context.load(name, "pl.LazyFrame")
            past = lazy.filter(_up_to(until, time, lazy.collect_schema()[time], name, data.time))
            frames[name] = _as(past.collect(), wanted)
    return frames


def frame_kind(context: StepContext, data: Labelled) -> str:
    """Return the kind of frame in which the function gets the labelled input."""
    return str(load_attribute(_KIND)(context.declaration.frames.get(data.name, "")))


def _as(frame: Any, wanted: str) -> Any:
    kind = load_attribute(_KIND)(wanted)
    if kind in ("polars", "lazy"):
        return frame if kind == "polars" else frame.lazy()
    table = frame.to_arrow()
    return load_attribute(_GIVE)(table.cast(narrow(table.schema)), kind)


def _up_to(until: Any, column: str, dtype: Any, name: str, time: str) -> Any:
    """Return the condition that a row was known at the moment ``until``."""
    pl: Any = need("polars")
    if dtype.is_numeric() and isinstance(until, int | float):
        return pl.col(column) <= until
    if not dtype.is_temporal() or not isinstance(until, date):
        raise BadInput(
            f"the times of {name} ({column!r}, {dtype}) cannot be compared with {time!r}, by which rows are kept back",
            where=name,
            fix="give both columns one type, such as a timestamp",
        )
    if dtype != pl.Date:
        moment = until if isinstance(until, datetime) else _end_of(until)
        return pl.col(column) <= pl.lit(_aware(moment)).cast(dtype)
    if isinstance(until, datetime):
        until = (_aware(until) + timedelta(microseconds=1)).date() - timedelta(days=1)
    return pl.col(column) <= until


def _end_of(day: date) -> datetime:
    return datetime.combine(day, datetime.max.time())


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def plain(moment: Any) -> Any:
    """Return a time as plain data: ISO text, in UTC for a timestamp (a naive one is UTC), or a number."""
    if isinstance(moment, datetime):
        return _aware(moment).isoformat()
    return moment.isoformat() if isinstance(moment, date) else moment


def until(frame: Any, time: str) -> Any:
    """Return the newest time of a frame as plain data, or None without a time column or rows."""
    return plain(frame[time].max()) if time and frame.height else None


def newer_than(data: Labelled, moment: Any) -> Any:
    """Return the labelled rows that are newer than a time that ``plain`` gave; None means all.

    Raises:
        BadInput: the time is of another kind than the labelled input's time column.
    """
    if moment is None or not data.time:
        return data.frame
    pl: Any = need("polars")
    dtype = data.frame.schema[data.time]
    if isinstance(moment, str) != dtype.is_temporal():
        raise BadInput(
            f"the time column {data.time!r} is {dtype} now, and {moment!r} cannot be compared with it", where=data.name
        )
    border = moment
    if isinstance(moment, str):
        whole_day = len(moment) == len("2013-01-31") and dtype != pl.Date
        read = _end_of(date.fromisoformat(moment)) if whole_day else datetime.fromisoformat(moment)
        border = pl.lit(_aware(read)).cast(dtype)
    return data.frame.filter(pl.col(data.time) > border)
