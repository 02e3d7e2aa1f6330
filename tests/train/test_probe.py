"""How a fitted model wants to be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tests.train.conftest import FEATURES, pipeline, rows
from tests.train.models import Fixed, Tally
from trimtab.core.errors import StepFailed
from trimtab.core.nouns import Data
from trimtab.train.probe import probe
from trimtab.train.signature import columns_from, signature_of

FRAME = rows(10)
TRUTH = FRAME["y"].to_numpy()
NUMBERS = FRAME.select("x0", "id").to_numpy()


def _probe(model: Any, names: list[str], given: str = "polars", task: str = "binary", classes: Any = None) -> Data:
    classes = classes or [False, True]
    meta: Data = {"task": task, "signature": signature_of(FRAME, names, "refuse")}
    meta |= {"classes": None if task == "regression" else classes, "positive": classes[1] if task == "binary" else None}
    return probe(model, meta, columns_from(FRAME.head(50), meta["signature"]), given)


@pytest.mark.parametrize("given", ["polars", "pandas"])
def test_of_two_frames_the_cheaper_one_is_taken(given: str) -> None:
    """A pipeline that was fitted on named columns gets Polars frames when these give the same answers."""
    frame: Any = FRAME.select(FEATURES)
    model = pipeline().fit(frame if given == "polars" else frame.to_pandas(), TRUTH)
    assert _probe(model, FEATURES, given) == {
        "container": "polars",
        "missing_text": "none" if given == "polars" else "nan",
        "answer": "argmax",
    }


class _Choosy(LogisticRegression):  # type: ignore[misc]
    """Takes one kind of frame only, or answers differently."""

    def __init__(self, kind: str = "pandas", bias: float = 0.0) -> None:
        super().__init__()
        self.kind = kind
        self.bias = bias

    def predict_proba(self, X: Any) -> Any:
        own = type(X).__module__.startswith(self.kind)
        if not own and not self.bias:
            raise TypeError(f"it takes {self.kind} frames only")
        found = super().predict_proba(X)
        return found if own else np.clip(np.add(found, [self.bias, -self.bias]), 0, 1)


@pytest.mark.parametrize("bias", [0.0, 0.01])
@pytest.mark.parametrize("given", ["polars", "pandas"])
def test_the_frame_that_training_had_decides(given: str, bias: float) -> None:
    """A model that fails on the cheaper frame, or answers otherwise there, gets the one that its function got."""
    frame: Any = FRAME.select("x0", "id")
    kind = "pandas" if given == "pandas" else "polars"
    model = _Choosy(kind, bias).fit(frame.to_pandas(), TRUTH)
    assert _probe(model, ["x0", "id"], given)["container"] == kind


def test_a_model_that_takes_no_frame_says_why() -> None:
    """The error of the model itself is in the message."""
    model = _Choosy("xarray").fit(FRAME.select("x0", "id").to_pandas(), TRUTH)
    with pytest.raises(StepFailed, match="TypeError: it takes xarray frames only"):
        _probe(model, ["x0", "id"])


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (LogisticRegression(), "argmax"),
        (make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=5)), "argmax"),
        (FixedThresholdClassifier(LogisticRegression(), threshold=0.3), "both"),
        (make_pipeline(StandardScaler(), FixedThresholdClassifier(LogisticRegression(), threshold=0.3)), "both"),
        (GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2), "argmax"),
        (RidgeClassifier(), "label"),
        (SVC(), "label"),
    ],
)
def test_a_prediction_of_its_own_is_asked_for(model: Any, answer: str) -> None:
    """Where the most probable class is not always what the model predicts, it is asked for both."""
    found = _probe(model.fit(NUMBERS, TRUTH), ["x0", "id"])
    assert found == {"container": "numpy", "missing_text": "none", "answer": answer}


def test_a_threshold_that_the_model_hides_shows_in_its_answers() -> None:
    """A model whose predictions differ from its most probable classes on the rows asked is asked for both."""
    model = _Eager().fit(NUMBERS, TRUTH)
    assert _probe(model, ["x0", "id"])["answer"] == "both"


class _Eager(LogisticRegression):  # type: ignore[misc]
    def predict(self, X: Any) -> Any:
        return self.predict_proba(X)[:, 1] > 0.3


@pytest.mark.parametrize(
    ("model", "task", "classes", "answer"),
    [
        (Tally({"a": 0.1}, 0.5), "binary", [False, True], "probability"),
        (Fixed([0, 1], "cycle"), "binary", ["no", "yes"], "probability"),
        (Fixed([0, 1], "cycle"), "binary", [0, 1], "label"),
        (Fixed([1, 2], "cycle"), "binary", [1, 2], "label"),
        (Fixed([1.0, 0.0], "cycle"), "binary", [0, 1], "probability"),
        (Fixed("yes"), "binary", ["no", "yes"], "label"),
        (Fixed("b"), "multiclass", ["a", "b", "c"], "label"),
        (Fixed(17.5), "regression", None, "number"),
    ],
)
def test_what_a_predictor_means_is_settled_once(model: Any, task: str, classes: Any, answer: str) -> None:
    """Whether numbers are probabilities or labels is decided on many rows, not anew for each request."""
    found = _probe(model, FEATURES, task=task, classes=classes)
    assert found == {"container": "columns", "missing_text": "none", "answer": answer}


@pytest.mark.parametrize(
    ("model", "task", "says"),
    [
        (Fixed(1.5), "binary", "1.5, which is no class of the label"),
        (Fixed("x"), "multiclass", "'x', which is no class of the label"),
        (Fixed(0.5, "few"), "binary", "wrong shape: 50 rows expected, got 49"),
        (Fixed({"c": 1}, "cycle"), "binary", "KeyError"),
    ],
)
def test_a_predictor_that_answers_nonsense_is_told(model: Any, task: str, says: str) -> None:
    """What is neither class nor probability, or no answer at all, fails when the model is made."""
    with pytest.raises(StepFailed, match=says):
        _probe(model, FEATURES, task=task, classes=["a", "b"])


def test_a_regression_is_a_number() -> None:
    """An estimator of numbers has no classes."""
    model = LinearRegression().fit(NUMBERS, FRAME["x1"].fill_null(0.0).to_numpy())
    assert _probe(model, ["x0", "id"], task="regression")["answer"] == "number"


def test_a_model_fitted_on_an_array_is_asked_with_one() -> None:
    """Without column names texts stand in an array of objects."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    encode = ColumnTransformer([("c", OneHotEncoder(), [1])], remainder="passthrough")
    model = make_pipeline(encode, LogisticRegression()).fit(FRAME.select("x0", "c").to_numpy(), TRUTH)
    assert _probe(model, ["x0", "c"])["container"] == "numpy"
    broken = LogisticRegression().fit(NUMBERS, TRUTH)
    with pytest.raises(StepFailed, match=r"failed on rows that it was not fitted on: ValueError: could not convert"):
        _probe(broken, ["x0", "c"])


def test_polars_frames_are_what_polars_gave() -> None:
    """The rows that are asked with look to the model as the training rows did."""
    seen: list[Any] = []

    class Spy(LogisticRegression):  # type: ignore[misc]
        def predict_proba(self, X: Any) -> Any:
            seen.append(X)
            return super().predict_proba(X)

    frame = FRAME.select("x0", "id")
    _probe(Spy().fit(frame, TRUTH), ["x0", "id"])
    assert any(isinstance(one, pl.DataFrame) and one.schema == frame.schema for one in seen)
