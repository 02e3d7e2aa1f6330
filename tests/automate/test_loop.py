"""From an alarm to a decision: once, within cooldown and limit, with everything that the records need."""

from __future__ import annotations

import itertools
import random
from datetime import datetime

import pytest

from tests.automate.scene import GAIN, Control, accepted, broken, ready, refused
from tests.monitor.scene import DAY, Scene, shifted
from tests.serve.stand import START
from trimtab.automate.jobs import Outcome
from trimtab.check.declare import drift, row_count
from trimtab.core.errors import Unavailable
from trimtab.core.nouns import Data
from trimtab.monitor.watch import Monitors
from trimtab.store import facts, live
from trimtab.store.live import Firing

CHECK = drift("api.calls")
RETRAIN = [("run", "line"), ("roll_out", "api")]


def _until_alarm(scene: Scene, first: int = 0) -> datetime:
    """Live through drifting days until the drift watch alarms; return that time."""
    for day in range(first, first + 20):
        ((_, ticked),) = scene.days(1, shifted, first=day, seed=day)
        if any(alarm.data["signal"] == "drift" for alarm in ticked.alarms):
            return scene.store.now()
    raise AssertionError("no alarm")


def _firings(scene: Scene) -> list[Firing]:
    return live.list_firings(scene.store.ledger)


def test_an_accepted_challenger_is_rolled_out(scene: Scene) -> None:
    """The firing tells trigger, verdict, interval, values, versions and rollout, and its run is in the records."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    control = Control(scene, accepted)
    with ready(scene.store.home.root):
        done = control.settle(now)
    (firing,) = _firings(scene)
    (alarm,) = live.list_alarms(scene.store.ledger)
    assert firing.state == "done" and done["firings"] == 1 and done["waiting"] == []
    data = firing.data
    assert (data["verdict"], data["rolled_out"], data["candidate"], data["champion"], data["version"]) == (
        "accepted", True, "line:2", "line:1", "line:2",
    )  # fmt: skip
    assert data["interval"] == {name: GAIN[name] for name in ("estimate", "low", "high", "level")}
    assert data["values"] == {"candidate": 0.71, "champion": 0.68} and data["rows"] == 1400
    assert data["at"] == now.isoformat() and data["trigger"]["alarm"] == alarm.id
    assert data["trigger"]["evidence"]["features"] == ["x"] and data["trigger"]["evidence"]["e_value"] >= 1
    run = facts.get_run(scene.store.ledger, firing.run_id)
    assert run is not None and (run.kind, run.state, run.actor) == ("automation", "done", "automation:again")
    assert {role for _, role in facts.used_by(scene.store.ledger, run.id)} == {"candidate", "champion"}
    assert control.project.started == [(firing.id, "line", "automation:again")]
    rollout = live.active_rollout(scene.store.ledger, scene.endpoint_id)
    assert rollout is not None and rollout.id == data["rollout"] and rollout.state == "stepping"


def test_the_rollouts_end_is_added(scene: Scene) -> None:
    """When the canary has ended, the firing says how."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    control = Control(scene, accepted)
    with ready(scene.store.home.root):
        control.settle(now)
        for _ in range(6):
            now += DAY
            candidate = live.list_deployments(scene.store.ledger, scene.endpoint_id)[-1]
            version = facts.get_version(scene.store.ledger, candidate.version_id)
            row = shifted(random.Random(1))
            scene.send([row], now - DAY / 2, version=version, deployment=candidate.id, candidate=True)
            scene.send([row], now - DAY / 2, candidate=False)
            scene.store.set_clock("simulated", now)
            control.settle(now)
    (firing,) = _firings(scene)
    assert firing.data["outcome"] == "promoted" and firing.data["outcome_at"] <= now.isoformat()
    endpoint = live.need_endpoint(scene.store.ledger, "api")
    assert [live.get_deployment(scene.store.ledger, one).number for one in endpoint.traffic] == [2]


def test_a_refused_challenger_stays_where_it_is(scene: Scene) -> None:
    """A refusal is a success of the gate: it is recorded with its interval, nothing is rolled out, no case opens."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    Control(scene, refused).settle(now)
    (firing,) = _firings(scene)
    assert (firing.state, firing.data["verdict"], firing.data["rolled_out"]) == ("done", "refused", False)
    assert firing.data["interval"]["low"] == 0.01 and "gain in auc" in firing.data["reason"]
    assert live.list_rollouts(scene.store.ledger, scene.endpoint_id) == []
    assert live.list_cases(scene.store.ledger) == []


def test_only_the_watch_that_fired_starts_anew(scene: Scene) -> None:
    """Its evidence has been used; what the others have seen of a champion that stays is kept."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    Control(scene, refused).settle(now)
    told = {one["signal"]: one["evidence"] for one in Monitors(scene.store).verdicts(now)}
    assert told["drift"]["rows"] == 0 and told["drift"]["since"] == now.isoformat()
    assert told["performance"]["rows"] > 0 and told["performance"]["since"] < now.isoformat()


def test_a_refused_retraining_is_tried_again_while_the_alarm_stands(scene: Scene) -> None:
    """One cause is one alarm; it fires again when it is found again and the cooldown is over."""
    scene.automate(CHECK, actions=RETRAIN, cooldown="3d")
    control = Control(scene, refused)
    for _ in range(10):
        day = (scene.store.now() - START).days
        scene.days(1, shifted, first=day, seed=day)
        control.settle(scene.store.now())
    (alarm,) = [one for one in live.list_alarms(scene.store.ledger) if one.data["signal"] == "drift"]
    acted = [one for one in _firings(scene) if one.data["verdict"] == "refused"]
    assert len(acted) >= 3 and {one.data["trigger"]["alarm"] for one in acted} == {alarm.id}
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(acted)]
    assert all(gap >= 3 * DAY for gap in gaps)
    held = [one for one in _firings(scene) if one.data["verdict"] == "held"]
    assert len(held) <= len(acted)


def test_the_code_that_was_applied_runs(scene: Scene) -> None:
    """A retraining runs the code that `apply` recorded, whatever stands in the project's folder by now."""
    made = scene.automate(CHECK, actions=RETRAIN)
    spec = {**made.spec, "manifest": "sha256:applied"}
    scene.store.ledger.write(
        lambda tx: live.put_automation(tx, name=made.name, spec=spec, enabled=True, at=START), what="apply"
    )
    now = _until_alarm(scene)
    control = Control(scene, refused)
    control.settle(now)
    assert control.project.manifests == ["sha256:applied"]


def test_a_broken_run_opens_a_case_and_is_not_repeated(scene: Scene) -> None:
    """A run that fails ends the firing with its error and calls people; settling again tries nothing."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    control = Control(scene, broken)
    for _ in range(3):
        control.settle(now)
    (firing,) = _firings(scene)
    (case,) = live.list_cases(scene.store.ledger)
    assert firing.state == "failed" and firing.data["verdict"] == "failed"
    assert firing.data["error"]["where"] == "model.py:3" and "ValueError" in case.title
    assert len(control.project.started) == 1
    run = facts.get_run(scene.store.ledger, firing.run_id)
    assert run is not None and run.state == "failed" and run.error["fix"] == "mend it"


def test_a_run_that_takes_too_long_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was ended for its length is a failed firing, not one that is tried for ever."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    control = Control(scene)

    def late(key: str, **_: object) -> Outcome:
        raise Unavailable("took longer than 3600 s")

    monkeypatch.setattr(control.project, "poll", late)
    control.settle(now)
    assert _firings(scene)[0].state == "failed" and "3600 s" in _firings(scene)[0].data["reason"]


def test_a_server_that_ends_leaves_the_firing_to_the_next(scene: Scene) -> None:
    """Ending the server says nothing about the run: the firing goes on when it is up again."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    control = Control(scene)
    control.project.closing = True

    def ending(scene: Scene) -> Outcome:
        raise Unavailable("the server is ending")

    control.project._run = ending
    with pytest.raises(Unavailable, match="ending"):
        control.settle(now)
    assert _firings(scene)[0].state == "running" and live.list_cases(scene.store.ledger) == []
    Control(scene, refused).settle(now)
    assert _firings(scene)[0].data["verdict"] == "refused"


def test_real_time_does_not_wait_for_a_run(scene: Scene) -> None:
    """Without waiting, settling returns while the run goes on, and a later settling ends the firing."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    control = Control(scene, refused, slow=3)
    states = []
    for _ in range(3):
        control.settle(now, wait=False)
        states.append(_firings(scene)[0].state)
    assert states == ["running", "running", "done"]
    assert len(control.project.started) == 1


def test_cooldown_and_limit_hold_back_and_say_so(scene: Scene) -> None:
    """An alarm within the cooldown acts on nothing, and the record says why."""
    scene.automate(CHECK, actions=RETRAIN, cooldown="30d")
    control = Control(scene, refused)
    control.settle(_until_alarm(scene))
    second = _until_alarm(scene, first=(scene.store.now() - START).days)
    assert control.settle(second)["firings"] == 0
    first, held = _firings(scene)
    assert first.data["verdict"] == "refused" and held.data["verdict"] == "held" and held.state == "done"
    assert "cooldown of 30d" in held.data["reason"] and len(control.project.started) == 1


def test_a_disabled_automation_lets_alarms_pass(scene: Scene) -> None:
    """Alarms that come while it is disabled are not made up for when it is enabled again."""
    made = scene.automate(CHECK, actions=RETRAIN)

    def enable(yes: bool) -> None:
        scene.store.ledger.write(
            lambda tx: live.put_automation(tx, name=made.name, spec=made.spec, enabled=yes, at=START), what="enable"
        )

    enable(False)
    control = Control(scene)
    now = _until_alarm(scene)
    control.settle(now)
    enable(True)
    control.settle(now)
    assert [one.data["reason"] for one in _firings(scene)] == ["the automation is disabled"]
    assert control.project.started == []


def test_alarms_from_before_the_automation_are_no_business_of_it(scene: Scene) -> None:
    """An automation that is declared today does not act on last month's alarms, nor on another check's."""
    scene.automate(CHECK)
    now = _until_alarm(scene)
    scene.store.ledger.write(lambda tx: tx.execute("DELETE FROM automation"), what="gone")
    data: Data = {
        "when": {"check": {"name": CHECK.name, "kind": "drift", "params": dict(CHECK.params), "severity": "fail"},
                 "status": "fail"},
        "actions": [{"do": "run", "target": "line"}],
    }  # fmt: skip
    scene.store.ledger.write(
        lambda tx: live.put_automation(tx, name="late", spec=data, enabled=True, at=now + DAY), what="automation"
    )
    scene.automate(drift("api.calls", material=0.2), actions=RETRAIN)
    control = Control(scene)
    control.settle(now + DAY)
    assert _firings(scene) == []


def test_nothing_new_is_no_challenger(scene: Scene) -> None:
    """A run that reuses everything brings no challenger: refused, because nothing has changed."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)

    def nothing(scene: Scene) -> Outcome:
        same = {"id": "gate:line", "asset": "line", "state": "reused", "version": "line:1", "verdicts": [], "error": {}}
        return Outcome(exit_code=0, report={"stages": [same]})

    Control(scene, nothing).settle(now)
    (firing,) = _firings(scene)
    assert firing.data["verdict"] == "refused" and "nothing has changed since line:1" in firing.data["reason"]


def test_what_was_reversed_is_not_rolled_out_again(scene: Scene) -> None:
    """A version whose rollout was reversed before is not tried again by an automation."""
    scene.automate(CHECK, actions=RETRAIN)
    control = Control(scene, accepted)
    with ready(scene.store.home.root, "failed"):
        control.settle(_until_alarm(scene))
    (first,) = _firings(scene)
    assert first.data["rolled_out"] and first.data["outcome"] in ("rolled_back", "failed")
    second = _until_alarm(scene, first=(scene.store.now() - START).days)
    control.settle(second)
    last = _firings(scene)[-1]
    assert last.data["rolled_out"] is False and "reversed before" in last.data["reason"]


def test_an_automation_can_roll_back(scene: Scene) -> None:
    """Without a run the action follows at once; one that cannot be carried out fails and calls people."""
    scene.automate(CHECK, actions=[("roll_back", "api")])
    Control(scene).settle(_until_alarm(scene))
    (firing,) = _firings(scene)
    assert firing.state == "failed" and "no former deployment" in firing.data["reason"]
    assert live.list_cases(scene.store.ledger)[0].kind == "automation"


def test_a_condition_that_nobody_watches_is_told(scene: Scene) -> None:
    """An automation that waits for something that is never told is an open case, not silence."""
    scene.automate(row_count(1), actions=[("run", "line")])
    control = Control(scene)
    control.settle(START)
    control.settle(START)
    (case,) = live.list_cases(scene.store.ledger)
    assert "never fires" in case.title


def test_without_a_project_nothing_can_run(scene: Scene) -> None:
    """A server without a project fails the firing and says what to do."""
    scene.automate(CHECK, actions=RETRAIN)
    now = _until_alarm(scene)
    control = Control(scene)
    control.loop._jobs = None
    control.settle(now)
    assert _firings(scene)[0].state == "failed" and "no project" in _firings(scene)[0].data["reason"]
