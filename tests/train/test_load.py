"""Scorers: what goes into a model, what may come out, and which files are read at all."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from tests.train.models import Fixed, Tally
from trimtab.core.digest import digest_bytes
from trimtab.core.errors import Corrupt, Refused, StepFailed
from trimtab.core.nouns import Data
from trimtab.train.load import frame_maker, load_model, plain_list, wrap

INPUTS: list[Data] = [
    {"name": "x", "type": "number"},
    {"name": "n", "type": "integer"},
    {"name": "c", "type": "string"},
    {"name": "b", "type": "boolean"},
]
COLUMNS: dict[str, list[Any]] = {"x": [1.5, None], "n": [1, 2], "c": ["a", None], "b": [True, False]}


def _meta(task: str, answer: str, classes: list[Any] | None = None, **more: Any) -> Data:
    inputs = [{"name": name, "type": "number"} for name in ("x0", "x1")]
    found: Data = {"task": task, "classes": classes, "answer": answer, "container": "numpy"}
    found |= {"signature": {"inputs": inputs}, "positive": classes[1] if task == "binary" and classes else None}
    return {**found, **more}


def _logistic(labels: list[Any]) -> Any:
    random = np.random.Generator(np.random.PCG64(0))
    return LogisticRegression().fit(random.normal(size=(len(labels), 2)), np.array(labels))


def _own(model: Any, task: str, answer: str, classes: list[Any] | None = None) -> Data:
    meta = _meta(task, answer, classes, container="columns")
    return wrap(model, meta).predict({"x0": [1.0, 2.0, 3.0], "x1": [1.0, 2.0, 3.0], "c": ["a", "b", "z"]})


def test_polars_frames_have_the_signatures_types() -> None:
    """A row of nothing but nulls still has typed columns."""
    frame = frame_maker("polars", INPUTS, "none")({name: [None] for name in COLUMNS})
    assert isinstance(frame, pl.DataFrame)
    assert list(frame.schema.values()) == [pl.Float64, pl.Int64, pl.String, pl.Boolean]


def test_pandas_frames_have_the_types_that_training_had() -> None:
    """Numbers are floats, texts are texts with NaN for missing ones, booleans are booleans."""
    frame = frame_maker("pandas", INPUTS, "nan")(COLUMNS)
    given = pd.DataFrame({"x": [1.5, None], "n": [1.0, 2.0], "c": ["a", None], "b": [True, False]})
    pd.testing.assert_frame_equal(frame, given)
    alone = frame_maker("pandas", INPUTS, "nan")({name: [None] for name in COLUMNS})
    assert alone.dtypes["c"] == given.dtypes["c"] and alone.dtypes["x"] == np.float64


def test_arrays_are_of_floats_where_all_inputs_are_numbers() -> None:
    """Missing numbers are NaN; a text among the inputs makes the array one of objects."""
    numbers = frame_maker("numpy", [INPUTS[0], INPUTS[1], INPUTS[3]], "none")(COLUMNS)
    assert numbers.dtype == np.float64 and numbers.shape == (2, 3) and math.isnan(numbers[1, 0])
    for missing in ("none", "nan"):
        objects = frame_maker("numpy", INPUTS, missing)(COLUMNS)
        assert objects.dtype == object and objects.shape == (2, 4) and math.isnan(objects[1, 0])
        assert objects[1, 2] is None if missing == "none" else math.isnan(objects[1, 2])


def test_predictions_are_the_labels_own_values() -> None:
    """A model that was fitted on 0 and 1 answers True and False where the label column does."""
    columns = {"x0": [5.0, -5.0], "x1": [0.0, 0.0]}
    for labels in ([0, 1] * 10, [False, True] * 10, [0.0, 1.0] * 10):
        found = wrap(_logistic(labels), _meta("binary", "argmax", [False, True])).predict(columns)
        assert [type(value) for value in found["predictions"]] == [bool, bool]
        assert all(type(score) is float for score in found["scores"])
    texts = wrap(_logistic(["no", "yes"] * 10), _meta("binary", "both", ["no", "yes"])).predict(columns)
    assert set(texts["predictions"]) <= {"no", "yes"} and type(texts["predictions"][0]) is str


def test_classes_that_training_lacked_have_no_chance() -> None:
    """Scores have a column for each class of the label, in its order, whatever the model knows."""
    meta = _meta("multiclass", "argmax", ["a", "b", "c", "d"])
    found = wrap(_logistic(["d", "b", "c"] * 10), meta).predict({"x0": [0.0], "x1": [0.0]})
    assert len(found["scores"][0]) == 4 and found["scores"][0][0] == 0.0
    assert sum(found["scores"][0]) == pytest.approx(1.0)
    assert found["predictions"][0] == "abcd"[int(np.argmax(found["scores"][0]))]


def test_a_model_of_other_classes_is_refused() -> None:
    """Classes that the label does not have, or a positive class that the model does not know, are told."""
    with pytest.raises(StepFailed, match="knows the class 0, and the label's classes are"):
        wrap(_logistic([0, 1] * 10), _meta("binary", "argmax", ["no", "yes"]))
    with pytest.raises(StepFailed, match="never saw the class 2"):
        wrap(_logistic([0, 1] * 10), _meta("binary", "argmax", [0, 2, 1], positive=2))


def test_a_regression_answers_numbers() -> None:
    """Scores are the numbers themselves."""
    model = LinearRegression().fit(np.arange(10).reshape(5, 2), np.arange(5))
    found = wrap(model, _meta("regression", "number")).predict({"x0": [2.0], "x1": [3.0]})
    assert found["predictions"] == found["scores"] and type(found["scores"][0]) is float


def test_probabilities_of_ones_own_become_classes() -> None:
    """A half and more is the positive class."""
    found = _own(Tally({"a": 0.2, "b": 0.5}, 0.9), "binary", "probability", ["no", "yes"])
    assert found == {"predictions": ["no", "yes", "yes"], "scores": [0.2, 0.5, 0.9]}


def test_classes_of_ones_own_stay_classes() -> None:
    """A Predictor may answer with labels, also where these are numbers."""
    assert _own(Fixed([1, 2], "cycle"), "binary", "label", [1, 2]) == {"predictions": [1, 2, 1], "scores": None}
    assert _own(Fixed("b"), "multiclass", "label", ["a", "b"])["predictions"] == ["b"] * 3
    assert _own(Fixed(np.float64(2.5)), "regression", "number")["scores"] == [2.5] * 3


@pytest.mark.parametrize(
    ("model", "task", "answer", "says"),
    [
        (Fixed(0.5, "few"), "binary", "probability", "wrong shape: 3 rows expected, got 2"),
        (Fixed(0.5, "matrix"), "binary", "probability", "wrong shape: 3 rows expected, got 3 x 2"),
        (Fixed(np.float64(0.5), "whole"), "binary", "probability", "wrong shape: 3 rows expected, got nothing"),
        (Fixed(None, "whole"), "binary", "probability", "returned NoneType, not one prediction for each row"),
        (Fixed(1.5), "binary", "probability", "1.5 for row 0, which is no probability"),
        (Fixed(math.nan), "binary", "probability", "nan for row 0, which is no probability"),
        (Fixed("c"), "binary", "label", "'c', which is no class of the label"),
        (Fixed([], "each"), "binary", "label", r"\[\], which is no class"),
        (Fixed("c"), "regression", "number", "'c' for row 0, which is no number"),
        (Fixed(True), "regression", "number", "True for row 0, which is no number"),
    ],
)
def test_what_is_no_answer_is_told(model: Any, task: str, answer: str, says: str) -> None:
    """A wrong length, a wrong shape, or a value that is no answer: each is told with what was expected."""
    with pytest.raises(StepFailed, match=says) as caught:
        _own(model, task, answer, ["a", "b"])
    assert caught.value.fix


def test_estimators_of_the_wrong_shape_are_told() -> None:
    """A model of several outputs does not answer one value for each row."""
    model = LinearRegression().fit(np.arange(10).reshape(5, 2), np.ones((5, 2)))
    with pytest.raises(StepFailed, match="wrong shape: 1 rows expected, got 1 x 2"):
        wrap(model, _meta("regression", "number")).predict({"x0": [1.0], "x1": [1.0]})
    with pytest.raises(StepFailed, match="wrong shape: 1 rows x 3 classes expected, got 1 x 2"):
        wrap(_Narrow(), _meta("multiclass", "argmax", ["a", "b", "c"])).predict({"x0": [1.0], "x1": [1.0]})


class _Narrow:
    def predict_proba(self, frame: Any) -> Any:
        return np.full((len(frame), 2), 0.5)


def test_plain_lists_hold_plain_values() -> None:
    """Arrays, series and generators become lists of what JSON can say."""
    assert plain_list(np.array([1, 2]), 2) == [1, 2] and type(plain_list(np.array([1]), 1)[0]) is int
    assert plain_list(pl.Series(["a"]), 1) == ["a"] and plain_list(pd.Series([0.5]), 1) == [0.5]
    assert plain_list((value for value in (np.bool_(True),)), 1) == [True]


def test_code_runs_only_when_granted(tmp_path: Path) -> None:
    """A pickle that nobody granted is not even opened."""
    files = {"model": tmp_path / "absent"}
    meta = _meta("binary", "probability", [False, True], container="columns", format="pickle")
    with pytest.raises(Refused, match="its digest is not granted"):
        load_model(files, meta, granted=False)


def test_a_grant_is_for_the_bytes_that_were_packaged(tmp_path: Path) -> None:
    """A file that changed after packaging is not read, granted or not."""
    path = tmp_path / "model"
    content = pickle.dumps(Tally({"a": 0.1}, 0.5))
    meta = _meta("binary", "probability", [False, True], container="columns", format="pickle")
    meta |= {"files": {"model": digest_bytes(content)}, "trusted": []}
    path.write_bytes(content)
    assert load_model({"model": path}, meta, granted=True).predict({"c": ["a"]})["scores"] == [0.1]
    path.write_bytes(pickle.dumps(Tally({"a": 0.9}, 0.5)))
    with pytest.raises(Corrupt, match="other content"):
        load_model({"model": path}, meta, granted=True)
