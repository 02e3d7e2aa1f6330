"""Declarations of what is live: endpoints, how new versions take over, and automations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal

from trimtab.core.clock import parse_duration
from trimtab.core.declare import (
    REGISTRY,
    Action,
    AutomationDeclaration,
    EndpointDeclaration,
    Rollout,
    as_data,
    declaration_of,
)
from trimtab.core.errors import ProjectError, TrimtabError
from trimtab.core.nouns import Check, Condition, Data
from trimtab.core.place import caller, caller_place
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
    shares = tuple(float(step) for step in steps)
    rising = all(a < b for a, b in pairwise(shares))
    if not shares or not rising or shares[0] <= 0 or shares[-1] != 100:
        raise ProjectError(
            f"canary steps {list(steps)} do not rise to 100", where=caller(), fix="such as [1, 5, 25, 100]"
        )
    return Rollout(
        kind="canary",
        steps=shares,
        soak=_duration(soak, "soak"),
        minimum=minimum,
        deadline=_duration(deadline, "deadline"),
        alpha=_share(alpha, "alpha"),
        advance=advance,
        margin=margin,
        on_inconclusive=on_inconclusive,
        judge=tuple(judge),
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
        soak=_duration(watch, "watch"),
        minimum=0,
        deadline="3650d",
        alpha=_share(alpha, "alpha"),
        advance="no_harm",
        margin=0.25,
        on_inconclusive="promote",
        judge=tuple(judge),
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
    target = serves if isinstance(serves, str) else declaration_of(serves, where).name
    spec: Data = {
        "rollout": _plain(rollout or canary()),
        "sticky": sticky,
        "timeout": _duration(timeout, "timeout"),
        "threads": threads,
        "salt": salt,
    }
    made = EndpointDeclaration(name=check_name(name, where=where), serves=target, spec=spec, file=file, line=line)
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
    if not isinstance(condition, Condition):
        raise ProjectError(
            f"tt.when takes a condition, not a {type(condition).__name__}",
            where=where,
            fix="write a check and its verdict, such as ck.drift('api.calls').fails",
        )
    actions: list[Action] = []
    if run is not None:
        target = run if isinstance(run, str) else declaration_of(run, where).name
        actions.append(Action(do="run", target=target))
    extra = [then] if isinstance(then, Action) else list(then or ())
    actions.extend(extra)
    if not actions:
        raise ProjectError("tt.when does nothing", where=where, fix="give run= or then=")
    made = AutomationDeclaration(
        name=name or f"{condition.check.name} -> {', '.join(f'{a.do} {a.target}' for a in actions)}",
        when=condition,
        actions=tuple(actions),
        spec={"cooldown": _duration(cooldown, "cooldown"), "limit": _limit(limit, where)},
        file=file,
        line=line,
    )
    REGISTRY.add(made)
    return made


def _duration(text: str | timedelta, name: str) -> str:
    try:
        parse_duration(text)
    except TrimtabError as error:
        raise ProjectError(f"{name}={error.message}", where=caller(), fix=error.fix) from error
    return f"{text.total_seconds()}s" if isinstance(text, timedelta) else text


def _share(value: float, name: str) -> float:
    if not 0 < value < 1:
        raise ProjectError(f"{name}={value!r} is not between 0 and 1", where=caller(), fix=f"{name}=0.05")
    return value


def _limit(text: str, where: str) -> str:
    if text:
        count, _, length = text.partition("/")
        if not count.isdigit() or not length:
            raise ProjectError(f"limit={text!r} has another form", where=where, fix="such as '4/30d'")
        _duration(length, "limit")
    return text


def _plain(rollout: Rollout) -> Data:
    data: Data = {name: getattr(rollout, name) for name in Rollout.__struct_fields__}
    data["steps"] = list(rollout.steps)
    data["judge"] = [as_data(check) for check in rollout.judge]
    return data
