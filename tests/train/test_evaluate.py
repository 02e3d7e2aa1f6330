"""Metrics and risks of what a model said."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from trimtab.core.errors import BadInput, WrongUse
from trimtab.core.nouns import Data
from trimtab.train import evaluate
from trimtab.train.evaluate import Answers, ask, difference, metric_on, metrics_on, risk_on, value_interval
from trimtab.train.signature import signature_of

BINARY: Data = {"task": "binary", "classes": ["no", "yes"], "positive": "yes"}
TRUTH = ["yes", "no", "yes", "no"] * 10
GOOD = Answers(TRUTH, {"predictions": TRUTH, "scores": [0.9, 0.1, 0.8, 0.2] * 10}, BINARY)
POOR = Answers(TRUTH, {"predictions": ["no"] * 40, "scores": [0.4, 0.3, 0.1, 0.2] * 10}, BINARY)


def test_binary_metrics_take_labels_of_any_kind() -> None:
    """The positive class is 1 for every metric, whatever it is called."""
    found = metrics_on(GOOD)
    assert found["auc"] == 1.0 and found["accuracy"] == 1.0
    assert found["brier"] == pytest.approx(0.025) and set(found) == {"auc", "log_loss", "brier", "accuracy", "ece"}
    assert metric_on("error_rate", POOR) == 0.5


def test_risk_is_of_single_rows() -> None:
    """Mean, variance and count of each row's loss."""
    risk = risk_on(POOR)
    assert risk["error_rate"] == {"mean": 0.5, "variance": pytest.approx(0.25641, abs=1e-4), "n": 40}
    assert risk_on(Answers(["yes"], {"predictions": ["yes"], "scores": [0.5]}, BINARY))["brier"]["variance"] == 0.0


def test_a_metric_that_is_not_defined_is_left_out() -> None:
    """One class has no AUC; a model without probabilities has no log loss."""
    assert set(metrics_on(Answers(["yes"] * 3, {"predictions": ["yes"] * 3, "scores": [0.5] * 3}, BINARY))) == {
        "log_loss", "brier", "accuracy", "ece",
    }  # fmt: skip
    silent = Answers(TRUTH, {"predictions": TRUTH, "scores": None}, BINARY)
    assert set(metrics_on(silent)) == {"accuracy"} and set(risk_on(silent)) == {"error_rate"}
    with pytest.raises(WrongUse, match="needs probabilities, and the model gives none"):
        metric_on("auc", silent)


def test_several_classes_are_codes() -> None:
    """A class that the model does not know is wrong, and has no log loss."""
    meta: Data = {"task": "multiclass", "classes": ["a", "b"], "positive": None}
    output: Any = {"predictions": ["a", "b"], "scores": [[0.9, 0.1], [0.5, 0.5]]}
    assert metrics_on(Answers(["a", "b"], output, meta))["accuracy"] == 1.0
    strange = Answers(["a", "z"], output, meta)
    assert metrics_on(strange) == {"accuracy": 0.5}
    with pytest.raises(BadInput):
        metric_on("log_loss", strange)


def test_a_regression_has_errors_and_no_accuracy() -> None:
    """The metrics of a regression are in the unit of the label."""
    meta: Data = {"task": "regression", "classes": None, "positive": None}
    answers = Answers([1.0, 2.0, 3.0], {"predictions": [1.0, 2.0, 4.0], "scores": [1.0, 2.0, 4.0]}, meta)
    assert metrics_on(answers)["mae"] == pytest.approx(1 / 3)
    assert risk_on(answers)["mae"]["n"] == 3
    for name in ("accuracy", "log_loss", "auc"):
        with pytest.raises(WrongUse, match=f"{name} is no metric of a regression model"):
            metric_on(name, answers)


class _Sized:
    def __init__(self, scored: bool) -> None:
        self.scored = scored
        self.sizes: list[int] = []

    def predict(self, columns: Any) -> Data:
        self.sizes.append(len(columns["x"]))
        return {"predictions": list(columns["x"]), "scores": list(columns["x"]) if self.scored else None}


@pytest.mark.parametrize("scored", [True, False])
def test_many_rows_are_asked_in_batches(monkeypatch: pytest.MonkeyPatch, scored: bool) -> None:
    """However many rows there are, only some of them are Python objects at one time."""
    monkeypatch.setattr(evaluate, "BATCH", 4)
    frame, scorer = pl.DataFrame({"x": [float(n) for n in range(10)]}), _Sized(scored)
    found = ask(scorer, frame, signature_of(frame, ["x"], "refuse"))
    assert scorer.sizes == [4, 4, 2] and found["predictions"] == frame["x"].to_list()
    assert found["scores"] == (frame["x"].to_list() if scored else None)


def test_intervals_come_with_their_method() -> None:
    """Groups are resampled where they are given; the difference is candidate minus champion."""
    found = value_interval("auc", POOR, None, 0.95)
    assert found.method == "delong" and found.rows == 40
    groups = [row // 4 for row in range(40)]
    gain = difference("brier", GOOD, POOR, groups, 0.9)
    assert gain.method == "cluster bootstrap" and gain.groups == 10 and gain.level == 0.9
    assert gain.estimate < 0 and gain.high < 0
