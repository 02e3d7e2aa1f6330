"""What the arguments of a declaration may be: each helper returns the argument in one form, or says what is wrong.

Every refusal is a ``ProjectError`` that names the argument, its value, the user's file and line, and what to
write. ``name`` is the argument's name, and may have a prefix that ends in a space (``ck.between: low``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import timedelta
from typing import Any

from trimtab.core.clock import parse_duration
from trimtab.core.errors import ProjectError, WrongUse, closest
from trimtab.core.nouns import Check
from trimtab.core.place import caller

FORMATS = ("auto", "csv", "parquet", "json", "jsonl")
ROLLOUT_KINDS = frozenset({"errors", "latency", "outcome"})
MONITOR_KINDS = frozenset({"drift", "performance"})
_LONGEST = 80
_LARGEST = 1e300
_LARGEST_WHOLE = 1 << 63


def show(value: object) -> str:
    """Return ``value`` as it would be written, cut to 80 characters."""
    try:
        told = repr(value)
    except Exception:  # whatever a stranger's repr raises, the message must still come
        told = f"<{type(value).__name__}>"
    return told if len(told) <= _LONGEST else told[: _LONGEST - 1] + "…"


def wrong(name: str, value: object, why: str, *, fix: str) -> ProjectError:
    """Return the error that the argument ``name`` with this value is what ``why`` says."""
    return ProjectError(f"{name}={show(value)} {why}", where=caller(), fix=fix)


def text(value: Any, name: str, *, empty: bool = True) -> str:
    """Return a text; without ``empty`` one that says something."""
    if not isinstance(value, str):
        raise wrong(name, value, f"is of type {type(value).__name__}, not text", fix=f"{_argument(name)}='...'")
    if not empty and not value.strip():
        raise wrong(name, value, "is empty", fix=f"{_argument(name)}='...'")
    return _sound(value, name)


def maybe_text(value: Any, name: str) -> str | None:
    """Return a text or None."""
    return None if value is None else text(value, name)


def texts(value: Any, name: str, *, empty: bool = False) -> list[str]:
    """Return a list of different texts; a lone text stands for a list of one."""
    found = [value] if isinstance(value, str) else listed(value, name, such_as="['a', 'b']")
    for item in found:
        if not isinstance(item, str) or not (empty or item.strip()):
            why = "an empty text" if isinstance(item, str) else f"{show(item)}, which is no text,"
            raise wrong(name, value, f"has {why} in it", fix=f"{_argument(name)}= takes text or a list of texts")
        _sound(item, name)
    if len(set(found)) < len(found):
        twice = next(item for item in found if found.count(item) > 1)
        raise wrong(name, value, f"has {show(twice)} twice", fix="name it once")
    return found


def listed(value: Any, name: str, *, such_as: str) -> list[Any]:
    """Return the items of a list, a tuple or another ordered collection; a lone text is none."""
    ordered = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Set)
    if not ordered:
        raise wrong(name, value, f"is of type {type(value).__name__}, not a list", fix=f"give a list: {such_as}")
    return list(value)


def number(value: Any, name: str, *, low: float = -_LARGEST, high: float = _LARGEST, inside: bool = False) -> float:
    """Return a finite number from ``low`` to ``high``; with ``inside`` it may be neither."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not low <= value <= high or (inside and value in (low, high)):
        raise wrong(name, value, f"is not {_range(low, high, inside)}", fix=_example(name, low, high))
    return float(value)


def share(value: Any, name: str) -> float:
    """Return a share of a whole, from 0 to 1."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not 0 <= value <= 1:
        raise wrong(name, value, "is not a share between 0 and 1", fix=f"such as {_argument(name)}=0.01")
    return float(value)


def whole(value: Any, name: str, *, low: int | None = None) -> int:
    """Return a whole number of 64 bits, at least ``low``."""
    least_value = -_LARGEST_WHOLE if low is None else low
    if isinstance(value, bool) or not isinstance(value, int) or not least_value <= value < _LARGEST_WHOLE:
        least = "" if low is None else f" of at least {low}"
        raise wrong(name, value, f"is not a whole number{least}", fix=f"such as {_argument(name)}={max(low or 0, 1)}")
    return value


def flag(value: Any, name: str) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise wrong(name, value, "is neither True nor False", fix=f"{_argument(name)}=True or {_argument(name)}=False")
    return value


def option(value: Any, name: str, known: Sequence[str]) -> str:
    """Return one of the ``known`` words."""
    if not isinstance(value, str) or value not in known:
        near = closest(value, known) if isinstance(value, str) else ""
        raise wrong(name, value, f"is unknown{near}", fix=f"one of {', '.join(map(repr, known))}")
    return value


def duration(value: Any, name: str, *, positive: bool = False) -> str:
    """Return a length of time as text such as ``15m``; with ``positive`` it is longer than nothing."""
    fix = "write it like '90s', '15m', '6h', '7d' or '2w'"
    if not isinstance(value, str | timedelta):
        raise wrong(name, value, "is not a duration", fix=fix)
    try:
        length = parse_duration(value)
    except WrongUse as error:
        raise wrong(name, value, "is not a duration", fix=error.fix) from error
    if length < timedelta(0) or (positive and not length):
        raise wrong(name, value, "is not longer than nothing", fix=fix)
    return value if isinstance(value, str) else f"{value.total_seconds()}s"


def checks_of(value: Any, name: str, *, kinds: Iterable[str] = ()) -> tuple[Check, ...]:
    """Return a list of checks, of these kinds if any are given, and then of each at most one."""
    allowed = sorted(kinds)
    if isinstance(value, Check):
        columns = value.params.get("columns")
        arguments = ", ".join(map(repr, columns)) if columns else "..." if value.params else ""
        raise wrong(name, value, "is a check and no list", fix=f"give a list: [ck.{value.kind}({arguments})]")
    example = f"ck.{allowed[0]}()" if allowed else "ck.unique('id')"
    found = listed(value, name, such_as=f"[{example}]")
    for check in found:
        if not isinstance(check, Check):
            raise ProjectError(
                f"{name}= has a check that is missing its arguments or is no check: {show(check)}",
                where=caller(),
                fix=f"such as {example}",
            )
        if allowed and check.kind not in allowed:
            raise ProjectError(
                f"{name}= has {check.name[:_LONGEST]}, and ck.{check.kind} judges no rollout",
                where=caller(),
                fix=f"here go {', '.join(f'ck.{kind}' for kind in allowed)}",
            )
    names = [check.name for check in found]
    if allowed and len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise ProjectError(f"{name}= has the check {twice[:_LONGEST]} twice", where=caller(), fix="keep one")
    return tuple(found)


def _sound(value: str, name: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(name, value, "is half a character, which no file can hold", fix="write it as UTF-8") from error
    return value


def _argument(name: str) -> str:
    return name.rpartition(" ")[2]


def _range(low: float, high: float, inside: bool) -> str:
    if (low, high) == (-_LARGEST, _LARGEST):
        return "a finite number"
    if high == _LARGEST:
        return f"a finite number {'above' if inside else 'of at least'} {low:g}"
    return f"{'' if inside else 'a number '}between {low:g} and {high:g}"


def _example(name: str, low: float, high: float) -> str:
    value = 0.05 if low <= 0.05 <= high else low
    return f"such as {_argument(name)}={value:g}"
