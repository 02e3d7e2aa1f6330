"""Which rows a model may see, and which are kept back for its gate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from trimtab.core.clock import parse_duration
from trimtab.core.errors import BadInput, closest
from trimtab.core.optional import need
from trimtab.pipeline.kinds import StepContext


@dataclass(frozen=True)
class Labelled:
    """The labelled input of a model.

    Attributes:
        name: the parameter that brings it.
        frame: its rows (Polars) that have a label, in order of time if there is a time column.
        label: the label's column.
        time: the time column, or an empty string.
        dropped: rows without a label.
        key: columns that name a row.
    """

    name: str
    frame: Any
    label: str
    time: str
    dropped: int
    key: tuple[str, ...]


def labelled(context: StepContext) -> Labelled:
    """Return the labelled input.

    Raises:
        BadInput: no input has the label column, or the time column is not there.
    """
    declaration = context.declaration
    spec, label = declaration.spec, declaration.spec["label"]
    names = [spec["data"]] if spec["data"] else list(declaration.inputs)
    seen: list[str] = []
    for name in names:
        if name not in context.inputs:
            raise BadInput(f"data={name!r} is no input{closest(name, declaration.inputs)}", where=declaration.where)
        columns = list(context.inputs[name].location.get("schema", {}))
        seen += columns
        if label in columns:
            return _prepared(context, name, label)
    raise BadInput(
        f"no input of {declaration.name} has the label column {label!r}{closest(label, seen)}",
        where=declaration.where,
        fix=f"its inputs are {', '.join(names)}",
    )


def _prepared(context: StepContext, name: str, label: str) -> Labelled:
    version, spec = context.inputs[name], context.declaration.spec
    frame = context.load(name, "pl.DataFrame")
    time = spec["time"] or version.meta.get("time") or ""
    if time and time not in frame.columns:
        raise BadInput(
            f"{name} has no time column {time!r}{closest(time, frame.columns)}", where=context.declaration.where
        )
    rows = frame.height
    frame = frame.drop_nulls(label)
    if time:
        frame = frame.drop_nulls(time).sort(time, maintain_order=True)
    if not frame.height:
        raise BadInput(f"{name} has no labelled rows", where=context.declaration.where, fix=f"fill {label!r}")
    key = tuple(version.meta.get("key") or ())
    return Labelled(name, frame, label, time, rows - frame.height, key)


def cut(data: Labelled, holdout: str | float) -> tuple[Any, Any]:
    """Return the rows to train on and the rows that are kept back, the newest.

    Args:
        data: the labelled input.
        holdout: a length of time, or a share of the rows.

    Raises:
        BadInput: nothing is left on one side, or a length is given and there is no time column.
    """
    frame = data.frame
    if isinstance(holdout, str):
        if not data.time:
            raise BadInput(
                f"holdout={holdout!r} needs a time column", where=data.name, fix="give time=, or a share such as 0.2"
            )
        border = frame[data.time].max() - parse_duration(holdout)
    elif data.time:
        border = frame[data.time][max(0, round(frame.height * (1 - holdout)) - 1)]
    else:
        at = round(frame.height * (1 - holdout))
        return _both(data, frame.head(at), frame.tail(frame.height - at), holdout)
    pl: Any = need("polars")
    old = pl.col(data.time) <= border
    return _both(data, frame.filter(old), frame.filter(~old), holdout)


def _both(data: Labelled, train: Any, kept: Any, holdout: str | float) -> tuple[Any, Any]:
    if not train.height or not kept.height:
        side = "to train on" if not train.height else "for the gate"
        raise BadInput(
            f"holdout={holdout!r} of {data.frame.height} rows leaves no rows {side}",
            where=data.name,
            fix="bring more rows, or change holdout=",
        )
    return train, kept


def until(frame: Any, time: str) -> str | None:
    """Return the newest time of a frame as ISO text, or None without a time column."""
    return iso(frame[time].max()) if time and frame.height else None


def iso(moment: Any) -> str:
    """Return a time as ISO text in UTC; a naive one is taken to be UTC."""
    if isinstance(moment, datetime):
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return str(moment.isoformat()) if hasattr(moment, "isoformat") else str(moment)


def newer_than(data: Labelled, moment: str | None) -> Any:
    """Return the labelled rows that are newer than a time in ISO text."""
    if moment is None or not data.time:
        return data.frame
    pl: Any = need("polars")
    border = datetime.fromisoformat(moment)
    dtype = data.frame.schema[data.time]
    if getattr(dtype, "time_zone", None) is None:
        border = border.replace(tzinfo=None)
    return data.frame.filter(pl.col(data.time) > pl.lit(border).cast(dtype))


def with_frame(data: Labelled, frame: Any) -> Labelled:
    """Return the labelled input with other rows."""
    return replace(data, frame=frame)
