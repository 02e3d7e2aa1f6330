"""Records that were made elsewhere, written as they are."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from trimtab.core.errors import BadInput, Conflict
from trimtab.store import assessments, bring, datasets, facts, models, registry, traces, tracking
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.points import Point

A, B = "a" * 32, "b" * 32
MODEL = f"m-{'c' * 32}"


def _experiment(number: int, name: str, stage: tracking.Stage = "active") -> tracking.Experiment:
    return tracking.Experiment(
        id="", number=number, name=name, stage=stage, root="mlflow-artifacts:/{number}", created_ms=5, updated_ms=6,
        tags={"t": "1"},
    )  # fmt: skip


def _run(ident: str, **fields: Any) -> tracking.TrackedRun:
    known: dict[str, Any] = {
        "id": ident, "experiment": 7, "name": "n", "status": "FINISHED", "stage": "active", "start_ms": 1000,
        "end_ms": 2000, "user_id": "ada", "root": f"mlflow-artifacts:/7/{ident}/artifacts", "params": {"p": "1"},
        "tags": {"t": "v"}, "metrics": {},
    }  # fmt: skip
    return tracking.TrackedRun(**{**known, **fields})


def _put_run(tx: Tx, run: tracking.TrackedRun, **parts: Any) -> int:
    return bring.put_run(tx, run, **{"points": [], "inputs": [], "roles": [], "files": [], **parts})


@pytest.fixture
def home(ledger: Ledger) -> Ledger:
    """Return a ledger with an experiment of number 7."""
    assert ledger.write(lambda tx: bring.put_experiment(tx, _experiment(7, "e")), what="test") == 7
    return ledger


def test_a_number_is_kept_if_it_is_free(home: Ledger) -> None:
    """Else the next one is given; a name that is taken is a conflict; stages and times are kept."""
    assert home.write(lambda tx: bring.put_experiment(tx, _experiment(7, "f", "deleted")), what="test") == 8
    found = tracking.get_experiment(home, 8)
    assert (found.stage, found.created_ms, found.updated_ms, found.tags) == ("deleted", 5, 6, {"t": "1"})
    assert found.root == "mlflow-artifacts:/8"
    with pytest.raises(Conflict):
        home.write(lambda tx: bring.put_experiment(tx, _experiment(9, "f")), what="test")


def test_a_run_is_there_with_all_of_it(home: Ledger) -> None:
    """Status, times, stage, points of several pages, inputs, roles and files are as they were given."""
    pages = [[Point("m", math.nan, 1, 10), Point("m", math.inf, 2, 20)], [Point("m", math.inf, 2, 20)]]
    data = datasets.Dataset(name="d", digest="1", source_type="local", source="{}")
    inputs = [datasets.Input(dataset=data, tags={datasets.CONTEXT: "train"})]
    blob = f"sha256:{'0' * 64}"
    count = home.write(
        lambda tx: _put_run(
            tx, _run(A, stage="deleted", status="KILLED"), points=pages, inputs=inputs,
            roles=[("output", MODEL, 3)], files=[("a/b", blob, 4)], deleted_ms=9,
        ),
        what="test",
    )  # fmt: skip
    assert count == 2 and bring.counts_of(home, f"run_{A}") == (1, 1, 2)
    found = tracking.get_run(home, A)
    assert (found.status, found.stage, found.start_ms, found.end_ms) == ("KILLED", "deleted", 1000, 2000)
    assert found.metrics["m"].value == math.inf
    assert datasets.inputs_of(home, [f"run_{A}"])[f"run_{A}"] == inputs
    assert models.roles_of(home, [f"run_{A}"])[f"run_{A}"] == [("output", MODEL, 3)]
    assert bring.files_below(home, found.root) == [("a/b", blob, 4)]
    assert [len(page) for page in bring.points_of(home, f"run_{A}", 1)] == [1, 1]
    ledger_run = facts.get_run(home, f"run_{A}")
    assert ledger_run is not None and ledger_run.state == "cancelled" and ledger_run.ended_at is not None
    with pytest.raises(Conflict):
        home.write(lambda tx: _put_run(tx, _run(A)), what="test")


def _parent(home: Ledger) -> str:
    run = facts.get_run(home, f"run_{A}")
    assert run is not None
    return run.parent_id


def test_parents_are_linked_in_any_order(home: Ledger) -> None:
    """A run that came before the one that it is nested in knows it in the end."""
    child = _run(A, tags={"mlflow.parentRunId": B})
    home.write(lambda tx: _put_run(tx, child), what="test")
    home.write(bring.link_parents, what="test")
    assert _parent(home) == ""
    home.write(lambda tx: _put_run(tx, _run(B)), what="test")
    home.write(bring.link_parents, what="test")
    assert _parent(home) == f"run_{B}"


def test_a_model_is_the_version_that_its_runs_made(home: Ledger) -> None:
    """A run that names the model before it is there is linked to it, and its files make its digest."""
    home.write(lambda tx: _put_run(tx, _run(A), roles=[("output", MODEL, 0)]), what="test")
    home.write(lambda tx: _put_run(tx, _run(B), roles=[("input", MODEL, 0)]), what="test")
    point = Point("auc", 0.5, 1, 1000)
    metric = models.ModelMetric(run_id=A, point=point, dataset_name="", dataset_digest="")
    model = models.LoggedModel(
        id=MODEL, experiment=7, name="m", run_id="", status="LOGGED_MODEL_READY", type="", stage="deleted",
        root=f"mlflow-artifacts:/7/models/{MODEL}/artifacts", created_ms=1, updated_ms=2, params={"p": "1"},
        tags={"t": "v"}, metrics=[],
    )  # fmt: skip
    files = [("MLmodel", f"sha256:{'1' * 64}", 3)]
    home.write(lambda tx: bring.put_model(tx, model, metrics=[metric, metric], files=files), what="test")
    found = models.get_model(home, MODEL, deleted=True)
    assert (found.stage, found.params, found.metrics, bring.metric_count(home, MODEL)) == (
        "deleted", {"p": "1"}, [metric], 1,
    )  # fmt: skip
    assert [version.id for version in facts.made_by(home, f"run_{A}")] == [found.version_id]
    assert [version.id for version, _ in facts.used_by(home, f"run_{B}")] == [found.version_id]
    with pytest.raises(Conflict):
        home.write(lambda tx: bring.put_model(tx, model, metrics=[], files=[]), what="test")


def _version(number: int) -> registry.ModelVersion:
    return registry.ModelVersion(
        id="", model="r", number=number, description="d", stage="Production", status="READY", source="s", run_id=A,
        run_link="", model_id="", user_id="ada", created_ms=1, updated_ms=2, tags={"t": "v"}, aliases=[],
    )  # fmt: skip


def test_a_registered_model_keeps_its_numbers_and_aliases(home: Ledger) -> None:
    """Versions have the numbers that they had, gaps too; the next one of a client follows; a taken name is refused."""
    given = registry.RegisteredModel(
        id="", name="r", description="d", created_ms=1, updated_ms=2, tags={"t": "v"}, aliases={}, latest=[]
    )
    home.write(lambda tx: _put_run(tx, _run(A), files=[("f", f"sha256:{'2' * 64}", 1)]), what="test")
    home.write(lambda tx: bring.put_registered(tx, given), what="test")
    for number in (2, 5):
        home.write(partial(bring.put_version, given=_version(number), root=_run(A).root), what="test")
    missing = home.write(lambda tx: bring.put_aliases(tx, "r", {"best": 5, "lost": 3}), what="test")
    found = registry.get_registered(home, "r")
    assert missing == ["lost"] and found.aliases == {"best": 5} and found.updated_ms == 2
    version = registry.get_version(home, "r", 5)
    assert (version.stage, version.user_id, version.created_ms) == ("Production", "ada", 1)
    assert registry.root_of(home, version) == _run(A).root and facts.get_version(home, version.id).digest
    assert not home.query("SELECT 1 FROM delivery")
    made = home.write(lambda tx: registry.create_version(tx, "r", source="x", now_ms=3), what="test")
    assert made.number == 6
    with pytest.raises(Conflict):
        home.write(lambda tx: bring.put_registered(tx, given), what="test")
    with pytest.raises(Conflict):
        home.write(lambda tx: bring.put_version(tx, _version(5), root=""), what="test")


def test_a_trace_says_what_it_said_also_in_a_deleted_experiment(ledger: Ledger) -> None:
    """Its spans add nothing to what it says of itself; what was said of it keeps validity and overrides."""
    ledger.write(lambda tx: bring.put_experiment(tx, _experiment(7, "e", "deleted")), what="test")
    trace = traces.Trace(trace_id="tr-1", experiment=7, state="OK", start_ms=10, duration_ms=None, tags={"a": "b"})
    span = traces.Span(
        trace_id="tr-1", span_id="0" * 16, parent_id="", name="root", type="TOOL", status="ERROR", start_ns=10**6,
        end_ns=2 * 10**6, content="{}", about={"session": "s", "request": "r"}, metrics={"input_tokens": 3.0},
    )  # fmt: skip
    said = [
        assessments.Assessment(trace_id="tr-1", id=ident, kind="feedback", name="n", value={"value": 1}, **more)
        for ident, more in (("a-2", {"overrides": "a-1"}), ("a-1", {"valid": False}))
    ]
    ledger.write(
        lambda tx: bring.put_trace(
            tx, trace, spans=[span], said=said, links=[("run", A)], files=[("x", "sha256:0", 1)]
        ),
        what="test",
    )
    found = traces.get_trace(ledger, "tr-1")
    assert (found.state, found.duration_ms, found.request, found.metadata) == ("OK", None, None, {})
    assert found.tags == {
        "a": "b", traces.PLACE_TAG: traces.HERE, traces.ROOT_TAG: "mlflow-artifacts:/7/traces/tr-1/artifacts",
    }  # fmt: skip
    told = assessments.assessments_of(ledger, {found.id: "tr-1"})[found.id]
    assert {one.id: (one.valid, one.overrides) for one in told} == {"a-1": (False, ""), "a-2": (True, "a-1")}
    assert tracking.get_experiment(ledger, 7).stage == "deleted" and traces.linked(ledger, "tr-1", "run") == [A]
    with pytest.raises(Conflict):
        ledger.write(lambda tx: bring.put_trace(tx, trace, spans=[], said=[]), what="test")
    bad = traces.Trace(trace_id="no / id", experiment=7, state="OK", start_ms=10)
    with pytest.raises(BadInput):
        ledger.write(lambda tx: bring.put_trace(tx, bad, spans=[], said=[]), what="test")


def test_a_mark_says_what_was_written(ledger: Ledger) -> None:
    """What a write with a key answered can be read, and nothing where there was none."""
    assert bring.mark_of(ledger, "k") is None
    ledger.write(lambda tx: {"a": 1}, what="test", key="k")
    assert bring.mark_of(ledger, "k") == {"a": 1}
