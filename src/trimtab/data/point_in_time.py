"""Point-in-time joins: each label gets what was known at its time; rows out are the labels in, always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.core.clock import parse_duration
from trimtab.core.errors import BadInput, WrongUse, closest
from trimtab.core.optional import need
from trimtab.data.frames import from_arrow, kind_of, to_arrow

_ROW, _AT = "__trimtab_row", "__trimtab_at"


def point_in_time(
    labels: Any,
    features: Any,
    *,
    entity: str | Sequence[str] | Mapping[str, str],
    label_time: str,
    feature_time: str,
    lookback: str | None = None,
    delay: str | None = None,
    columns: Sequence[str] | None = None,
    suffix: str = "",
) -> Any:
    """Join to each label the newest feature row that was known at its time.

    Args:
        labels: any frame; each row is asked for at ``label_time``.
        features: any frame; a row holds from ``feature_time`` on.
        entity: the column or columns that both share, or label column -> feature column.
        label_time: a timestamp, date or whole-number column of ``labels``.
        feature_time: the same kind of column of ``features``.
        lookback: how old a feature row may be at most when it is used, counted back from ``label_time - delay``,
            such as ``7d``; None means any age.
        delay: how long it takes until a feature row is known, such as ``1h``.
        columns: the features to add; by default all but entity and time.
        suffix: appended to the names of the added columns.

    Returns:
        The labels, in their order and kind of frame, with the added columns; null where nothing was known.

    Raises:
        BadInput: a column is missing, types do not fit, names clash, or two feature rows have one entity
            and time.
    """
    pl: Any = need("polars")
    kind = kind_of(labels) or "polars"
    left = pl.from_arrow(to_arrow(labels, what="labels"))
    right = pl.from_arrow(to_arrow(features, what="features"))
    pairs = _pairs(entity)
    _there(left, [*pairs, label_time], "labels")
    _there(right, [*pairs.values(), feature_time], "features")
    added = _added(left, right, columns, {*pairs.values(), feature_time}, suffix)
    shift = _shift(left, right, label_time, feature_time, delay)
    right = _prepared(right, pairs, feature_time, added)
    for name in pairs:
        if left.schema[name] != right.schema[name]:
            raise BadInput(
                f"entity {name!r} is {left.schema[name]} in labels and {right.schema[name]} in features",
                where=name,
                fix="cast one of them",
            )
    asked = left.with_columns(shift.alias(_AT)).with_row_index(_ROW)
    keys = list(pairs)
    usable = asked.filter(pl.all_horizontal(pl.col(*keys, _AT).is_not_null())).select(_ROW, _AT, *keys)
    joined = usable.sort(_AT).join_asof(
        right.sort(_AT),
        on=_AT,
        by=keys,
        strategy="backward",
        tolerance=_tolerance(left, label_time, lookback),
        check_sortedness=False,
    )
    out = asked.join(joined.select(_ROW, *added.values()), on=_ROW, how="left", maintain_order="left")
    if out.height != left.height:
        raise AssertionError("rows out are not the labels in")
    return from_arrow(out.drop(_ROW, _AT).to_arrow(), kind)


def _pairs(entity: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(entity, str):
        return {entity: entity}
    if isinstance(entity, Mapping):
        return dict(entity)
    return {name: name for name in entity}


def _there(frame: Any, names: Sequence[str], what: str) -> None:
    for name in names:
        if name not in frame.columns:
            raise BadInput(
                f"{what} have no column {name!r}{closest(name, frame.columns)}",
                where=what,
                fix=f"they have {', '.join(frame.columns[:12])}",
            )


def _added(left: Any, right: Any, columns: Sequence[str] | None, keys: set[str], suffix: str) -> dict[str, str]:
    wanted = list(columns) if columns is not None else [name for name in right.columns if name not in keys]
    _there(right, wanted, "features")
    added = {name: name + suffix for name in wanted}
    for name in added.values():
        if name in left.columns:
            raise BadInput(f"labels have a column {name!r} already", where=name, fix="give suffix='_something'")
    return added


def _prepared(right: Any, pairs: Mapping[str, str], feature_time: str, added: Mapping[str, str]) -> Any:
    """Return the features under the labels' entity names, without rows that can match nothing."""
    pl: Any = need("polars")
    chosen = [pl.col(old).alias(new) for new, old in pairs.items()]
    made = right.select(
        *chosen, pl.col(feature_time).alias(_AT), *[pl.col(old).alias(new) for old, new in added.items()]
    )
    made = made.filter(pl.all_horizontal(pl.col(*pairs, _AT).is_not_null()))
    twice = made.filter(pl.struct(*pairs, _AT).is_duplicated())
    if twice.height:
        row = twice.select(*pairs, _AT).row(0)
        raise BadInput(
            f"two feature rows have entity and time {row}", where="features", fix="aggregate to one row for each"
        )
    return made


def _shift(left: Any, right: Any, label_time: str, feature_time: str, delay: str | None) -> Any:
    """Return the time by which a feature must have been there, in the features' type."""
    pl: Any = need("polars")
    mine, theirs = left.schema[label_time], right.schema[feature_time]
    column = pl.col(label_time)
    if mine.is_integer() and theirs.is_integer():
        if delay is not None:
            raise WrongUse("delay= needs timestamps, and the time columns are whole numbers", fix="cast them")
        return column.cast(theirs)
    if not mine.is_temporal() or not theirs.is_temporal():
        raise BadInput(
            f"{label_time!r} is {mine} and {feature_time!r} is {theirs}", where=label_time, fix="make both timestamps"
        )
    zones = [getattr(kind, "time_zone", None) for kind in (mine, theirs)]
    if (zones[0] is None) != (zones[1] is None):
        raise BadInput(
            f"one of {label_time!r} ({mine}) and {feature_time!r} ({theirs}) has a time zone and the other has none",
            where=label_time,
            fix="use dt.replace_time_zone on the one without",
        )
    if delay is not None:
        column = column.cast(pl.Datetime("us", zones[0])) - parse_duration(delay)
    return column.cast(theirs) if zones[0] == zones[1] else column.dt.convert_time_zone(zones[1]).cast(theirs)


def _tolerance(left: Any, label_time: str, lookback: str | None) -> Any:
    if lookback is None:
        return None
    if left.schema[label_time].is_integer():
        raise WrongUse("lookback= needs timestamps, and the time columns are whole numbers", fix="cast them")
    return parse_duration(lookback)
