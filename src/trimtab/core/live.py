"""Declarations of what is live: endpoints, how new versions take over, and automations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

from trimtab.core import options
from trimtab.core.declare import (
    REGISTRY,
    Action,
    AutomationDeclaration,
    EndpointDeclaration,
    Rollout,
    as_data,
    declaration_of,
)
from trimtab.core.errors import ProjectError, WrongUse
from trimtab.core.nouns import Check, Condition, Data
from trimtab.core.place import caller_place
from trimtab.core.ref import check_name


def canary(
    steps: Sequence[float] = (1, 5, 25, 100),
    *,
    judge: Sequence[Check] = (),
    soak: str = "10m",
    minimum: int = 50,
    deadline: str = "30d",
    alpha: float = 0.05,
    advance: Literal["no_harm", "proven"] = "no_harm",
    margin: float = 0.25,
    on_inconclusive: Literal["pause", "rollback", "promote"] = "pause",
) -> Rollout:
    """Return a plan that raises a new deployment's share step by step while a judge watches.

    Args:
        steps: percent of traffic, rising, ending at 100.
        judge: checks such as ``ck.errors()`` and ``ck.latency("1s")``; without any, errors are judged.
        soak: the least event time that a step lasts.
        minimum: the least number of requests that the new deployment answers in a step.
        deadline: after this event time in one step without a decision the step is inconclusive.
        alpha: the chance of rolling back a version that is no worse, over the whole rollout.
        advance: ``no_harm`` ends a step without evidence of harm; ``proven`` needs non-inferiority.
        margin: the risk ratio that ``proven`` must rule out is ``1 + margin``.
        on_inconclusive: what happens at the deadline.
    """
    options.option(advance, "advance", ("no_harm", "proven"))
    options.option(on_inconclusive, "on_inconclusive", ("pause", "rollback", "promote"))
    return Rollout(
        kind="canary",
        steps=_steps(steps),
        soak=options.duration(soak, "soak"),
        minimum=options.whole(minimum, "minimum", low=0),
        deadline=options.duration(deadline, "deadline", positive=True),
        alpha=options.number(alpha, "alpha", low=0, high=1, inside=True),
        advance=advance,
        margin=options.number(margin, "margin", low=0, inside=True),
        on_inconclusive=on_inconclusive,
        judge=options.checks_of(judge, "judge", kinds=options.ROLLOUT_KINDS),
    )


def blue_green(*, judge: Sequence[Check] = (), watch: str = "10m", alpha: float = 0.05) -> Rollout:
    """Return a plan that switches all traffic at once when the new deployment is ready.

    Args:
        judge: checks that watch the new deployment after the switch.
        watch: the event time for which the old deployment is kept warm and the judge may switch back.
        alpha: the chance of switching back from a version that is no worse.
    """
    return Rollout(
        kind="blue_green",
        steps=(100.0,),
        soak=options.duration(watch, "watch"),
        minimum=0,
        deadline="3650d",
        alpha=options.number(alpha, "alpha", low=0, high=1, inside=True),
        advance="no_harm",
        margin=0.25,
        on_inconclusive="promote",
        judge=options.checks_of(judge, "judge", kinds=options.ROLLOUT_KINDS),
    )


def endpoint(
    name: str,
    *,
    serves: Callable[..., Any] | str,
    rollout: Rollout | None = None,
    sticky: str = "",
    timeout: str = "30s",
    threads: int = 1,
    salt: str = "",
) -> EndpointDeclaration:
    """Declare an endpoint; ``trimtab apply`` makes it live.

    Args:
        name: its name in the URL and in references; it owns ``NAME.calls`` and ``NAME.labels``.
        serves: the model function, or its name.
        rollout: how a new version takes over; by default a canary of 1, 5, 25, 100 %.
        sticky: the request header whose value keeps a caller on one deployment; by default each
            request is drawn by itself.
        timeout: after this (real) time a request is answered with 504.
        threads: compute threads for one worker.
        salt: of the split of traffic; give one only where runs must repeat each other, as in a replay.
    """
    file, line = caller_place()
    where = f"{file}:{line}"
    called = _name(name, where)
    target = _target(serves, "serves", where)
    if rollout is not None and not isinstance(rollout, Rollout):
        raise options.wrong("rollout", rollout, "is no plan", fix="rollout=tt.canary(...) or tt.blue_green(...)")
    spec: Data = {
        "rollout": _plain(canary() if rollout is None else rollout),
        "sticky": options.text(sticky, "sticky"),
        "timeout": options.duration(timeout, "timeout", positive=True),
        "threads": options.whole(threads, "threads", low=1),
        "salt": options.text(salt, "salt"),
    }
    made = EndpointDeclaration(name=called, serves=target, spec=spec, file=file, line=line)
    REGISTRY.add(made)
    return made


def when(
    condition: Condition,
    *,
    run: Callable[..., Any] | str | None = None,
    then: Action | Sequence[Action] | None = None,
    cooldown: str = "0s",
    limit: str = "",
    name: str = "",
) -> AutomationDeclaration:
    """Declare an automation: when ``condition`` comes true, run an asset, then act.

    Args:
        condition: such as ``ck.drift("api.calls", false_alarms="1/year").fails``.
        run: the asset to run first.
        then: what follows when that run's gate passed, such as ``api.roll_out``.
        cooldown: the least event time between two firings.
        limit: the most firings in a length of event time, such as ``4/30d``; empty means no limit.
        name: by default made from the condition and the actions.
    """
    file, line = caller_place()
    where = f"{file}:{line}"
    _check_condition(condition)
    actions = [] if run is None else [Action(do="run", target=_target(run, "run", where))]
    actions += _actions(then)
    if not actions:
        raise ProjectError("tt.when does nothing", where=where, fix="give run= or then=")
    made = AutomationDeclaration(
        name=options.text(name, "name")
        or f"{condition.check.name} -> {', '.join(f'{a.do} {a.target}' for a in actions)}",
        when=condition,
        actions=tuple(actions),
        spec={"cooldown": options.duration(cooldown, "cooldown"), "limit": _limit(limit)},
        file=file,
        line=line,
    )
    REGISTRY.add(made)
    return made


def _steps(steps: Any) -> tuple[float, ...]:
    such_as = "[1, 5, 25, 100]"
    shares = [
        options.number(step, "steps: a step", high=100) for step in options.listed(steps, "steps", such_as=such_as)
    ]
    rising = all(a < b for a, b in pairwise(shares))
    if not shares or not rising or shares[0] <= 0 or shares[-1] != 100:
        raise options.wrong("steps", steps, "do not rise to 100", fix=f"such as {such_as}")
    return tuple(shares)


def _name(name: Any, where: str) -> str:
    try:
        return check_name(options.text(name, "name"))
    except ProjectError:
        raise
    except WrongUse as error:
        raise ProjectError(f"name={error.message}", where=where, fix=error.fix) from error


def _target(value: Any, name: str, where: str) -> str:
    if isinstance(value, str):
        return options.text(value, name, empty=False)
    if not callable(value):
        raise options.wrong(name, value, "is not a declared asset", fix="give the function, or its name")
    try:
        return declaration_of(value, where).name
    except ProjectError as error:
        raise ProjectError(f"{name}=: {error.message}", where=where, fix=error.fix) from error


def _check_condition(condition: Any) -> None:
    such_as = "such as ck.drift('api.calls').fails or ck.performance('api').fails"
    if not isinstance(condition, Condition):
        kind = type(condition).__name__
        raise options.wrong(
            "condition", condition, f"is a {kind} and no condition", fix=f"a check's verdict, {such_as}"
        )
    if condition.check.kind not in options.MONITOR_KINDS:
        raise options.wrong(
            "condition",
            condition.check.name,
            f"starts nothing: nobody watches ck.{condition.check.kind} while an endpoint is live",
            fix=f"wait for a check that watches an endpoint, {such_as}",
        )
    if condition.status != "fail":
        told = f"{condition.check.name} {condition.status}"
        raise options.wrong("condition", told, "starts nothing: only an alarm does", fix=f"wait for .fails, {such_as}")


def _actions(then: Any) -> list[Action]:
    if then is None or isinstance(then, Action):
        return [] if then is None else [then]
    fix = "an endpoint's action, such as api.roll_out, or a list of them"
    if isinstance(then, EndpointDeclaration):
        raise options.wrong("then", then.name, "is an endpoint and no action", fix=f"such as {then.name}.roll_out")
    if isinstance(then, str) or callable(then):
        raise options.wrong("then", then, "is no action", fix=f"give {fix}; an asset goes to run=")
    found = options.listed(then, "then", such_as="[api.roll_out]")
    for action in found:
        if not isinstance(action, Action):
            raise options.wrong("then", action, "is no action", fix=f"give {fix}")
    return found


def _limit(limit: Any) -> str:
    if options.text(limit, "limit"):
        count, _, length = limit.partition("/")
        if not (count.isascii() and count.isdecimal() and int(count[:9]) > 0) or not length:
            raise options.wrong("limit", limit, "is not a number of firings in a length of time", fix="such as '4/30d'")
        options.duration(length, "limit: its length", positive=True)
    return str(limit)


def _plain(rollout: Rollout) -> Data:
    data: Data = {name: getattr(rollout, name) for name in Rollout.__struct_fields__}
    data["steps"] = list(rollout.steps)
    data["judge"] = [as_data(check) for check in rollout.judge]
    return data
