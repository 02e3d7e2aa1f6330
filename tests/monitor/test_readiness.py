"""Each production model has collection, an alert and a retraining rule, or the audit fails (R71)."""

from __future__ import annotations

from tests.monitor.scene import Scene
from trimtab.check.declare import drift
from trimtab.monitor.readiness import judge_readiness, readiness
from trimtab.store import live


def test_a_model_without_a_retraining_rule_fails(scene: Scene) -> None:
    """Collection and alerts are on by default; what is missing is told with what to write."""
    (found,) = readiness(scene.store.ledger)
    assert (found.collection, found.alert, found.retrain) == (True, True, False)
    (verdict,) = judge_readiness(scene.store.ledger, scene.store.now())
    assert verdict.status == "fail" and verdict.subject == scene.endpoint_id and "tt.when" in verdict.reason


def test_a_retraining_rule_passes_while_it_is_enabled(scene: Scene) -> None:
    """A rule that runs what the endpoint serves makes it pass; a disabled one, or one for something else, does not."""
    check = drift("api.calls")
    made = scene.automate(check, actions=[("run", "other")])
    assert not readiness(scene.store.ledger)[0].retrain
    made = scene.automate(check, actions=[("run", "line")])
    assert judge_readiness(scene.store.ledger, scene.store.now())[0].status == "pass"
    scene.store.ledger.write(
        lambda tx: live.put_automation(tx, name=made.name, spec=made.spec, enabled=False, at=made.created_at), what="a"
    )
    assert not readiness(scene.store.ledger)[0].retrain
