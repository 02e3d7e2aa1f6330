"""Calling the model's function, and what it may return."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import trimtab as tt
from tests.train.conftest import Room, good, rows
from trimtab.core.errors import BadInput, StepFailed, TrimtabError
from trimtab.train.fit import Fitted, fit, own_modules, task_of
from trimtab.train.split import cut, labelled


def _declared(returns: Callable[[pl.DataFrame], Any], **spec: Any) -> Any:
    def late(flown: pl.DataFrame) -> Any:
        return returns(flown)

    return tt.model(label="y", **spec)(late)


def _fit(room: Room, returns: Callable[[pl.DataFrame], Any], **spec: Any) -> Fitted:
    context = room.context(_declared(returns, **spec))
    data = labelled(context)
    parts = cut(data, context.declaration.spec["holdout"])
    return fit(context, data, parts.train, parts.until)


def _plain(frame: pl.DataFrame) -> Any:
    return LogisticRegression().fit(frame.select("x0", "id").to_numpy(), frame["y"].to_numpy())


@pytest.mark.parametrize(
    ("returns", "says"),
    [
        (lambda frame: None, "late returned nothing, which cannot predict"),
        (lambda frame: (1, 2), "late returned a tuple"),
        (lambda frame: LogisticRegression, "late returned the class LogisticRegression"),
        (lambda frame: LogisticRegression(), "a LogisticRegression that is not fitted"),
        (lambda frame: make_pipeline(StandardScaler(), LogisticRegression()), "a Pipeline that is not fitted"),
        (lambda frame: StandardScaler().fit(frame.select("x0").to_numpy()), "a StandardScaler, which cannot predict"),
    ],
)
def test_what_cannot_predict_is_named(room: Room, returns: Callable[[pl.DataFrame], Any], says: str) -> None:
    """Anything but a fitted estimator or a Predictor is refused with what it is and what to return."""
    with pytest.raises(StepFailed, match=says) as caught:
        _fit(room, returns)
    assert caught.value.fix and "test_fit.py" in caught.value.where


def test_features_are_what_the_estimator_was_fitted_on(room: Room) -> None:
    """An estimator that names its columns tells the order of a request's columns."""
    found = _fit(room, lambda frame: LogisticRegression().fit(frame.select("x0", "id").to_pandas(), frame["y"]))
    assert found.features == ["x0", "id"] and found.seconds > 0


def test_features_default_to_all_that_is_neither_label_nor_key_nor_time(room: Room) -> None:
    """An estimator without names is asked with every other column, or with the declared ones."""
    room.give("flown", rows().drop("x1", "c").with_columns(x2=1.0, _batch=1, day=pl.col("at").dt.date()))
    wide = lambda frame: LogisticRegression().fit(frame.select("x0", "x2").to_numpy(), frame["y"])  # noqa: E731
    assert _fit(room, wide, group="day").features == ["x0", "x2"]
    assert _fit(room, _plain, features=["x0", "id"]).features == ["x0", "id"]


@pytest.mark.parametrize(
    ("returns", "spec", "says"),
    [
        (_plain, {}, r"fitted on 2 columns, and a request would bring 3: x0, x1, c"),
        (_plain, {"features": ["x0", "idd"]}, "the feature 'idd' is not a column of flown; did you mean 'id'"),
        (
            lambda frame: LogisticRegression().fit(frame.select("x0", "y").to_pandas(), frame["y"]),
            {},
            "the label 'y' is among the features",
        ),
        (
            lambda frame: LogisticRegression().fit(frame.select("x0").to_pandas(), frame["y"]),
            {"features": ["x0", "x1"]},
            r"features=\[...\] has 'x1', and the estimator was not fitted on it",
        ),
        (
            lambda frame: LogisticRegression().fit(frame.select("x0", z=pl.col("id")).to_pandas(), frame["y"]),
            {},
            "the feature 'z' is not a column of flown",
        ),
    ],
)
def test_features_that_do_not_fit_are_told(
    room: Room, returns: Callable[[pl.DataFrame], Any], spec: dict[str, Any], says: str
) -> None:
    """A request that could not be answered later is told when the model is made."""
    with pytest.raises(TrimtabError, match=says):
        _fit(room, returns, **spec)


def test_the_function_starts_from_its_seed(room: Room) -> None:
    """Whatever ran before, the global generators stand where the seed puts them."""
    drawn = []

    def draw(frame: pl.DataFrame) -> Any:
        drawn.append((random.random(), float(np.random.random())))
        return _plain(frame)

    for seed in (7, 7, 8):
        _fit(room, draw, features=["x0", "id"], seed=seed)
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_the_function_raises_stays_its_own(room: Room) -> None:
    """An error of the user's code is not dressed up: the worker tells it with its place."""

    def broken(frame: pl.DataFrame) -> Any:
        raise ZeroDivisionError("by hand")

    with pytest.raises(ZeroDivisionError, match="by hand"):
        _fit(room, broken)


def test_a_declared_function_is_still_called_by_a_test() -> None:
    """The decorated function takes frames and returns the model, without any run."""
    assert good()(rows(5)).predict(rows(1).to_pandas()).shape == (24,)


@pytest.mark.parametrize(
    ("values", "task", "wanted"),
    [
        ([True, False, True], "auto", {"task": "binary", "classes": [False, True], "positive": True}),
        (["no", "yes", "no"], "auto", {"task": "binary", "classes": ["no", "yes"], "positive": "yes"}),
        ([1, 2, 1], "auto", {"task": "binary", "classes": [1, 2], "positive": 2}),
        ([0.0, 1.0], "binary", {"task": "binary", "classes": [0.0, 1.0], "positive": 1.0}),
        (["a", "b", "c"], "auto", {"task": "multiclass", "classes": ["a", "b", "c"], "positive": None}),
        (["a", "b"], "multiclass", {"task": "multiclass", "classes": ["a", "b"], "positive": None}),
        ([1.5, 2.5], "auto", {"task": "regression", "classes": None, "positive": None}),
        (list(range(30)), "auto", {"task": "regression", "classes": None, "positive": None}),
        ([1, 2], "regression", {"task": "regression", "classes": None, "positive": None}),
    ],
)
def test_the_task_follows_from_the_label(room: Room, values: list[Any], task: str, wanted: dict[str, Any]) -> None:
    """Two values are binary, texts and few whole numbers are classes, anything else is a number."""
    room.give("flown", pl.DataFrame({"y": values}))
    context = room.context(_declared(_plain, task=task))
    data = labelled(context)
    assert task_of(context, data, data.frame) == wanted


@pytest.mark.parametrize(
    ("values", "task", "says"),
    [
        ([True, True], "auto", r"one class: \[True\]"),
        (["a", "b", "c"], "binary", "3 classes"),
        (["a", "b"], "regression", "no number"),
        ([[1], [2]], "auto", "List"),
    ],
)
def test_a_label_that_does_not_suit_is_refused(room: Room, values: list[Any], task: str, says: str) -> None:
    """One class, a text to regress on, or three classes of a binary task are errors."""
    room.give("flown", pl.DataFrame({"y": values}))
    context = room.context(_declared(_plain, task=task))
    data = labelled(context)
    with pytest.raises(BadInput, match=says):
        task_of(context, data, data.frame)


def test_training_rows_of_one_class_are_told(room: Room) -> None:
    """A class that only the held-back rows have cannot be learned."""
    room.give("flown", pl.DataFrame({"y": [False, False, True]}))
    context = room.context(_declared(_plain))
    data = labelled(context)
    with pytest.raises(BadInput, match=r"one class in the rows to train on: \[False\]"):
        task_of(context, data, data.frame.head(2))


def test_own_modules_are_those_beside_the_function(room: Room) -> None:
    """Modules of installed packages are not the project's."""
    found = own_modules(room.context(good()))
    assert __name__ in found and "tests.train.conftest" in found
    assert not {"numpy", "sklearn", "json", "__main__"} & found
