"""Declarations: functions stay callable, and mistakes are told with file and line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import trimtab as tt
from trimtab import check as ck
from trimtab.core.declare import (
    REGISTRY,
    AutomationDeclaration,
    as_data,
    check_from,
    declaration_of,
)
from trimtab.core.errors import ProjectError

if TYPE_CHECKING:
    import polars as pl


@tt.table(layer="silver", key="id", checks=[ck.unique("id")])
def clean(raw: Any, limit: int = 3) -> Any:
    """Clean rows."""
    return [raw, limit]


def test_decorated_functions_stay_callable() -> None:
    """A decorated function is the function itself."""
    assert clean("x", limit=1) == ["x", 1]
    made = declaration_of(clean)
    assert (made.kind, made.name, made.inputs, made.params) == ("table", "clean", ("raw",), {"limit": 3})
    assert made.doc == "Clean rows." and ":" in made.where


def test_annotations_name_the_frame() -> None:
    """The frame that an input wants is known from its annotation."""

    @tt.features(entity="route", time="hour", fresh="1h")
    def delays(flights: pl.LazyFrame) -> Any:
        return flights

    assert declaration_of(delays).frames == {"flights": "pl.LazyFrame"}


def test_endpoint_and_automation_are_recorded() -> None:
    """An endpoint and an automation refer to declared functions."""

    @tt.model(label="late", gate=[ck.metric("auc", above=0.7)])
    def late(table: Any, depth: int = 6) -> Any:
        return table, depth

    api = tt.endpoint("late_api", serves=late, rollout=tt.canary([1, 100], judge=[ck.errors()]))
    rule = tt.when(ck.drift("late_api.calls").fails, run=late, then=api.roll_out, cooldown="7d")
    assert api.serves == "late" and api.spec["rollout"]["steps"] == [1.0, 100.0]
    assert [action.do for action in rule.actions] == ["run", "roll_out"]
    assert isinstance(REGISTRY.declared[-1], AutomationDeclaration)


def _wrong_layer() -> None:
    tt.table(layer="sliver")(_star)  # type: ignore[call-overload]


def _wrong_default() -> None:
    def step(raw: Any, depth: int = "six") -> Any:  # type: ignore[assignment]
        return raw, depth

    tt.table(step)


def _star() -> None:
    def step(*raw: Any) -> Any:
        return raw

    tt.table(step)


def _object_param() -> None:
    def step(raw: Any, thing: Any = object()) -> Any:
        return raw, thing

    tt.table(step)


def _bad_fresh() -> None:
    tt.table(fresh="soon")(clean)


def _bad_steps() -> None:
    tt.canary([50, 10])


def _not_declared() -> None:
    tt.endpoint("e", serves=print)


def _not_a_check() -> None:
    tt.table(checks=[ck.unique])(clean)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_wrong_layer, "did you mean 'silver'"),
        (_wrong_default, "param depth is annotated int and its default is 'six'"),
        (_star, "cannot be wired by name"),
        (_object_param, "param thing"),
        (_bad_fresh, "'soon' is not a duration"),
        (_bad_steps, "do not rise to 100"),
        (_not_declared, "not a declared asset"),
        (_not_a_check, "is no check"),
    ],
)
def test_mistakes_are_told_with_their_place(make: Callable[[], None], says: str) -> None:
    """Each mistake names the file, the line and what would work."""
    with pytest.raises(ProjectError, match=says) as caught:
        make()
    assert "test_declare.py:" in caught.value.where


def test_checks_survive_their_plain_form() -> None:
    """A check written as data is the same check."""
    check = ck.between("delay", 0, 10, at_most=0.01)
    assert check_from(as_data(check)) == check
