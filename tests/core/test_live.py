"""Endpoints, rollout plans and automations refuse arguments that cannot be meant, with their place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import trimtab as tt
from trimtab import check as ck
from trimtab.core.errors import ProjectError

# Without types: what stands here is wrong on purpose.
TT: Any = tt
DRIFT: Any = ck.drift("api.calls").fails
NAN = float("nan")


@tt.model(label="y")
def served(table: Any) -> Any:
    """Return something that cannot predict."""
    return table


API = tt.endpoint("api", serves=served)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TT.canary(5), "steps=5 is of type [a-zA-Z]+, not a list"),
        (lambda: TT.canary("1"), "steps='1' is of type [a-zA-Z]+, not a list"),
        (lambda: TT.canary(None), "steps=None is of type [a-zA-Z]+, not a list"),
        (lambda: TT.canary(["a", 100]), "steps: a step='a' is not"),
        (lambda: TT.canary([True, 100]), "steps: a step=True"),
        (lambda: TT.canary([NAN, 100]), "steps: a step=nan"),
        (lambda: TT.canary([10**400, 100]), "steps: a step=10000"),
        (lambda: TT.canary([]), r"steps=\[\] do not rise to 100"),
        (lambda: TT.canary([0, 100]), "steps=.*do not rise"),
        (lambda: TT.canary([1, 5]), "steps=.*do not rise"),
        (lambda: TT.canary([5, 5, 100]), "steps=.*do not rise"),
        (lambda: TT.canary([50, 1, 100]), "steps=.*do not rise"),
        (lambda: TT.canary([5, 101]), "steps: a step=101"),
        (lambda: TT.canary(advance="x"), "advance='x' is unknown"),
        (lambda: TT.canary(on_inconclusive="z"), "on_inconclusive='z' is unknown"),
        (lambda: TT.canary(minimum="a"), "minimum='a'"),
        (lambda: TT.canary(minimum=-1), "minimum=-1"),
        (lambda: TT.canary(minimum=1.5), "minimum=1.5"),
        (lambda: TT.canary(minimum=True), "minimum=True"),
        (lambda: TT.canary(margin=-1), "margin=-1 is not a finite number above 0"),
        (lambda: TT.canary(margin=0), "margin=0"),
        (lambda: TT.canary(margin=NAN), "margin=nan"),
        (lambda: TT.canary(margin="a"), "margin='a'"),
        (lambda: TT.canary(alpha="a"), "alpha='a' is not between 0 and 1"),
        (lambda: TT.canary(alpha=0), "alpha=0 is not between 0 and 1"),
        (lambda: TT.canary(alpha=1), "alpha=1 is not between 0 and 1"),
        (lambda: TT.canary(soak=5), "soak=5 is not a duration"),
        (lambda: TT.canary(soak="x" * 500), "soak='x{78}… is not a duration"),
        (lambda: TT.canary(soak=timedelta(-1)), "soak=.*is not longer"),
        (lambda: TT.canary(deadline="0s"), "deadline='0s'"),
        (lambda: TT.canary(judge=ck.errors()), "judge=Check"),
        (lambda: TT.canary(judge=[ck.unique("a")]), r"judge= has unique\(a\), and ck.unique judges no rollout"),
        (lambda: TT.canary(judge=[ck.errors]), "judge= has a check that is missing its arguments"),
        (lambda: TT.canary(judge=[ck.errors(), ck.errors()]), r"judge= has the check errors\(5xx\) twice"),
        (lambda: TT.canary(judge="errors"), "judge='errors' is of type [a-zA-Z]+, not a list"),
        (lambda: TT.blue_green(judge=[5]), "judge= has a check .* is no check: 5"),
        (lambda: TT.blue_green(judge=[ck.drift("a.calls")]), "judge= .*judges no rollout"),
        (lambda: TT.blue_green(watch=5), "watch=5"),
        (lambda: TT.blue_green(alpha=NAN), "alpha=nan"),
        (lambda: TT.endpoint(5, serves=served), "name=5 is of type int, not text"),
        (lambda: TT.endpoint("a b", serves=served), "name='a b' cannot be a name"),
        (lambda: TT.endpoint("", serves=served), "name='' cannot be a name"),
        (lambda: TT.endpoint("e", serves=5), "serves=5 is not a declared asset"),
        (lambda: TT.endpoint("e", serves=""), "serves='' is empty"),
        (lambda: TT.endpoint("e", serves=print), "serves=: 'print' is not a declared asset"),
        (lambda: TT.endpoint("e", serves=served, rollout="x"), "rollout='x' is no plan"),
        (lambda: TT.endpoint("e", serves=served, rollout=""), "rollout='' is no plan"),
        (lambda: TT.endpoint("e", serves=served, rollout=tt.canary), "rollout=<function canary"),
        (lambda: TT.endpoint("e", serves=served, sticky=5), "sticky=5"),
        (lambda: TT.endpoint("e", serves=served, timeout="0s"), "timeout='0s'"),
        (lambda: TT.endpoint("e", serves=served, timeout=5), "timeout=5"),
        (lambda: TT.endpoint("e", serves=served, threads=0), "threads=0"),
        (lambda: TT.endpoint("e", serves=served, threads="2"), "threads='2'"),
        (lambda: TT.endpoint("e", serves=served, salt=None), "salt=None"),
        (lambda: TT.when(5, run=served), "condition=5"),
        (lambda: TT.when(ck.drift("api.calls"), run=served), "condition=Check.*is a Check and no condition"),
        (lambda: TT.when(ck.unique("a").fails, run=served), r"condition='unique\(a\)' starts nothing"),
        (lambda: TT.when(ck.errors().fails, run=served), "condition=.*starts nothing"),
        (lambda: TT.when(DRIFT.check.passes, run=served), "starts nothing: only an alarm does"),
        (lambda: TT.when(DRIFT), "tt.when does nothing"),
        (lambda: TT.when(DRIFT, run=5), "run=5"),
        (lambda: TT.when(DRIFT, run=print), "run=: 'print' is not a declared asset"),
        (lambda: TT.when(DRIFT, run=""), "run='' is empty"),
        (lambda: TT.when(DRIFT, then=5), "then=5"),
        (lambda: TT.when(DRIFT, then="api"), "then='api' is no action"),
        (lambda: TT.when(DRIFT, then=API), "then='api' is an endpoint"),
        (lambda: TT.when(DRIFT, then=served), "then=<function served"),
        (lambda: TT.when(DRIFT, then=[API]), "then=EndpointDeclaration"),
        (lambda: TT.when(DRIFT, run=served, cooldown=5), "cooldown=5"),
        (lambda: TT.when(DRIFT, run=served, limit=4), "limit=4"),
        (lambda: TT.when(DRIFT, run=served, limit="x/30d"), "limit='x/30d'"),
        (lambda: TT.when(DRIFT, run=served, limit="0/30d"), "limit='0/30d'"),
        (lambda: TT.when(DRIFT, run=served, limit="²/30d"), "limit='²/30d'"),
        (lambda: TT.when(DRIFT, run=served, limit="4/0s"), "limit: its length='0s'"),
        (lambda: TT.when(DRIFT, run=served, name=5), "name=5"),
    ],
)
def test_wrong_arguments_are_told_at_their_place(make: Callable[[], Any], says: str) -> None:
    """Each names the argument, its value, the file and what to write instead."""
    with pytest.raises(ProjectError, match=says) as caught:
        make()
    assert "test_live.py:" in caught.value.where and caught.value.fix


def test_a_lone_check_is_told_as_a_list() -> None:
    """Who writes one judge without brackets is shown the brackets."""
    with pytest.raises(ProjectError) as caught:
        TT.canary(judge=ck.errors())
    assert caught.value.fix == "give a list: [ck.errors()]"


def test_good_arguments_pass() -> None:
    """What is on the edge of the refused is taken."""
    plan = tt.canary(range(50, 101, 50), judge=iter([ck.errors()]), minimum=0, soak="0s", margin=1)  # type: ignore[arg-type]
    assert plan.steps == (50.0, 100.0) and [check.kind for check in plan.judge] == ["errors"]
    assert tt.canary(soak=timedelta(minutes=1)).soak == "60.0s"  # type: ignore[arg-type]
    made = tt.when(DRIFT, run="served", then=[API.roll_out, API.roll_back], limit="4/30d")
    assert [action.do for action in made.actions] == ["run", "roll_out", "roll_back"]
