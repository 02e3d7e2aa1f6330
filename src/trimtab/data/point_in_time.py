"""Point-in-time joins: each label gets the features that were known at its time, and no later ones.

The join is computed over the keys alone and gives, for each label, the number of its feature row; feature
values are then picked by number. So the labels' own columns are never touched, types stay as they are, and
rows out are the labels in, always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from trimtab.core.clock import parse_duration
from trimtab.core.errors import BadInput, WrongUse, closest
from trimtab.core.optional import need
from trimtab.data.frames import FrameKind, arrow_of, from_arrow, kind_of

_TIME = "__time"
_LARGEST = 1 << 62
_NANOSECONDS = {"day": 86_400_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def point_in_time(
    labels: Any,
    features: Any,
    *,
    entity: str | Sequence[str] | Mapping[str, str],
    label_time: str,
    feature_time: str,
    lookback: str | timedelta | int | None = None,
    delay: str | timedelta | int | None = None,
    columns: Sequence[str] | None = None,
    suffix: str = "",
) -> Any:
    """Join to each label the newest feature row of its entity that was known at its time.

    A feature row is known from ``feature_time + delay`` on. A label gets the newest row with
    ``label_time - delay - lookback <= feature_time <= label_time - delay``; where there is none, or the
    label's entity or time is missing, its features are null. Feature rows whose entity or time is missing
    match nothing.

    Args:
        labels: a frame of any kind; one answer for each row.
        features: a frame of any kind, in any order, with at most one row for each entity and time.
        entity: the columns that name the entity, or label column -> feature column.
        label_time: the column of ``labels`` that says for when features are asked: a timestamp, a date (its
            midnight) or a whole number.
        feature_time: the column of ``features`` that says from when the values hold; of the same sort, and
            with a time zone exactly if ``label_time`` has one (zones may differ).
        lookback: how old a known row may be, such as ``7d``; whole numbers for times that are. No limit
            by default.
        delay: how long after ``feature_time`` a row becomes known, such as ``1h``.
        columns: the columns of ``features`` to bring; by default all but entity and time.
        suffix: is appended to their names.

    Returns:
        The labels with the features' columns behind theirs: the same rows in the same order, as the same
        kind of frame.

    Raises:
        BadInput: a column is not there, entities or times cannot be compared, a name would be there twice,
            or two feature rows have one entity and time (one is named).
        WrongUse: ``lookback`` or ``delay`` is no duration, or does not fit the times.
    """
    kind = kind_of(labels)
    own = labels.collect() if kind == "lazy" else labels
    if kind in ("arrow", "relation", None):
        own = arrow_of(labels, what="labels")
    right = arrow_of(features, what="features")
    pairs = _pairs(entity)
    have = list(own.schema.names if kind in ("arrow", "relation") else own.columns)
    _there(have, [*pairs, label_time], "labels")
    _there(right.schema.names, [*pairs.values(), feature_time], "features")
    brought = _brought(have, right.schema.names, columns, {*pairs.values(), feature_time}, suffix)
    chosen = [*dict.fromkeys([*pairs, label_time])]
    left = arrow_of(own[chosen].reset_index(drop=True) if kind == "pandas" else own.select(chosen), what="labels")
    keys = _Keys(left, right, pairs, label_time, feature_time)
    rows = keys.match(keys.length(lookback, "lookback"), keys.length(delay, "delay"))
    if len(rows) != len(own):
        raise AssertionError(f"{len(rows)} rows out for {len(own)} labels in")
    return _beside(labels, own, kind, {new: right.column(old).take(rows) for old, new in brought.items()})


def _pairs(entity: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(entity, str):
        return {entity: entity}
    pairs = dict(entity) if isinstance(entity, Mapping) else {name: name for name in entity}
    if not pairs:
        raise WrongUse("point_in_time needs at least one entity column", fix="entity='customer'")
    return pairs


def _there(have: Sequence[str], names: Sequence[str], what: str) -> None:
    for name in names:
        if name not in have:
            raise BadInput(
                f"{what} have no column {name!r}{closest(name, have)}",
                where=what,
                fix=f"they have {', '.join(have)}",
            )


def _brought(
    have: Sequence[str], offered: Sequence[str], columns: Sequence[str] | None, keys: set[str], suffix: str
) -> dict[str, str]:
    """Return the features' columns to bring: name in ``features`` -> name in the result."""
    wanted = [name for name in offered if name not in keys] if columns is None else list(columns)
    _there(offered, wanted, "features")
    brought = {name: name + suffix for name in wanted}
    taken = {name.lower(): name for name in have}
    for name in brought.values():
        if name.lower() in taken:
            raise BadInput(
                f"labels have a column {taken[name.lower()]!r} already, and features bring {name!r}",
                where="features",
                fix="give suffix='_then', or columns=[...] without it",
            )
    return brought


class _Keys:
    """Entities and times of both sides, made comparable.

    Args:
        left: the labels.
        right: the features.
        pairs: label column -> feature column.
        label_time: the labels' time column.
        feature_time: the features' time column.
    """

    def __init__(self, left: Any, right: Any, pairs: Mapping[str, str], label_time: str, feature_time: str) -> None:
        pl: Any = need("polars")
        mine = pl.from_arrow(left.select([*dict.fromkeys([*pairs, label_time])]))
        theirs = pl.from_arrow(right.select([*dict.fromkeys([*pairs.values(), feature_time])]))
        self._told = (list(pairs.values()), feature_time)
        self._by = [f"__entity{number}" for number in range(len(pairs))]
        self._unit = _time_unit(mine.schema[label_time], theirs.schema[feature_time], label_time, feature_time)
        ours, others = [], []
        for name, (own, other) in zip(self._by, pairs.items(), strict=True):
            kind = _entity_kind(mine.schema[own], theirs.schema[other], own, other)
            ours.append(_key(pl.col(own), mine.schema[own], kind).alias(name))
            others.append(_key(pl.col(other), theirs.schema[other], kind).alias(name))
        self._labels = mine.select(*ours, self._time(mine[label_time]))
        self._features = theirs.select(*others, self._time(theirs[feature_time]))

    def _time(self, values: Any) -> Any:
        """Return a time column as whole numbers of one unit."""
        pl: Any = need("polars")
        if not self._unit:
            if values.dtype == pl.UInt64 and (values > (1 << 62)).any():
                raise BadInput(f"{values.name!r} holds numbers beyond 2**62", where=values.name, fix="scale them")
            return values.cast(pl.Int64).alias(_TIME)
        have = "day" if values.dtype == pl.Date else values.dtype.time_unit
        scale = _NANOSECONDS[have] // _NANOSECONDS[self._unit]
        numbers = values.to_physical().cast(pl.Int64)
        if (numbers.abs() > (1 << 62) // scale).any():
            raise BadInput(
                f"{values.name!r} holds times that do not fit the other side's unit ({self._unit})",
                where=values.name,
                fix="give both time columns the unit 'us'",
            )
        return (numbers * scale).alias(_TIME)

    def length(self, value: str | timedelta | int | None, name: str) -> int | None:
        """Return a duration in the unit of the times."""
        if value is None:
            return None
        whole = isinstance(value, int) and not isinstance(value, bool)
        timed = isinstance(value, str | timedelta)
        if (not self._unit and not whole) or (self._unit and not timed) or (isinstance(value, int) and value < 0):
            wanted = "a duration such as '7d'" if self._unit else "a whole number, as the times are"
            raise WrongUse(f"{name}={value!r} does not fit the times", fix=f"give {wanted}")
        if isinstance(value, int):
            return value
        return (parse_duration(value) // timedelta(microseconds=1)) * (1_000 // _NANOSECONDS[self._unit])

    def match(self, lookback: int | None, delay: int | None) -> Any:
        """Return for each label the number of its feature row, or null, as an Arrow array.

        Entity and time become one whole number, so that one sort of the features and one binary search for
        each label do it; two equal numbers side by side are two rows of one entity and time.

        Raises:
            BadInput: two feature rows have one entity and time.
        """
        np, pyarrow = need("numpy"), need("pyarrow")
        asked, known = _whole(self._labels), _whole(self._features)
        found = np.full(self._labels.height, -1, dtype=np.int64)
        labels, features = self._labels.filter(asked), self._features.filter(known)
        if labels.height and features.height:
            found[asked.to_numpy()] = self._search(labels, features, known, lookback, delay or 0)
        return pyarrow.array(found, mask=found < 0)

    def _search(self, labels: Any, features: Any, known: Any, lookback: int | None, delay: int) -> Any:
        np: Any = need("numpy")
        numbers = np.flatnonzero(known.to_numpy())
        theirs, ours = features[_TIME].to_numpy(), labels[_TIME].to_numpy() - delay
        mine, others, entities = _codes(labels, features, self._by)
        low, high = int(theirs.min()), int(theirs.max())
        if entities * (high - low + 2) < _LARGEST:
            span = high - low + 2
            then, now = theirs - low, np.clip(ours, low - 1, high) - low
        else:
            times = np.unique(theirs)
            span = len(times) + 1
            then, now = np.searchsorted(times, theirs), np.searchsorted(times, ours, side="right") - 1
        keys = others * span + then
        order = np.argsort(keys)
        keys = keys[order]
        twins = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twins):
            self._refuse_twins(features, np.sort(order[keys == keys[twins].min()]), numbers)
        wanted = mine * span + now
        # Searching in order keeps to the same part of the keys, which is several times faster.
        turn = np.argsort(wanted)
        place = np.empty(len(wanted), dtype=np.int64)
        place[turn] = np.searchsorted(keys, wanted[turn], side="right") - 1
        rows = order[np.maximum(place, 0)]
        fits = (mine >= 0) & (place >= 0) & (keys[np.maximum(place, 0)] >= mine * span)
        if lookback is not None:
            fits &= theirs[rows] >= ours - lookback
        return np.where(fits, numbers[rows], -1)

    def _refuse_twins(self, features: Any, rows: Any, numbers: Any) -> None:
        first = features.row(int(rows[0]), named=True)
        entity = ", ".join(f"{name}={first[by]!r}" for name, by in zip(self._told[0], self._by, strict=True))
        raise BadInput(
            f"features have {len(rows)} rows for {entity} at one {self._told[1]!r}"
            f" (rows {', '.join(str(numbers[row] + 1) for row in rows[:3])})",
            where="features",
            fix="keep one row for each entity and time, such as by a @tt.features step, which checks it",
        )


def _whole(frame: Any) -> Any:
    """Return which rows have no missing value."""
    pl: Any = need("polars")
    return frame.select(pl.all_horizontal(pl.all().is_not_null()).alias("x"))["x"]


def _codes(labels: Any, features: Any, names: Sequence[str]) -> tuple[Any, Any, int]:
    """Return a whole number for each side's entities, equal where they are, and how many there can be.

    Numbers count from 0; -1 stands for a label's entity that no feature row has.
    """
    np: Any = need("numpy")
    mine, others, many = 0, 0, 1
    for name in names:
        own, other, count = _column_codes(labels[name], features[name])
        if many * count >= _LARGEST:
            mine, others, many = _dense(mine, others)
        absent = (mine < 0) | (own < 0)
        mine, others, many = np.where(absent, -1, mine * count + own), others * count + other, many * count
    return (mine, others, many) if many < _LARGEST >> 32 else _dense(mine, others)


def _column_codes(mine: Any, theirs: Any) -> tuple[Any, Any, int]:
    pl, np = need("polars"), need("numpy")
    kind = mine.dtype
    if not (kind.is_integer() or kind.is_temporal() or kind == pl.Boolean):
        # Texts, decimals, bytes and floating-point numbers are told apart by a number for each value.
        both = pl.concat([mine, theirs])
        coded = both.cast(pl.Categorical) if kind == pl.String else both.rank("dense")
        numbers = coded.to_physical().cast(pl.Int64).to_numpy()
        return numbers[: len(mine)], numbers[len(mine) :], int(numbers.max()) + 1
    unsigned = kind == pl.UInt64
    own, other = (side.to_physical().cast(pl.UInt64 if unsigned else pl.Int64).to_numpy() for side in (mine, theirs))
    low, high = int(other.min()), int(other.max())
    if high - low < _LARGEST >> 32:
        inside = (own >= low) & (own <= high)
        return (
            np.where(inside, own - other.dtype.type(low), 0).astype(np.int64) - ~inside,
            (other - other.dtype.type(low)).astype(np.int64),
            high - low + 1,
        )
    return _dense(own, other)


def _dense(mine: Any, theirs: Any) -> tuple[Any, Any, int]:
    """Return the same values as numbers without gaps; -1 for a label's value that no feature row has."""
    np: Any = need("numpy")
    values = np.unique(theirs)
    place = np.minimum(np.searchsorted(values, mine), len(values) - 1)
    return np.where(values[place] == mine, place, -1), np.searchsorted(values, theirs), len(values)


def _time_unit(mine: Any, theirs: Any, label_time: str, feature_time: str) -> str:
    """Return the unit in which both times become whole numbers; empty when they are such already."""
    pl: Any = need("polars")
    if mine.is_integer() and theirs.is_integer():
        return ""
    for kind, name in ((mine, label_time), (theirs, feature_time)):
        if not (kind == pl.Datetime or kind == pl.Date):
            both = f"{label_time!r} is {mine} and {feature_time!r} is {theirs}"
            raise BadInput(
                f"times cannot be compared: {both}",
                where=name,
                fix="make both timestamps, both dates or both whole numbers",
            )
    zones = [getattr(kind, "time_zone", None) for kind in (mine, theirs)]
    if (zones[0] is None) != (zones[1] is None):
        with_zone, without = (label_time, feature_time) if zones[0] else (feature_time, label_time)
        raise BadInput(
            f"{with_zone!r} has a time zone and {without!r} has none, so they cannot be compared",
            where=without,
            fix=f"say in which zone {without!r} is, such as with dt.replace_time_zone('UTC')",
        )
    return "ns" if any(getattr(kind, "time_unit", "") == "ns" for kind in (mine, theirs)) else "us"


def _entity_kind(mine: Any, theirs: Any, own: str, other: str) -> Any:
    """Return the type in which two entity columns are compared."""
    pl: Any = need("polars")
    texts = (pl.String, pl.Categorical, pl.Enum)
    if any(mine == kind for kind in texts) and any(theirs == kind for kind in texts):
        return pl.String
    if mine.is_integer() and theirs.is_integer():
        # No integer type holds both of these, and texts of whole numbers are equal when the numbers are.
        both = pl.String if pl.UInt64 in (mine, theirs) else pl.Int64
        return mine if mine == theirs else both
    if mine == theirs and not mine.is_nested():
        return mine
    if pl.Null in (mine, theirs):
        return theirs if mine == pl.Null else mine
    raise BadInput(
        f"entity {own!r} of labels is {mine} and {other!r} of features is {theirs}",
        where=own,
        fix="cast one of them, so that equal entities are equal values",
    )


def _key(column: Any, have: Any, wanted: Any) -> Any:
    """Return an entity column in the common type; NaN names nobody, and -0.0 is 0.0."""
    column = column if have == wanted else column.cast(wanted)
    return (column + 0.0).fill_nan(None) if wanted.is_float() else column


def _beside(labels: Any, own: Any, kind: FrameKind | None, picked: Mapping[str, Any]) -> Any:
    """Return the labels with the picked columns behind theirs, as the kind of frame that they are."""
    pl, pyarrow = need("polars"), need("pyarrow")
    added = pyarrow.table(dict(picked))
    if kind == "pandas":
        frame = own.copy()
        for name, column in from_arrow(added, "pandas").items() if picked else ():
            frame[name] = column.array
        return frame
    if kind in ("polars", "lazy"):
        whole = own.hstack(pl.from_arrow(added)) if picked else own
        return whole.lazy() if kind == "lazy" else whole
    whole = own
    for name, column in picked.items():
        whole = whole.append_column(name, column)
    if isinstance(labels, pyarrow.RecordBatch):
        return pyarrow.RecordBatch.from_arrays(
            [column.combine_chunks() for column in whole.columns], schema=whole.schema
        )
    return from_arrow(whole, kind or "arrow")
