"""What is watched of which version, and labelled answers in the terms of their model."""

from __future__ import annotations

import random
from datetime import timedelta

from tests.monitor.scene import DAY, Scene, usual
from tests.serve.stand import START, deploy
from trimtab.check.declare import drift, performance
from trimtab.core.ids import new_id
from trimtab.monitor.signals import champion, labelled_rows, rules, watches
from trimtab.store import live
from trimtab.store.live import RolloutRow


def test_a_deployed_model_is_watched_by_default(scene: Scene) -> None:
    """Drift and performance are two signals, and both are on although nobody asked for them."""
    found = watches(scene.store.ledger)
    assert [(one.check.kind, one.by_default) for one in found] == [("drift", True), ("performance", True)]
    assert len({one.key for one in found}) == 2


def test_a_declared_check_takes_the_place_of_the_default(scene: Scene) -> None:
    """An automation's check is watched instead of the default of its kind; other parameters are another watch."""
    first = scene.automate(drift("api.calls", material=0.1))
    found = {one.check.kind: one for one in watches(scene.store.ledger)}
    assert not found["drift"].by_default and found["drift"].check.params["material"] == 0.1
    assert found["performance"].by_default
    key = found["drift"].key
    scene.automate(drift("api.calls", material=0.2))
    assert next(one for one in watches(scene.store.ledger) if one.check.kind == "drift").key != key
    (rule,) = rules(scene.store.ledger)
    assert rule.automation.id == first.id and rule.endpoint == "api" and rule.status == "fail"


def test_checks_of_other_endpoints_watch_nothing_here(scene: Scene) -> None:
    """A check that names an endpoint that is not there is no watch."""
    scene.automate(performance("other"))
    assert all(one.by_default for one in watches(scene.store.ledger))


def test_champion_is_the_stable_version_until_all_traffic_has_moved(scene: Scene) -> None:
    """While a rollout is under way the stable version is the champion, whatever its share; then the new one."""
    ledger, second = scene.store.ledger, scene.make(2)
    candidate = deploy(scene.store, scene.endpoint_id, second, share=70)
    endpoint = live.get_endpoint(ledger, scene.endpoint_id)
    row = RolloutRow(
        id=new_id("rol"), endpoint_id=endpoint.id, run_id="", state="stepping", stable_id=scene.deployment,
        candidate_id=candidate, data={}, updated_at=START,
    )  # fmt: skip
    ledger.write(lambda tx: live.add_rollout(tx, row), what="rollout")
    assert champion(ledger, endpoint) == scene.version
    ledger.write(lambda tx: live.set_traffic(tx, endpoint.id, {candidate: 100}, expect_epoch=endpoint.epoch), what="t")
    found = champion(ledger, live.get_endpoint(ledger, endpoint.id))
    assert found is not None and found.id == second.id
    ledger.write(lambda tx: live.set_traffic(tx, endpoint.id, {}, expect_epoch=endpoint.epoch + 1), what="t")
    assert champion(ledger, live.get_endpoint(ledger, endpoint.id)) is None


def test_labelled_answers_come_by_event_time(scene: Scene) -> None:
    """Labels join by prediction id; a score above one half that meets a true label is correct."""
    draw = random.Random(1)
    late = scene.send([({"x": 1.0, "c": "a"}, 0.9)], START + DAY)
    early = scene.send([({"x": 1.0, "c": "a"}, 0.4), usual(draw)], START)
    scene.label(late, [True], START + 2 * DAY)
    scene.label(early[:1], ["true"], START + 3 * DAY)
    rows = list(labelled_rows(scene.store.ledger, scene.endpoint_id))
    assert [(row.prediction_id, row.score, row.truth, row.correct) for row in rows] == [
        (early[0], 0.4, 1.0, False),
        (late[0], 0.9, 1.0, True),
    ]
    until = int((START + timedelta(hours=1)).timestamp() * 1e6)
    assert len(list(labelled_rows(scene.store.ledger, scene.endpoint_id, until=until))) == 1


def test_a_label_that_the_model_cannot_know_has_no_truth(scene: Scene) -> None:
    """A label of no known class is neither right nor wrong."""
    (one,) = scene.send([({"x": 1.0, "c": "a"}, 0.9)], START)
    scene.keep_label(one, "perhaps", START)
    (row,) = labelled_rows(scene.store.ledger, scene.endpoint_id)
    assert (row.truth, row.correct) == (None, None)
