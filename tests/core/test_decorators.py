"""Decorators refuse arguments that cannot be meant, at the declaration and with its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import trimtab as tt
from trimtab import check as ck
from trimtab.core.declare import declaration_of
from trimtab.core.errors import ProjectError
from trimtab.core.options import FORMATS
from trimtab.data import read

# Without types: what stands here is wrong on purpose.
TT: Any = tt
UNIQUE: Any = ck.unique("a")
LONG = "x" * 500


def step(raw: Any) -> Any:
    """Return the input."""
    return raw


async def awaited(raw: Any) -> Any:
    """Return the input, later."""
    return raw


async def awaited_rows(raw: Any) -> AsyncIterator[Any]:
    """Yield the input, later."""
    yield raw


def rows(raw: Any) -> Iterator[Any]:
    """Yield the input."""
    yield raw


def big(raw: Any, depth: int = 10**5000) -> Any:
    """Have a param that no ledger can keep."""
    return raw, depth


def _model(**options: Any) -> Any:
    return TT.model(**{"label": "y", **options})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TT.source(path=5), "path=5 is of type int, not a list"),
        (lambda: TT.source(path=Path("a.csv")), "path=PosixPath"),
        (lambda: TT.source(path=[5]), r"path=\[5\] has 5"),
        (lambda: TT.source(path=""), "path='' has an empty text"),
        (lambda: TT.source(path={"b", "a"}), "path=.* is of type set, not a list"),
        (lambda: TT.source(path="\udc80"), "path=.*half a character"),
        (lambda: TT.source(owner="\udc80"), "owner=.*half a character"),
        (lambda: TT.source(null=5), "null=5"),
        (lambda: TT.source(null=[None]), r"null=\[None\]"),
        (lambda: TT.source(format="xls"), "format='xls' is unknown"),
        (lambda: TT.source(format="CSV"), "format='CSV' is unknown"),
        (lambda: TT.source(format=None), "format=None is unknown"),
        (lambda: TT.source(format=["csv"]), r"format=\['csv'\] is unknown"),
        (lambda: TT.source(layer="gold"), "layer='gold'"),
        (lambda: TT.source(time=5), "time=5"),
        (lambda: TT.source(fresh=5), "fresh=5 is not a duration"),
        (lambda: TT.source(fresh="x"), "fresh='x' is not a duration"),
        (lambda: TT.source(fresh=timedelta(-1)), "fresh=.*is not longer"),
        (lambda: TT.source(owner=None), "owner=None"),
        (lambda: TT.source(checks=UNIQUE), "checks=Check"),
        (lambda: TT.source(checks="unique"), "checks='unique'"),
        (lambda: TT.source("a.csv"), "@tt.source decorates functions, not 'a.csv'"),
        (lambda: TT.table(key=5), "key=5"),
        (lambda: TT.table(key=""), "key=''"),
        (lambda: TT.table(key=["a", ""]), r"key=\['a', ''\]"),
        (lambda: TT.table(key=["a", "a"]), "key=.*has 'a' twice"),
        (lambda: TT.table(key={"a": 1}), "key=.*is of type dict, not a list"),
        (lambda: TT.table(bar=float("nan")), "bar=nan"),
        (lambda: TT.table(bar="x"), "bar='x'"),
        (lambda: TT.table(bar=1.5), "bar=1.5"),
        (lambda: TT.table(bar=True), "bar=True"),
        (lambda: TT.table(layer=5), "layer=5"),
        (lambda: TT.table(checks=5), "checks=5"),
        (lambda: TT.table(checks=["unique"]), "checks=.*'unique'"),
        (lambda: TT.table(checks=None), "checks=None"),
        (lambda: TT.features(entity=5, time="t"), "entity=5"),
        (lambda: TT.features(entity=[], time="t"), r"entity=\[\] names no column"),
        (lambda: TT.features(entity="a", time=None), "time=None"),
        (lambda: TT.model(label=None), "label=None"),
        (lambda: TT.model(label=""), "label='' is empty"),
        (lambda: _model(features=5), "features=5"),
        (lambda: _model(features=[]), r"features=\[\] names no column"),
        (lambda: _model(features=["y"]), r"features=\['y'\] has the label 'y'"),
        (lambda: _model(features=["x", 5]), "features=.*has 5"),
        (lambda: _model(data=5), "data=5"),
        (lambda: _model(group=["a"]), r"group=\['a'\]"),
        (lambda: _model(holdout=5), "holdout=5"),
        (lambda: _model(holdout="x"), "holdout='x'"),
        (lambda: _model(holdout="0d"), "holdout='0d'"),
        (lambda: _model(holdout=float("nan")), "holdout=nan"),
        (lambda: _model(refit="yes"), "refit='yes'"),
        (lambda: _model(seed="x"), "seed='x'"),
        (lambda: _model(seed=10**5000), "seed=<int> is not a whole"),
        (lambda: _model(task="binray"), "task='binray' is unknown; did you mean 'binary'"),
        (lambda: _model(unseen=5), "unseen=5"),
        (lambda: _model(gate=ck.beats(on="auc")), "gate=Check"),
        (lambda: _model(gate=[ck.beats]), "gate=.*missing its arguments"),
        (lambda: TT.table(awaited), "awaited is an async function"),
        (lambda: TT.source(awaited_rows), "awaited_rows is an async function"),
        (lambda: TT.source(rows), "rows is a generator"),
        (lambda: _model()(rows), "rows is a generator"),
        (lambda: TT.table(lambda raw: raw), "'<lambda>' cannot be a name"),
        (lambda: TT.table(big), "param depth="),
    ],
)
def test_wrong_arguments_are_told_at_their_place(make: Callable[[], Any], says: str) -> None:
    """Each names the argument, its value, the file and what to write instead."""
    with pytest.raises(ProjectError, match=says) as caught:
        make()
    assert "test_decorators.py:" in caught.value.where and caught.value.fix


@pytest.mark.parametrize(
    "make",
    [
        lambda: TT.table(layer=LONG),
        lambda: TT.table(key=[LONG, 5]),
        lambda: TT.source(format=LONG),
        lambda: TT.source(checks=LONG),
        lambda: TT.model(label="y", holdout=LONG),
    ],
)
def test_long_values_are_cut(make: Callable[[], Any]) -> None:
    """A value is shown with at most 80 characters."""
    with pytest.raises(ProjectError) as caught:
        make()
    assert "x" * 60 in caught.value.message and "x" * 80 not in caught.value.message


def test_a_lone_check_is_told_as_a_list() -> None:
    """Who writes one check without brackets is shown the brackets."""
    with pytest.raises(ProjectError) as caught:
        TT.table(checks=UNIQUE)
    assert caught.value.fix == "give a list: [ck.unique('a')]"


@pytest.mark.parametrize(
    ("made", "name", "value"),
    [
        (TT.source(null="NA"), "null", ["NA"]),
        (TT.source(null=""), "null", [""]),
        (TT.source(null=("", "NA")), "null", ["", "NA"]),
        (TT.source(path="a.csv"), "path", ["a.csv"]),
        (TT.source(), "path", []),
        (TT.table(key="id"), "key", ["id"]),
        (TT.table(key=iter(["a", "b"])), "key", ["a", "b"]),
        (TT.features(entity="id", time="t"), "key", ["id", "t"]),
        (TT.model(label="y", features="age"), "features", ["age"]),
        (TT.table(bar=1), "bar", 1.0),
        (TT.table(fresh=timedelta(days=1)), "fresh", "86400.0s"),
    ],
)
def test_a_lone_text_stands_for_a_list_of_one(made: Callable[..., Any], name: str, value: Any) -> None:
    """No text is taken apart into its letters; a list stays a list."""

    def one(raw: Any) -> Any:
        return raw

    assert declaration_of(made(one)).spec[name] == value


def test_checks_may_come_from_an_iterator() -> None:
    """What can be read once only is read once only."""
    made = TT.table(checks=(ck.unique(name) for name in ("a", "b")))(step)
    assert [check.name for check in declaration_of(made).checks] == ["unique(a)", "unique(b)"]


def test_the_formats_are_those_that_can_be_read() -> None:
    """The declaration knows the formats of ``data.read``, and no others."""
    assert set(FORMATS) == {"auto", *read.FORMATS.values()}


def test_a_decorator_without_its_options_says_so() -> None:
    """`@tt.model` alone, or without its label, is told with the place and an example, not as Python's own error."""

    def fitted(rows: object) -> object:
        return rows

    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: TT.model(fitted), "has no options"),
        (lambda: TT.model(), "missing a required argument: 'label'"),
        (lambda: TT.features(fitted), "has no options"),
        (lambda: TT.model(label="y", seeds=3), "'seeds'"),
    ]
    for wrong, says in cases:
        with pytest.raises(ProjectError, match=says) as caught:
            wrong()
        assert "test_decorators.py:" in caught.value.where and "such as @tt." in caught.value.fix


def test_a_range_to_search_has_two_ends() -> None:
    """The lower end is below the higher one, and a logarithm needs numbers above zero."""
    cases: list[Callable[[], Any]] = [
        lambda: TT.Int(5, 1), lambda: TT.Int(1, 1), lambda: TT.Int(1.5, 2), lambda: TT.Float(2.0, 1.0),
        lambda: TT.Float(0.0, 1.0, log=True), lambda: TT.Float(float("nan"), 1.0),
    ]  # fmt: skip
    for wrong in cases:
        with pytest.raises(ProjectError):
            wrong()
    assert TT.Float(1e-3, 1.0, log=True).low == 1e-3 and TT.Int(1, 5).high == 5
