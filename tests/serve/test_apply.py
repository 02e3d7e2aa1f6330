"""Live state made equal to the declaration, and never past a gate."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.serve.stand import START, make_version
from trimtab import check as ck
from trimtab.core.declare import Action, AutomationDeclaration, EndpointDeclaration, as_data
from trimtab.core.errors import NotFound, Refused, StepFailed, Unavailable, WrongUse
from trimtab.core.live import canary
from trimtab.core.nouns import Data, Endpoint, Verdict
from trimtab.pipeline.manifest import Manifest
from trimtab.serve.apply import apply_live, is_up, plan_live, roll_back, roll_out, validation
from trimtab.serve.rollout import advance
from trimtab.serve.routes import load
from trimtab.store import facts, live
from trimtab.store.store import Store

PLAN = canary([10, 100], judge=[ck.errors()], soak="1h", minimum=0)


def _spec(**changes: Any) -> Data:
    rollout: Data = {name: getattr(PLAN, name) for name in PLAN.__struct_fields__}
    rollout |= {"steps": list(PLAN.steps), "judge": [as_data(check) for check in PLAN.judge]}
    return {"rollout": rollout, "sticky": "", "timeout": "10s", "threads": 1, "salt": "", **changes}


def declared(*endpoints: str, automation: bool = False, **spec: Any) -> Manifest:
    """Return what a project declares: endpoints that serve ``line``."""
    rule = AutomationDeclaration(
        name="again", when=ck.drift("api.calls").fails, actions=(Action(do="run", target="line"),),
        spec={"cooldown": "1d", "limit": ""}, file="p.py", line=9,
    )  # fmt: skip
    return Manifest(
        project="p", declarations=[], code={}, steps={}, checks={}, snapshot={},
        endpoints=[
            EndpointDeclaration(name=name, serves="line", spec=_spec(**spec), file="p.py", line=1)
            for name in endpoints or ("api",)
        ],
        automations=[rule] if automation else [],
    )  # fmt: skip


@pytest.fixture
def fake_up(store: Store) -> Iterator[dict[str, str]]:
    """Hold the lock of `trimtab up`, and make deployments what is asked for: ``ready`` or ``failed``."""
    wish, stop = {"state": "ready"}, threading.Event()

    def supervise() -> None:
        while not stop.wait(0.01):
            for one in live.list_deployments(store.ledger):
                if one.desired == "up" and one.state in ("starting", "stopped"):
                    store.ledger.write(
                        lambda tx, it=one: live.set_deployment_state(tx, it.id, wish["state"], "as wished"),  # type: ignore[misc, arg-type]
                        what="state",
                    )
                elif one.desired == "down" and one.state != "stopped":
                    store.ledger.write(
                        lambda tx, it=one: live.set_deployment_state(tx, it.id, "stopped"),  # type: ignore[misc]
                        what="state",
                    )

    thread = threading.Thread(target=supervise)
    with (store.home.run / "up.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        yield wish
        stop.set()
        thread.join()


def _endpoint(store: Store) -> Endpoint:
    return live.need_endpoint(store.ledger, "api")


def _actions(stages: Any) -> dict[str, str]:
    return {stage["id"] if isinstance(stage, dict) else stage.id: _action(stage) for stage in stages}


def _action(stage: Any) -> str:
    return str(stage["action"] if isinstance(stage, dict) else stage.action)


def _live(store: Store) -> str:
    """Return the version that has all traffic."""
    traffic = _endpoint(store).traffic
    (one,) = [name for name, share in traffic.items() if share == 100]
    return facts.get_version(store.ledger, live.get_deployment(store.ledger, one).version_id).ref


def test_the_plan_is_what_apply_does(store: Store, fake_up: dict[str, str]) -> None:
    """The first apply creates, deploys and waits; the second finds nothing to do."""
    make_version(store)
    manifest = declared(automation=True)
    planned = plan_live(store, manifest)
    assert _actions(planned) == {"endpoint:api": "create", "serve:api": "deploy", "automation:again": "create"}
    assert live.list_endpoints(store.ledger) == []
    told: list[str] = []
    done = apply_live(store, manifest, say=told.append)
    assert [_actions([one]) for one in done["stages"]] == [_actions([one]) for one in planned]
    assert done["ready"] and done["notes"] == ["api: deployment 1 100 %"] and len(told) == 3
    assert _live(store) == "line:1" and facts.alias_of(store.ledger, "line", "champion") is not None
    assert set(_actions(plan_live(store, manifest)).values()) == {"keep"}
    table = load(store.home.routes)
    assert table is not None and table.endpoints["api"].deployments[0].share == 100


def test_without_up_the_wish_is_recorded(store: Store) -> None:
    """`apply` before `up` is fine: what should be is in the ledger."""
    make_version(store)
    done = apply_live(store, declared())
    assert not done["ready"] and "trimtab up" in done["notes"][0] and not is_up(store)
    assert live.list_deployments(store.ledger)[0].desired == "up"
    assert _actions(plan_live(store, declared()))["serve:api"] == "keep"


def test_a_newer_version_is_rolled_out_by_the_plan(store: Store, fake_up: dict[str, str]) -> None:
    """`apply` starts the canary and leaves it to the judge."""
    make_version(store)
    apply_live(store, declared())
    make_version(store, 2.0)
    assert _actions(apply_live(store, declared())["stages"])["serve:api"] == "roll_out"
    assert sorted(_endpoint(store).traffic.values()) == [10.0, 90.0]
    assert _actions(plan_live(store, declared()))["serve:api"] == "keep"


def test_a_version_that_was_reversed_is_not_tried_again(store: Store, fake_up: dict[str, str]) -> None:
    """`apply` after a rollback holds; a reason in so many words tries again."""
    make_version(store)
    apply_live(store, declared())
    make_version(store, 2.0)
    apply_live(store, declared())
    roll_back(store, "api", reason="customers complain")
    (stage,) = [one for one in plan_live(store, declared()) if one.id == "serve:api"]
    assert stage.action == "hold" and "customers complain" in stage.reason
    assert _actions(apply_live(store, declared(), override="mended elsewhere")["stages"])["serve:api"] == "roll_out"
    assert sorted(_endpoint(store).traffic.values()) == [10.0, 90.0]


def test_a_deployment_that_does_not_start_is_an_error(store: Store, fake_up: dict[str, str]) -> None:
    """`apply` that waits says why; the next one holds."""
    make_version(store)
    fake_up["state"] = "failed"
    with pytest.raises(StepFailed, match="as wished"):
        apply_live(store, declared())
    assert _actions(plan_live(store, declared()))["serve:api"] == "hold"


def test_apply_notices_that_up_has_ended(store: Store) -> None:
    """Nobody waits two minutes for a supervisor that is gone."""
    make_version(store)
    with (store.home.run / "up.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.3, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        with pytest.raises(Unavailable, match="has ended"):
            apply_live(store, declared())
        time.sleep(0.1)


@pytest.mark.parametrize("gate", ["", "fail", "inconclusive"])
def test_no_version_goes_live_without_a_passed_gate(store: Store, gate: str) -> None:
    """R16: a verdict for exactly this version must say pass; an override with a reason is recorded."""
    make_version(store, gate=gate)
    with pytest.raises(Refused, match="may not go live"):
        apply_live(store, declared())
    assert live.list_deployments(store.ledger) == []
    apply_live(store, declared(), override="a demonstration")
    (run,) = facts.list_runs(store.ledger, kind="override")
    assert run.facts["reason"] == "a demonstration" and run.facts["overridden"]
    assert live.list_deployments(store.ledger)[0].runtime["override"] == "a demonstration"


def test_a_refit_stands_on_its_parents_verdicts(store: Store) -> None:
    """A winner that was fitted again with the same params needs no gate of its own."""
    parent = make_version(store)
    refit = make_version(store, 1.1, gate="", refit_of=parent.id)
    assert validation(store.ledger, refit)["passed"]
    assert not validation(store.ledger, make_version(store, 1.2, gate=""))["passed"]


def test_the_newest_verdict_of_a_check_counts(store: Store) -> None:
    """A gate that was run again and failed closes the way."""
    version = make_version(store)
    verdict = Verdict(
        check="metric(auc above 0.5)", kind="metric", status="fail", subject=version.id, evidence={}, reason="0.4",
        at=START,
    )  # fmt: skip
    store.ledger.write(lambda tx: facts.add_verdict(tx, verdict), what="verdict")
    assert validation(store.ledger, version) | {"verdicts": [], "digest": ""} == {
        "passed": False, "reason": "0.4", "verdicts": [], "digest": "",
    }  # fmt: skip


def test_a_regression_is_not_judged_by_wrong_outcomes(store: Store) -> None:
    """The plan must fit the model."""
    make_version(store, task="regression", classes=None)
    rollout = {**_spec()["rollout"], "judge": [as_data(ck.outcome("late"))]}
    with pytest.raises(WrongUse, match="never simply wrong"):
        apply_live(store, declared(rollout=rollout))


def test_an_endpoint_takes_versions_of_what_it_serves(store: Store) -> None:
    """Another model's version does not go live by mistake."""
    make_version(store)
    apply_live(store, declared(), wait=False)
    other = make_version(store, name="curve")
    with pytest.raises(WrongUse, match="serves line, and curve:1 is a model"):
        roll_out(store, "api", other.ref)


def test_rolling_out_what_is_under_way_changes_nothing(store: Store) -> None:
    """The same version twice is one rollout."""
    version = make_version(store)
    apply_live(store, declared(), wait=False)
    first = live.list_rollouts(store.ledger, _endpoint(store).id)
    assert roll_out(store, "api", version.ref) == first[0].id
    assert len(live.list_rollouts(store.ledger, _endpoint(store).id)) == 1
    with pytest.raises(NotFound, match="did you mean 'api'"):
        roll_out(store, "apu", version.ref)


def test_rolling_back_ends_a_canary(store: Store, fake_up: dict[str, str]) -> None:
    """The stable version has all traffic again, and who did it and why is on record."""
    make_version(store)
    apply_live(store, declared())
    make_version(store, 2.0)
    apply_live(store, declared())
    answer = roll_back(store, "api", reason="by hand")
    assert answer["done"] and answer["version"] == "line:1" and "line:1" in answer["message"]
    assert _live(store) == "line:1"
    assert facts.list_runs(store.ledger, kind="rollback")[0].facts["reason"] == "by hand"


def test_rolling_back_a_promotion(store: Store, fake_up: dict[str, str]) -> None:
    """Warm or taken down, the former version comes back with one command, alias included."""
    make_version(store)
    apply_live(store, declared())
    make_version(store, 2.0)
    apply_live(store, declared())
    now = store.now()
    for hours in (2, 4):
        advance(store, now.replace(year=now.year + hours))
    assert _live(store) == "line:2"
    begun = time.monotonic()
    answer = roll_back(store, "api", reason="too slow")
    assert answer["done"] and time.monotonic() - begun < 2.0
    champion = facts.alias_of(store.ledger, "line", "champion")
    assert _live(store) == "line:1" and champion is not None and champion.ref == "line:1"
    assert [one.number for one in live.list_deployments(store.ledger)] == [1, 2], "the former deployment is used again"
    (stage,) = [one for one in plan_live(store, declared()) if one.id == "serve:api"]
    assert stage.action == "hold" and "too slow" in stage.reason
    assert roll_back(store, "api")["version"] == "line:2", "a rollback can be taken back"


def test_there_must_be_something_to_return_to(store: Store, fake_up: dict[str, str]) -> None:
    """The first deployment has no former one."""
    make_version(store)
    apply_live(store, declared())
    with pytest.raises(Refused, match="no former deployment"):
        roll_back(store, "api")


def test_changes_of_the_declaration_are_taken_up(store: Store, fake_up: dict[str, str]) -> None:
    """Time limits change at once; threads need a new worker, by the plan; the salt stays."""
    make_version(store)
    apply_live(store, declared())
    salt = _endpoint(store).spec["salt"]
    assert len(salt) == 64
    overrides = {"endpoints": {"api": {"timeout": "3s", "rollout": {"minimum": 7}}}}
    assert _actions(apply_live(store, declared(), overrides)["stages"])["endpoint:api"] == "update"
    spec = _endpoint(store).spec
    assert (spec["timeout"], spec["rollout"]["minimum"], spec["salt"]) == ("3s", 7, salt)
    stages = _actions(apply_live(store, declared(threads=2), overrides)["stages"])
    assert stages == {"endpoint:api": "update", "serve:api": "roll_out"}
    assert apply_live(store, declared(threads=2, salt="given"), overrides)["stages"][0]["action"] == "update"
    assert _endpoint(store).spec["salt"] == "given"


def test_what_is_no_longer_declared_goes(store: Store, fake_up: dict[str, str]) -> None:
    """An endpoint loses traffic and workers, an automation is switched off; records stay, and both can come back."""
    make_version(store)
    apply_live(store, declared("api", "other", automation=True))
    stages = _actions(apply_live(store, declared("other"))["stages"])
    assert stages["endpoint:api"] == "remove" and stages["automation:again"] == "disable"
    assert _endpoint(store).traffic == {} and not live.list_automations(store.ledger)[0].enabled
    assert set(_actions(plan_live(store, declared("other"))).values()) == {"keep"}
    apply_live(store, declared("api", "other"))
    assert _live(store) == "line:1"


def test_an_automation_can_be_switched_off_for_an_environment(store: Store) -> None:
    """The project file decides what is enabled."""
    make_version(store)
    manifest = declared(automation=True)
    apply_live(store, manifest, {"automations": {"again": {"enabled": False}}})
    (rule,) = live.list_automations(store.ledger)
    assert not rule.enabled and rule.spec["actions"] == [{"do": "run", "target": "line"}]
    assert _actions(plan_live(store, manifest))["automation:again"] == "update"


def test_an_automation_keeps_the_code_that_was_applied(store: Store) -> None:
    """Code that changes in the folder is run by an automation when it was applied, not before, and the plan says so."""
    make_version(store)
    first = msgspec.structs.replace(declared(automation=True), digest="sha256:first")
    later = msgspec.structs.replace(first, digest="sha256:later")
    apply_live(store, first)
    stage = next(one for one in plan_live(store, later) if one.id == "automation:again")
    assert stage.action == "update" and "code has changed" in stage.reason
    assert live.list_automations(store.ledger)[0].spec["manifest"] == "sha256:first"
    apply_live(store, later)
    assert live.list_automations(store.ledger)[0].spec["manifest"] == "sha256:later"
    assert _actions(plan_live(store, later))["automation:again"] == "keep"


def test_an_endpoint_without_a_version_waits(store: Store) -> None:
    """Declared before anything was trained."""
    stages = {one.id: one for one in plan_live(store, declared())}
    assert stages["serve:api"].action == "hold" and "trimtab run line" in stages["serve:api"].reason
