"""What an execution says: events while it runs, and a report of each stage at its end."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from trimtab.core.nouns import Data, Verdict

EventKind = Literal["started", "progress", "log", "finished"]
StageState = Literal["done", "reused", "failed", "blocked", "cancelled"]
_EXITS = {"Refused": 1, "GateFailed": 1, "StaleInput": 1}
_WRONG_USE = ("WrongUse", "ProjectError", "NotFound", "BadInput", "BadSource", "MissingExtra")


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened to a stage, for a display of progress.

    Attributes:
        kind: ``started``, ``progress`` (a metric was logged), ``log`` (text was printed) or ``finished``.
        text: one line for a person; of a ``log`` event the text as printed.
        data: of a ``progress`` event ``{name, step, value}``, of a ``finished`` event ``{state, seconds}``.
    """

    kind: EventKind
    stage: str
    text: str = ""
    data: Data = field(default_factory=dict)


class StageReport(Struct, frozen=True, kw_only=True):
    """How one stage of a plan ended.

    Attributes:
        version: the version that was made or reused, such as ``flights:3``, or empty.
        seconds: real time from its start to its end.
        error: ``{type, message, where, fix, ...}`` of what failed or blocked it, or empty.
        run_id: the run that was recorded, or empty for a reused or blocked stage.
    """

    id: str
    op: str
    asset: str
    state: StageState
    version: str = ""
    seconds: float = 0.0
    verdicts: list[Verdict] = field(default_factory=list)
    error: Data = field(default_factory=dict)
    run_id: str = ""
    reason: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """How an execution ended.

    Attributes:
        ok: every stage is done or reused, and no gate said no.
        exit_code: 0 done, 1 a verdict failed, 2 wrong use (such as a broken source file), 3 a fault.
    """

    plan: str
    stages: list[StageReport]
    ok: bool
    exit_code: int


def make_report(plan: str, stages: list[StageReport]) -> Report:
    """Return the report over stages; the gravest of their errors decides the exit code."""
    codes = [exit_of(stage.error) for stage in stages if stage.error and stage.state != "blocked"]
    codes += [3 for stage in stages if stage.state == "cancelled"]
    worst = max(codes, default=0)
    return Report(plan=plan, stages=stages, ok=worst == 0, exit_code=worst)


def exit_of(error: Data) -> int:
    """Return the exit code of an error that is told as data."""
    kind = str(error.get("type", ""))
    return _EXITS.get(kind, 2 if kind in _WRONG_USE else 3)
