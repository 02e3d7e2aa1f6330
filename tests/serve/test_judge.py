"""Evidence from requests and labels: one joint process, one event for each unit, and its promised error rates."""

from __future__ import annotations

import random
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.serve.stand import START, Traffic, deploy, make_version, put_endpoint
from trimtab import check as ck
from trimtab.core.live import blue_green, canary
from trimtab.core.nouns import Check, Data
from trimtab.serve import rollout
from trimtab.serve.judge import Evidence, after_event, is_wrong, load, no_evidence, proven, told
from trimtab.serve.labels import accept_labels
from trimtab.store import live
from trimtab.store.calls import CallRow
from trimtab.store.store import Store

ERRORS, SLOW = ck.errors(), ck.latency("500ms")
HOUR = timedelta(hours=1)


def _plan(*judge: Check, **more: Any) -> Data:
    made = canary([50, 100], judge=judge, **more)
    checks = [{"name": one.name, "kind": one.kind, "params": one.params, "severity": one.severity} for one in judge]
    return {**{name: getattr(made, name) for name in made.__struct_fields__}, "judge": checks}


def _simulate(seed: int, ratio: float, *, weight: float, base: float, requests: int, checks: int = 1) -> Evidence:
    """Feed events of a base rate that triples half way, in both arms alike."""
    draw = random.Random(seed)
    names = [ck.latency(f"{number + 1}s") for number in range(checks)]
    plan = _plan(*names)
    state = no_evidence(plan)
    for number in range(requests):
        rate = base * (3.0 if number > requests / 2 else 1.0)
        candidate = draw.random() < weight
        if draw.random() < min(1.0, rate * (ratio if candidate else 1.0)):
            for check in names:  # fully dependent checks: the joint rule must hold for any dependence
                state = after_event(state, 0.05, check.name, weight, "candidate" if candidate else "stable")
    return state


def test_an_equal_version_is_seldom_called_harmful() -> None:
    """Under the null, with a base rate that changes, at most about five in a hundred rollouts are reversed."""
    wrong = sum(_simulate(seed, 1.0, weight=0.1, base=0.02, requests=1500, checks=2).harmful for seed in range(200))
    assert wrong <= 16


def test_a_worse_version_is_found() -> None:
    """Four times the errors at a tenth of the traffic are found within two thousand requests."""
    found = sum(_simulate(seed, 4.0, weight=0.1, base=0.03, requests=2000).harmful for seed in range(20))
    assert found >= 18


def test_several_checks_share_one_alpha() -> None:
    """The joint e-value is the mean at one time, not the mean of the best times."""
    plan = _plan(ERRORS, SLOW)
    state = no_evidence(plan)
    for _ in range(2):
        state = after_event(state, 0.05, ERRORS.name, 0.05, "candidate")
    top = state.peak
    for _ in range(40):
        state = after_event(state, 0.05, ERRORS.name, 0.05, "stable")
    for _ in range(2):
        state = after_event(state, 0.05, SLOW.name, 0.05, "candidate")
    best = sum(process.max_e_value for process in state.harm.values()) / 2
    assert state.peak < best and state.peak >= top


def test_proof_needs_every_check() -> None:
    """Non-inferiority is shown check by check; one that is not shown keeps the step."""
    plan = _plan(ERRORS, SLOW, advance="proven", margin=1.0)
    state = no_evidence(plan)
    assert not proven(no_evidence(_plan(ERRORS)), 0.05)
    for _ in range(60):
        state = after_event(state, 0.05, ERRORS.name, 0.5, "stable")
    assert not proven(state, 0.05)
    for _ in range(60):
        state = after_event(state, 0.05, SLOW.name, 0.5, "stable")
    assert proven(state, 0.05) and not state.harmful


def test_what_is_told_is_plain_and_finite() -> None:
    """A verdict's evidence has no infinities, and says what could have been missed."""
    state = no_evidence(_plan(ERRORS))
    assert told(state, _plan(ERRORS))["checks"][ERRORS.name]["smallest_ratio_seen"] is None
    for _ in range(30):
        state = after_event(state, 0.05, ERRORS.name, 0.5, "stable")
        state = after_event(state, 0.05, ERRORS.name, 0.5, "candidate")
    found = told(state, _plan(ERRORS))["checks"][ERRORS.name]
    assert (found["candidate_events"], found["stable_events"]) == (30, 30)
    assert found["ratio_interval"][0] < 1 < found["ratio_interval"][1] and found["smallest_ratio_seen"] > 1


BINARY: Data = {"task": "binary", "classes": [False, True], "positive": True}
MULTI: Data = {"task": "multiclass", "classes": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("meta", "prediction", "score", "label", "wrong"),
    [
        (BINARY, True, 0.7, True, False),
        (BINARY, True, 0.7, False, True),
        (BINARY, True, 0.7, "true", False),
        (BINARY, False, 0.2, "False", False),
        (BINARY, False, 0.2, 1, True),
        (BINARY, False, 0.2, "perhaps", None),
        ({"task": "binary", "classes": [0, 1], "positive": 1}, 1, 0.9, 1.0, False),
        ({"task": "binary", "classes": ["no", "yes"], "positive": "yes"}, "yes", 0.9, "no", True),
        (MULTI, "a", None, "a", False),
        (MULTI, "a", None, "b", True),
        (MULTI, "a", None, "z", None),
        ({"task": "regression", "classes": None}, 3.5, 3.5, 3.5, None),
    ],
)
def test_wrong_predictions(meta: Data, prediction: Any, score: float | None, label: Any, wrong: bool | None) -> None:
    """Labels are compared in the terms of the model, however JSON wrote them; what cannot be told is not judged."""
    call = CallRow(
        prediction_id="x.0", request_id="x", row=0, endpoint_id="e", deployment_id="d", version_id="v", at=0,
        candidate=False, weight=1.0, candidate_weight=0.0, status=200, latency_us=1, prediction=prediction, score=score,
    )  # fmt: skip
    assert is_wrong(ck.outcome("late"), call, label, meta) is wrong


def _rolling(store: Store, plan: Any, **spec: Any) -> tuple[str, str]:
    """Set up a stable deployment and a rollout of a second version in its first step; return endpoint and rollout."""
    one, two = make_version(store), make_version(store, 2.0)
    endpoint = put_endpoint(store, rollout=plan, **spec)
    deploy(store, endpoint, one, share=100)
    begin = partial(
        rollout.begin, endpoint=live.get_endpoint(store.ledger, endpoint), version_id=two.id, at=START, actor="t",
        runtime={}, why="tests",
    )  # fmt: skip
    row = store.ledger.write(begin, what="begin")
    store.ledger.write(lambda tx: live.set_deployment_state(tx, row.candidate_id, "ready"), what="ready")
    rollout.advance(store, START)
    return endpoint, row.id


def _evidence(store: Store, endpoint: str) -> Evidence:
    row = live.active_rollout(store.ledger, endpoint)
    assert row is not None
    return load(store.ledger, row)


def test_requests_are_counted_once_and_only_where_chance_chose(store: Store) -> None:
    """Repeated frames, named deployments and requests before the step do not count."""
    endpoint, _ = _rolling(store, canary([50, 100], judge=[ERRORS], minimum=1000))
    with Traffic(store) as traffic:
        traffic.send(40, START)
        traffic.sent = 20
        traffic.send(40, START + HOUR)  # half of them were sent before
        traffic.send(5, START, wanted="2")
        traffic.send(5, START - HOUR)
    counted = _evidence(store, endpoint).requests
    assert counted.candidate + counted.stable == 60


def test_failures_are_events_of_the_arm_that_answered(store: Store) -> None:
    """A status of 500 or a slow answer is an event; a caller's own mistake is none."""
    endpoint, _ = _rolling(store, canary([50, 100], judge=[ERRORS, SLOW], minimum=1000, alpha=0.0001))
    with Traffic(store) as traffic:
        traffic.send(30, START, status=lambda candidate, number: 503 if candidate else 200)
        traffic.send(10, START, status=lambda candidate, number: 422)
        traffic.send(10, START, latency_us=600_000)
    state = _evidence(store, endpoint)
    bad, slow = state.harm[ERRORS.name], state.harm[SLOW.name]
    assert bad.events_stable == 0 and 5 < bad.events_canary < 25
    assert slow.events_stable + slow.events_canary == 10


def test_a_session_is_one_unit(store: Store) -> None:
    """With sticky sessions a caller who fails again and again is one event for each check, labels included."""
    checks = [ERRORS, ck.outcome("late")]
    endpoint, _ = _rolling(store, canary([50, 100], judge=checks, minimum=1000), sticky="X-Session")
    with Traffic(store) as traffic:
        traffic.send(8, START, key="anna", status=lambda candidate, number: 500)
        ids = traffic.send(6, START, key="berta", score=0.9)
    accept_labels(store, "api", [{"prediction_id": one, "label": False} for one in ids], START + HOUR)
    state = _evidence(store, endpoint)
    for check in checks:
        process = state.harm[check.name]
        assert process.events_canary + process.events_stable == 1, check.name


def test_late_labels_count_with_the_weight_of_their_prediction(store: Store) -> None:
    """Wrong predictions are events at the share under which they were made, each once, corrections not at all."""
    late = ck.outcome("late")
    endpoint, _ = _rolling(store, canary([20, 50, 100], judge=[late], minimum=10, soak="1h"))
    with Traffic(store) as traffic:
        ids = traffic.send(100, START, score=0.9)
        rollout.advance(store, START + HOUR)
        assert _evidence(store, endpoint).step_requests.candidate == 0  # the second step has begun
        items = [{"prediction_id": one, "label": number % 2 == 0} for number, one in enumerate(ids)]
        accept_labels(store, "api", items, START + 2 * HOUR)
        accept_labels(store, "api", items, START + 2 * HOUR)
        accept_labels(store, "api", [{**items[0], "label": False}], START + 2 * HOUR)
    tally = _evidence(store, endpoint).harm[late.name].tally
    assert [weight for weight, _, _ in tally] == [0.2]
    assert tally[0][1] + tally[0][2] == 50


def _every(length: int, offset: int) -> Any:
    return lambda candidate, number: 500 if number % length == offset else 200


def test_after_a_switch_the_record_of_the_old_one_is_the_bar(store: Store) -> None:
    """Blue-green has nobody to compare with at the same time: the old deployment's own rate bounds the new one's."""
    one, two = make_version(store), make_version(store, 2.0)
    endpoint = put_endpoint(store, rollout=blue_green(judge=[ERRORS, SLOW], watch="1h"))
    deploy(store, endpoint, one, share=100)
    with Traffic(store) as traffic:
        traffic.send(400, START - HOUR, status=_every(100, 0))
        row = store.ledger.write(
            partial(rollout.begin, endpoint=live.get_endpoint(store.ledger, endpoint), version_id=two.id, at=START,
                    actor="t", runtime={}, why="tests"),
            what="begin",
        )  # fmt: skip
        store.ledger.write(lambda tx: live.set_deployment_state(tx, row.candidate_id, "ready"), what="ready")
        assert [one["state"] for one in rollout.advance(store, START)] == ["watching"]
        watch = _evidence(store, endpoint).watch
        assert 0.01 < watch[ERRORS.name].null < 0.12 and watch[SLOW.name].null < 0.1
        traffic.send(200, START + timedelta(minutes=1), status=_every(100, 7))
        assert not rollout.advance(store, START + timedelta(minutes=5))
        traffic.send(60, START + timedelta(minutes=6), status=_every(3, 0))
        (said,) = rollout.advance(store, START + timedelta(minutes=7))
    assert said["state"] == "rolled_back" and "the record promises" in said["reason"]
