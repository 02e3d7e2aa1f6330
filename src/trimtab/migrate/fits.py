"""What does not fit the limits that clients of this store's own server have: named, left out, never cut."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trimtab.api.mlflow import limits
from trimtab.api.mlflow.wire import MlflowError
from trimtab.migrate.report import Report
from trimtab.store.points import Point

_RUN = re.compile(r"[0-9a-f]{32}")
_MODEL = re.compile(r"m-[0-9a-f]{32}")
_LATEST = 253_402_300_799_999


def fitting(report: Report, owner: str, kind: str, items: Mapping[str, str], longest: int) -> dict[str, str]:
    """Return the params or tags that fit, and tell of the others.

    Args:
        report: hears of them.
        owner: whose they are.
        kind: what they are.
        items: name -> value.
        longest: how long a value may be.
    """
    kept = {}
    for name, value in items.items():
        try:
            limits.check_name(name, "name")
            limits.check_length("name", limits.KEY, name)
            limits.check_length("value", longest, value)
            if "\0" in value:
                raise MlflowError("it contains a character of code 0")
            kept[name] = value
        except MlflowError as error:
            report.tell("refused", kind, f"{owner} {name[:100]}", str(error))
    return kept


class Measured:
    """Lets points through whose metric has a name that fits, and tells of the others once."""

    def __init__(self, report: Report, owner: str) -> None:
        self._report = report
        self._owner = owner
        self._known: dict[str, bool] = {}

    def fitting(self, points: Sequence[Point]) -> Sequence[Point]:
        """Return the points that fit."""
        return [point for point in points if self._fits(point.name)]

    def _fits(self, name: str) -> bool:
        if name not in self._known:
            self._known[name] = bool(fitting(self._report, self._owner, "metric", {name: ""}, 0))
        return self._known[name]


def why_not(ident: str, kind: str, *times: int | None) -> str:
    """Return why a run or model cannot be kept here, or an empty text."""
    pattern = _RUN if kind == "run" else _MODEL
    if not pattern.fullmatch(ident):
        return f"its id is not {pattern.pattern}"
    for at in times:
        if at is not None and not 0 <= at <= _LATEST:
            return f"{at} is not a time in milliseconds that a calendar has"
    return ""
