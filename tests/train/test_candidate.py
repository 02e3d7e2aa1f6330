"""Candidates: fitted on the older rows, measured on the newer, packaged, and proven."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import trimtab as tt
from tests.train.conftest import FEATURES, START, Room, good, pipeline, rows
from tests.train.models import Fixed, Tally
from trimtab.check.histogram import Reference
from trimtab.check.scores import auc
from trimtab.core.errors import BadInput, Refused, StepFailed, TrimtabError
from trimtab.core.nouns import Data
from trimtab.train.load import load_model
from trimtab.train.package import files_of
from trimtab.train.signature import Signature


def _declared(returns: Callable[[pl.DataFrame], Any], **spec: Any) -> Any:
    def late(flown: pl.DataFrame) -> Any:
        return returns(flown)

    return tt.model(label="y", **{"holdout": "10d", **spec})(late)


def _references(room: Room, meta: Data) -> dict[str, Reference]:
    found = msgspec.json.decode(room.store.blobs.get(meta["reference"]), type=list[Reference])
    return {one.name: one for one in found}


def test_a_candidate_says_all_that_later_steps_need(room: Room) -> None:
    """Its meta has task, signature, range of training, metrics, risk, and where it comes from."""
    result = room.step(good(seed=3))
    (made,) = result.made
    meta = made.meta
    assert (made.asset, made.kind, made.state, made.aliases, made.grants) == ("late", "model", "candidate", (), [])
    assert made.location == {"files": meta["files"], "format": "skops"}
    wanted = {"task": "binary", "classes": [False, True], "positive": True, "container": "polars", "answer": "argmax",
              "label": "y", "time": "at", "rows_trained": 720, "rows_kept_back": 240, "rows_refused": 0,
              "refit_of": "", "seed": 3, "params": {"c": 1.0}, "format": "skops", "holdout": "10d"}  # fmt: skip
    assert {name: meta[name] for name in wanted} == wanted
    assert meta["trained_from"] == START.isoformat()
    # The newest row is of 23 o'clock on the fortieth day; ten days before that moment the cut lies.
    assert meta["trained_until"] == (START + timedelta(days=29, hours=23)).isoformat()
    assert [spec["name"] for spec in meta["signature"]["inputs"]] == FEATURES
    assert set(meta["metrics"]) == {"auc", "log_loss", "brier", "accuracy", "ece"} and meta["metrics"]["auc"] > 0.75
    assert set(meta["risk"]) == {"brier", "error_rate", "log_loss"}
    assert meta["risk"]["brier"]["mean"] == pytest.approx(meta["metrics"]["brier"])
    assert meta["risk"]["brier"]["n"] == 240 and meta["risk"]["brier"]["variance"] > 0
    assert meta["data"]["flown"].startswith("flown:")
    assert dict((name, value) for name, _, value in result.metrics) == meta["metrics"]
    assert result.facts["rows_train"] == 720 and result.facts["seconds_fit"] > 0
    msgspec.json.encode(meta)


def test_the_function_never_sees_a_row_that_is_kept_back(room: Room) -> None:
    """Neither the labelled input nor a table of features holds anything newer than the cutoff."""
    seen: dict[str, Any] = {}

    def late(flown: pl.DataFrame, weather: pl.DataFrame) -> Any:
        seen.update(flown=flown["at"].max(), weather=weather["at"].max(), rows=flown.height)
        return LogisticRegression().fit(flown.select("x0").to_pandas(), flown["y"])

    room.give("weather", rows(40).select("at", "x0"))
    # The order of the rows must not matter.
    room.give("flown", rows(40).sample(fraction=1.0, shuffle=True, seed=1))
    meta = room.make(tt.model(label="y", holdout=0.25)(late)).meta
    cutoff = START + timedelta(hours=719)
    assert seen == {"flown": cutoff, "weather": cutoff, "rows": 720}
    assert meta["rows_kept_back"] == 240 and meta["trained_until"] == cutoff.isoformat()


def test_metrics_are_those_of_the_rows_that_were_kept_back(room: Room) -> None:
    """A model that knows its training rows by heart gains nothing by it."""

    def late(flown: pl.DataFrame) -> Any:
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(1).fit(flown.select("x0", "id").to_pandas(), flown["y"])

    frame = rows(40).with_columns(y=pl.Series(np.random.Generator(np.random.PCG64(5)).random(960) < 0.5))
    room.give("flown", frame)
    assert room.make(tt.model(label="y", holdout="10d")(late)).meta["metrics"]["auc"] < 0.65


def test_what_is_logged_is_recorded(room: Room) -> None:
    """tt.log inside the function reaches the recorder of the run."""

    def fit(frame: pl.DataFrame) -> Any:
        tt.log(loss=0.25, step=4)
        tt.log(kernel="linear")
        return LogisticRegression().fit(frame.select("x0").to_pandas(), frame["y"])

    room.step(_declared(fit))
    assert room.recorder.metrics == [("loss", 4, 0.25)] and room.recorder.params == {"kernel": "linear"}


def test_the_same_fit_is_the_same_version(room: Room) -> None:
    """Equal rows, code, params and seed give an equal digest; another param another one."""
    first, second = (room.step(good()).made[0] for _ in range(2))
    assert first.digest == second.digest and first.location == second.location
    assert first.meta == second.meta
    other = room.step(good(), params={"c": 0.01}).made[0]
    assert other.digest != first.digest


def test_golden_rows_are_held_back_rows_with_their_answers(room: Room) -> None:
    """A worker can repeat them: twenty requests in JSON, spread over the held-back rows, and what was answered."""
    version = room.make(good())
    golden = msgspec.json.decode(room.store.blobs.get(version.meta["golden"]))
    assert len(golden["rows"]) == 20 and list(golden["rows"][0]) == FEATURES
    kept = rows().filter(pl.col("at") > START + timedelta(days=29, hours=23))
    assert golden["rows"][0]["x0"] == kept["x0"][0] and golden["rows"][1]["x0"] == kept["x0"][12]
    assert any(row["x1"] is None for row in golden["rows"])
    scorer = load_model(files_of(version.location, room.store.blobs), version.meta, granted=False)
    columns, _ = Signature(version.meta["signature"]).columns({"rows": golden["rows"]})
    assert scorer.predict(columns) == golden["output"]


def test_references_are_of_training_rows_and_of_answers_on_new_ones(room: Room) -> None:
    """Inputs are counted over the training rows; answers over rows that the model was not fitted on."""
    found = _references(room, room.make(good()).meta)
    assert {name: one.kind for name, one in found.items()} == {
        "x0": "numeric", "x1": "numeric", "c": "categorical", "prediction": "numeric",
    }  # fmt: skip
    assert found["x0"].n == 720 and found["prediction"].n == 240
    assert found["x1"].missing == rows().head(720)["x1"].null_count()


def test_a_column_without_reference_is_told(room: Room) -> None:
    """An input that was never filled, or is called like the answers, has no histogram, and the record says so."""
    room.give("flown", rows().with_columns(empty=pl.lit(None, dtype=pl.Float64), prediction=pl.col("x0")))
    names = ["x0", "empty", "prediction"]

    def fit(frame: pl.DataFrame) -> Any:
        from sklearn.impute import SimpleImputer

        model = make_pipeline(SimpleImputer(keep_empty_features=True), LogisticRegression())
        return model.fit(frame.select(names).to_numpy(), frame["y"])

    result = room.step(_declared(fit, features=names))
    assert [text.partition(":")[0] for text in result.facts["inputs_without_reference"]] == ["empty", "prediction"]
    assert set(_references(room, result.made[0].meta)) == {"x0", "prediction"}


def test_rows_without_a_label_are_counted_and_left_out(room: Room) -> None:
    """A flight that never arrived is neither trained on nor judged."""
    room.give("flown", rows().with_columns(y=pl.when(pl.col("id") % 10 == 0).then(None).otherwise("y")))
    result = room.step(good())
    assert result.facts["rows_without_label"] == 96
    assert result.made[0].meta["rows_trained"] + result.made[0].meta["rows_kept_back"] == 864


def test_several_classes(room: Room) -> None:
    """A multiclass model has accuracy and log loss, and its answers are counted as categories."""
    room.give("flown", rows().with_columns(y=pl.col("c")))

    def fit(frame: pl.DataFrame) -> Any:
        return LogisticRegression().fit(frame.select("x0").to_pandas(), frame["y"].to_numpy())

    meta = room.make(_declared(fit)).meta
    assert meta["classes"] == ["a", "b", "d"] and set(meta["metrics"]) == {"accuracy", "log_loss"}
    assert set(meta["risk"]) == {"error_rate", "log_loss"}
    assert _references(room, meta)["prediction"].kind == "categorical"


def test_a_regression(room: Room) -> None:
    """A regression has errors in the unit of its label."""
    room.give("flown", rows().with_columns(y=3 * pl.col("x0") + 1))

    def fit(frame: pl.DataFrame) -> Any:
        return LinearRegression().fit(frame.select("x0", "id").to_numpy(), frame["y"].to_numpy())

    meta = room.make(_declared(fit, features=["x0", "id"])).meta
    assert meta["task"] == "regression" and meta["metrics"]["rmse"] < 1e-9 and meta["metrics"]["r2"] == 1.0
    assert set(meta["risk"]) == {"mae"} and meta["container"] == "numpy"


def test_any_framework_is_a_predictor(room: Room) -> None:
    """A model in plain numpy is pickled under a grant on its digest, and scored like any other."""

    def fit(frame: pl.DataFrame) -> Any:
        shares = dict(frame.group_by("c").agg(pl.col("y").mean()).sort("c").rows())
        return Tally(shares, float(frame["y"].mean()))  # type: ignore[arg-type]

    version = room.make(_declared(fit, features=["c"]))
    (made,) = room.step(_declared(fit, features=["c"])).made
    blob = version.location["files"]["model"]
    assert made.grants == [{"digest": blob, "format": "pickle"}] and made.digest == version.digest
    assert version.meta["container"] == "columns" and version.meta["answer"] == "probability"
    assert 0.5 < version.meta["metrics"]["auc"] < 0.7
    files = files_of(version.location, room.store.blobs)
    with pytest.raises(Refused):
        load_model(files, version.meta, granted=False)
    kept = rows().tail(240)
    scores = load_model(files, version.meta, granted=True).predict({"c": kept["c"].to_list()})["scores"]
    assert auc(kept["y"].to_numpy(), scores) == pytest.approx(version.meta["metrics"]["auc"])


@pytest.mark.parametrize(
    ("answer", "way", "says"),
    [
        (0.5, "few", "wrong shape: 240 rows expected, got 239"),
        (0.5, "matrix", "wrong shape: 240 rows expected, got 240 x 2"),
        ("x", "each", "'x', which is no class of the label"),
        (0, "missing", "nan"),
        (0, "chance", "answers differently from the one that was fitted"),
        (0, "batch", "answers a row differently when it is asked alone"),
    ],
)
def test_a_model_that_does_not_answer_as_it_should_is_refused(room: Room, answer: Any, way: str, says: str) -> None:
    """Wrong shapes, NaN, chance, and answers that depend on the other rows fail when the model is made."""
    with pytest.raises(StepFailed, match=says) as caught:
        room.step(_declared(lambda frame: Fixed(answer, way), features=["x0", "x1"]))
    assert caught.value.fix and "test_candidate.py" in caught.value.where


def test_an_answer_that_changes_by_asking_is_refused(room: Room) -> None:
    """A model that keeps what it was asked answers differently after it was read back."""
    with pytest.raises(StepFailed, match="differently"):
        room.step(_declared(lambda frame: Fixed(0, "counts"), features=["x0"]))


def _encoded(frame: pl.DataFrame) -> Any:
    encode = OneHotEncoder(handle_unknown="error")
    return make_pipeline(encode, LogisticRegression()).fit(frame.select("c"), frame["y"].to_numpy())


def test_rows_that_the_endpoint_would_refuse_are_not_judged(room: Room) -> None:
    """With unseen='refuse' a held-back row with a new category is counted and left out of every measure."""
    frame = rows()
    room.give("flown", frame.with_columns(c=pl.when(pl.col("id") > 900).then(pl.lit("new")).otherwise("c")))
    meta = room.make(_declared(_encoded)).meta
    assert (meta["rows_kept_back"], meta["rows_refused"], meta["risk"]["brier"]["n"]) == (240, 59, 181)
    room.give("flown", frame.with_columns(c=pl.when(pl.col("id") > 700).then(pl.lit("new")).otherwise(pl.lit("old"))))
    with pytest.raises(BadInput, match="would refuse all 240 held-back rows"):
        room.give("flown", frame.with_columns(c=pl.when(pl.col("id") >= 720).then(pl.lit("new")).otherwise("c")))
        room.make(_declared(_encoded))


def test_what_is_to_be_accepted_must_be_answered(room: Room) -> None:
    """With unseen='accept' a model that fails on an unseen category, or on a missing value, is not packaged."""
    with pytest.raises(StepFailed, match=r"cannot answer a row with no value in 'c'"):
        room.step(_declared(_encoded, unseen="accept"))
    with pytest.raises(StepFailed, match=r"cannot answer a row with an unseen category in 'c'"):
        room.give("flown", rows().with_columns(c=pl.when(pl.col("id") % 7 == 0).then(None).otherwise("c")))
        room.step(_declared(_encoded, unseen="accept"))
    with pytest.raises(StepFailed, match=r"no value in 'x0'.*NaN"):
        linear = lambda frame: LogisticRegression().fit(frame.select("x0").to_pandas(), frame["y"])  # noqa: E731
        room.step(_declared(linear, unseen="accept"))
    picky = _declared(lambda frame: Fixed(0, "picky"), features=["c"], unseen="accept")
    room.give("flown", rows())
    with pytest.raises(StepFailed, match="cannot answer a row with no value in 'c': None"):
        room.step(picky)
    assert room.make(good(unseen="accept")).meta["signature"]["unseen"] == "accept"


def test_a_classifier_without_probabilities(room: Room) -> None:
    """It has accuracy and nothing that needs probabilities."""
    from sklearn.linear_model import RidgeClassifier

    meta = room.make(_declared(lambda frame: RidgeClassifier().fit(frame.select("x0").to_pandas(), frame["y"]))).meta
    assert set(meta["metrics"]) == {"accuracy"} and set(meta["risk"]) == {"error_rate"}
    assert _references(room, meta)["prediction"].kind == "categorical"


def test_few_rows_do(room: Room) -> None:
    """Tiny data makes a model, with what could not be counted told."""
    room.give("flown", rows(1, per_day=12))
    result = room.step(good_share())
    assert result.made[0].meta["rows_trained"] == 9
    assert [text.partition(":")[0] for text in result.facts["inputs_without_reference"]] in ([], ["c"])


def good_share() -> Any:
    """Return a model that keeps a quarter of the rows back and learns from all features."""

    def late(flown: pl.DataFrame) -> Any:
        return pipeline().fit(flown.select(FEATURES), flown["y"].to_numpy())

    return tt.model(label="y", holdout=0.25, unseen="accept")(late)


def test_an_estimator_with_a_class_of_the_project_is_granted(room: Room) -> None:
    """What skops does not know is kept by pickle, the facts say why, and the run answers for it."""

    def fit(frame: pl.DataFrame) -> Any:
        return Doubled().fit(frame.select("x0").to_pandas(), frame["y"].to_numpy())

    result = room.step(_declared(fit))
    (made,) = result.made
    assert made.meta["format"] == "pickle" and made.grants[0]["digest"] == made.location["files"]["model"]
    assert "skops does not know" in result.facts["note"] and "Doubled" in result.facts["note"]


class Doubled(LogisticRegression):  # type: ignore[misc]
    """A class that skops does not know."""


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (rows(8), "leaves no rows to train on"),
        (rows(40).with_columns(y=pl.lit(True)), "one class"),
        (rows(40).with_columns(at=pl.lit(START)), "leaves no rows for the gate|leaves no rows to train on"),
    ],
)
def test_rows_that_allow_no_model_are_told(room: Room, frame: pl.DataFrame, says: str) -> None:
    """Too little time, one class, or one moment: the error says what is lacking."""
    room.give("flown", frame)
    with pytest.raises(TrimtabError, match=says):
        room.step(good())


def test_a_function_of_pandas_frames_with_missing_values_of_every_type(room: Room) -> None:
    """Whole numbers, booleans and texts that are missing reach the model as they did in training."""
    holes = {"n": pl.Int64, "b": pl.Boolean, "c": pl.String}
    frame = rows().with_columns(n=pl.col("id") % 13, b=pl.col("x0") > 0.5)
    gaps = [
        pl.when(pl.col("id") % 11 == 3).then(None).otherwise(name).cast(kind).alias(name)
        for name, kind in holes.items()
    ]
    room.give("flown", frame.with_columns(gaps))

    def late(flown: pd.DataFrame) -> Any:
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer

        flown = flown.astype({"b": "float64"})
        parts = [
            ("n", SimpleImputer(), ["n", "b", "x1"]),
            (
                "c",
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
                ["c"],
            ),
        ]
        model = make_pipeline(ColumnTransformer(parts), LogisticRegression())
        return model.fit(flown[["n", "b", "x1", "c"]], flown["y"])

    meta = room.make(tt.model(label="y", holdout="10d", unseen="accept")(late)).meta
    assert [(one["name"], one["type"], one["nullable"]) for one in meta["signature"]["inputs"]] == [
        ("n", "integer", True), ("b", "boolean", True), ("x1", "number", True), ("c", "string", True),
    ]  # fmt: skip
    assert meta["metrics"]["auc"] > 0.6
