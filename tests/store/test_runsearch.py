"""Searches of runs, experiments and logged models: filters, orders and pages, on both databases."""

from __future__ import annotations

import math
import random

import pytest

from trimtab.core.errors import BadInput
from trimtab.store import models, tracking
from trimtab.store.datasets import Dataset, Input, add_inputs
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.models import ModelMetric
from trimtab.store.points import Point
from trimtab.store.runsearch import ModelOrder, OnData, search_experiments, search_models, search_runs

ROOT = "mlflow-artifacts:/{number}"


def _experiment(ledger: Ledger, name: str, at: int = 0) -> int:
    return ledger.write(
        lambda tx: tracking.create_experiment(tx, name, root=ROOT, tags={"n": name}, now_ms=at), what="test"
    )


def _run(ledger: Ledger, experiment: int, name: str, start_ms: int, metrics: dict[str, float]) -> str:
    def make(tx: Tx) -> str:
        run = tracking.create_run(tx, experiment=experiment, name=name, user_id="", start_ms=start_ms, tags={"t": name})
        points = [Point(key, value, 0, 1) for key, value in metrics.items()]
        tracking.log(tx, run.id, points=points, params={"p": name})
        return run.id

    return ledger.write(make, what="test")


def test_pages_are_the_whole_in_parts(ledger: Ledger) -> None:
    """Whatever the order, pages of any size hold each run once, in the order of one large page."""
    home, rng = _experiment(ledger, "home"), random.Random(7)
    values = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1.5]
    for place in range(40):
        metrics = {"m": rng.choice(values)} if place % 4 else {}
        _run(ledger, home, f"r{place % 5}", 1000 + place % 3, metrics)
    for order in (["metrics.m ASC"], ["metrics.m DESC", "run_name"], ["tags.t DESC"], ["end_time"], []):
        whole, none = search_runs(ledger, [home], order=order)
        assert none == "" and len({run.id for run in whole}) == 40
        for most in (1, 7, 39, 40):
            found, token, pages = [], "", 0
            while token or not pages:
                page, token = search_runs(ledger, [home], order=order, most=most, token=token)
                found += page
                pages += 1
            assert [run.id for run in found] == [run.id for run in whole], (order, most)


def test_filters(ledger: Ledger) -> None:
    """Each kind of thing that is kept of a run can be asked for."""
    home, other = _experiment(ledger, "home"), _experiment(ledger, "other")
    first = _run(ledger, home, "a", 1, {"m": 1.0, "n": math.nan})
    second = _run(ledger, home, "B", 2, {"m": math.inf})
    _run(ledger, other, "c", 3, {"m": 2.0})
    read = Input(
        dataset=Dataset(name="d", digest="x", source_type="local", source="s"), tags={"mlflow.data.context": "train"}
    )
    ledger.write(lambda tx: add_inputs(tx, second, [read]), what="test")

    def names(filter: str, *experiments: int) -> list[str]:
        return [run.name for run in search_runs(ledger, experiments or [home], filter=filter, order=["start_time"])[0]]

    assert names("metrics.m >= 1") == ["a", "B"] and names("metrics.m < 2") == ["a"]
    assert names("metrics.m > 0", home, other) == ["a", "B", "c"]
    assert names("metrics.n != 3") == ["a"] and names("metrics.n = 3") == []
    assert names("params.p = 'a' AND tags.t = 'a'") == ["a"]
    assert names("run_name LIKE 'b'") == [] and names("run_name ILIKE 'b'") == ["B"]
    assert names(f"run_id = '{first}'") == ["a"] and names(f"run_id NOT IN ('{first}')") == ["B"]
    assert names("datasets.name = 'd' AND datasets.context = 'train'") == ["B"] and names("dataset.digest = 'y'") == []
    assert names("end_time > 0") == [] and names("start_time = 2") == ["B"]
    assert search_runs(ledger, [])[0] == []
    with pytest.raises(BadInput):
        search_runs(ledger, [], filter="nothing.a = 1")


def test_tokens_belong_to_their_search(ledger: Ledger) -> None:
    """A token of one search is refused by another."""
    home = _experiment(ledger, "home")
    for place in range(3):
        _run(ledger, home, "r", place, {})
    token = search_runs(ledger, [home], most=1)[1]
    assert token
    for more in ({"filter": "run_name = 'r'"}, {"order": ["start_time"]}, {"stages": ("deleted",)}):
        with pytest.raises(BadInput, match="belongs to another query"):
            search_runs(ledger, [home], token=token, **more)


def test_experiments(ledger: Ledger) -> None:
    """Experiments are found by name, tag, time and stage; the newest come first."""
    one, two = _experiment(ledger, "one", 10), _experiment(ledger, "Two", 20)
    ledger.write(lambda tx: tracking.set_experiment_stage(tx, two, "deleted", now_ms=30), what="test")
    assert [found.number for found in search_experiments(ledger)[0]] == [one]
    everything = ("active", "deleted")
    assert [found.name for found in search_experiments(ledger, stages=everything)[0]] == ["Two", "one"]
    found, _ = search_experiments(ledger, stages=everything, filter="tags.n = 'Two' AND creation_time >= 20")
    assert [one.name for one in found] == ["Two"]
    page, token = search_experiments(ledger, stages=everything, order=["name"], most=1)
    rest, last = search_experiments(ledger, stages=everything, order=["name"], most=1, token=token)
    assert [one.name for one in (*page, *rest)] == ["Two", "one"] and last == ""


def test_models_by_what_they_were_measured_on(ledger: Ledger) -> None:
    """Metrics of models count for the data that is asked for, in filters and in orders."""
    home = _experiment(ledger, "home")

    def make(name: str, at: int, *told: tuple[float, str, str]) -> str:
        def act(tx: Tx) -> str:
            made = models.create_model(
                tx, experiment=home, name=name, type="", run_id="", params={"d": name}, tags={"t": name}, now_ms=at
            )
            metrics = [
                ModelMetric(run_id="r", point=Point("acc", value, step, step), dataset_name=data, dataset_digest=digest)
                for step, (value, data, digest) in enumerate(told)
            ]
            models.add_model_metrics(tx, made.id, metrics)
            return made.id

        return ledger.write(act, what="test")

    make("a", 1, (0.9, "train", "x"), (0.5, "test", "y"))
    make("b", 2, (0.1, "train", "x"), (0.8, "test", "z"), (math.nan, "odd", ""))
    make("c", 3)

    def names(**asked: object) -> list[str]:
        return [model.name for model in search_models(ledger, [home], **asked)[0]]  # type: ignore[arg-type]

    assert names() == ["c", "b", "a"]
    assert names(filter="metrics.acc > 0.85") == ["a"]
    assert names(filter="metrics.acc > 0.7", data=[OnData("test")]) == ["b"]
    assert names(filter="metrics.acc > 0.1", data=[OnData("test", "y")]) == ["a"]
    assert names(data=[OnData("train")]) == ["b", "a"] and names(data=[OnData("no")]) == []
    assert names(order=[ModelOrder("metrics.acc", False, OnData("train"))]) == ["a", "b", "c"]
    assert names(order=[ModelOrder("metrics.acc", False, OnData("test"))]) == ["b", "a", "c"]
    assert names(order=[ModelOrder("metrics.acc", True)]) == ["a", "b", "c"]  # the latest of b is NaN
    assert names(order=[ModelOrder("creation_time")]) == ["a", "b", "c"]
    assert names(filter="params.d = 'a' AND tags.t IN ('a', 'b') AND status = 'PENDING'") == ["a"]
    assert names(filter=f"experiment_id = '{home}' AND name != 'a'") == ["c", "b"]
    page, token = search_models(ledger, [home], most=2, order=[ModelOrder("metrics.acc", True, OnData("train"))])
    rest, _ = search_models(
        ledger, [home], most=2, order=[ModelOrder("metrics.acc", True, OnData("train"))], token=token
    )
    assert [model.name for model in (*page, *rest)] == ["b", "a", "c"]
    for field in ("nothing", "params.d"):
        with pytest.raises(BadInput, match="Invalid order by field name"):
            search_models(ledger, [home], order=[ModelOrder(field)])
