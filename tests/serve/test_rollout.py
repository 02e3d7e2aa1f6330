"""The rollout's decisions, from the first share to the end of the watch, each recorded with its evidence."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.serve.stand import START, Traffic, deploy, make_version, put_endpoint
from trimtab import check as ck
from trimtab.core.errors import NotFound, Unavailable
from trimtab.core.live import blue_green, canary
from trimtab.core.nouns import Data, Version
from trimtab.serve import rollout
from trimtab.serve.labels import accept_labels
from trimtab.serve.routes import load
from trimtab.store import facts, live
from trimtab.store.calls import calls_of
from trimtab.store.live import RolloutRow
from trimtab.store.store import Store

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
PLAN = canary([10, 50, 100], judge=[ck.errors()], soak="1h", minimum=20, deadline="10h")


class Stage:
    """An endpoint with a stable deployment, and a second version to roll out.

    Args:
        store: the store.
        plan: the endpoint's rollout plan.
        first: there is a stable deployment already.
    """

    def __init__(self, store: Store, plan: Any = PLAN, *, first: bool = True) -> None:
        self.store = store
        self.one, self.two = make_version(store), make_version(store, 2.0)
        self.endpoint_id = put_endpoint(store, rollout=plan)
        self.stable = deploy(store, self.endpoint_id, self.one, share=100) if first else ""
        if first:
            store.ledger.write(lambda tx: facts.set_alias(tx, "line", "champion", self.one.id), what="alias")

    def begin(self, version: Version | None = None, at: Any = START) -> RolloutRow:
        """Start a rollout."""
        act = partial(
            rollout.begin, endpoint=live.get_endpoint(self.store.ledger, self.endpoint_id),
            version_id=(version or self.two).id, at=at, actor="t", runtime={}, why="tests",
        )  # fmt: skip
        return self.store.ledger.write(act, what="begin")

    def state(self, deployment_id: str, state: Any, reason: str = "") -> None:
        """Say what is true of a deployment."""
        self.store.ledger.write(lambda tx: live.set_deployment_state(tx, deployment_id, state, reason), what="state")

    def rolling(self) -> RolloutRow:
        """Start a rollout whose deployment is ready, and take the first decision."""
        row = self.begin()
        self.state(row.candidate_id, "ready")
        self.advance(START)
        return row

    def advance(self, now: Any) -> list[Data]:
        """Decide what is due."""
        return rollout.advance(self.store, now)

    @property
    def row(self) -> RolloutRow:
        """The newest rollout."""
        return live.list_rollouts(self.store.ledger, self.endpoint_id)[-1]

    @property
    def traffic(self) -> dict[str, float]:
        """Who has which share."""
        return live.get_endpoint(self.store.ledger, self.endpoint_id).traffic

    @property
    def champion(self) -> str:
        """The version that the alias points to."""
        found = facts.alias_of(self.store.ledger, "line", "champion")
        return found.ref if found else ""

    def desired(self, deployment_id: str) -> str:
        """Whether a deployment should be up."""
        return live.get_deployment(self.store.ledger, deployment_id).desired


def test_the_first_deployment_takes_all_traffic_when_it_is_ready(store: Store) -> None:
    """There is nothing to compare with: readiness suffices, and the alias is set in the same transaction."""
    stage = Stage(store, first=False)
    row = stage.begin(stage.one)
    assert stage.advance(START) == [] and rollout.waiting(store.ledger) == [row.candidate_id]
    stage.state(row.candidate_id, "ready", "3 golden rows repeated")
    (said,) = stage.advance(START)
    assert said["state"] == "promoted" and "3 golden rows" in said["reason"]
    assert stage.traffic == {row.candidate_id: 100.0} and stage.champion == "line:1"
    assert rollout.waiting(store.ledger) == []


def test_a_good_version_climbs_step_by_step(store: Store) -> None:
    """Each step lasts its soak and its requests; then comes the next share, at last the alias and the watch."""
    stage = Stage(store)
    row = stage.rolling()
    shares = [stage.traffic[row.candidate_id]]
    with Traffic(store) as traffic:
        traffic.send(400, START + MINUTE)
        assert stage.advance(START + 59 * MINUTE) == []
        (said,) = stage.advance(START + HOUR)
        shares.append(stage.traffic[row.candidate_id])
        assert "no evidence of harm" in said["reason"] and "80 % power" in said["reason"]
        assert stage.advance(START + 3 * HOUR) == [], "the requests of a step count from its start"
        traffic.send(100, START + 3 * HOUR)
        (said,) = stage.advance(START + 3 * HOUR + MINUTE)
    assert shares == [10.0, 50.0] and said["state"] == "watching"
    assert stage.traffic == {row.candidate_id: 100.0} and stage.champion == "line:2"
    assert stage.desired(stage.stable) == "up"
    (said,) = stage.advance(START + 5 * HOUR)
    assert said["state"] == "promoted" and stage.desired(stage.stable) == "down"
    assert stage.advance(START + 50 * HOUR) == []
    run = facts.get_run(store.ledger, row.run_id)
    assert run is not None and run.state == "done" and len(run.facts["decisions"]) == 4
    verdicts = facts.verdicts_by(store.ledger, row.run_id)
    assert [verdict.status for verdict in verdicts] == ["pass"] * 4
    assert verdicts[1].subject == stage.endpoint_id and verdicts[1].evidence["checks"]["errors(5xx)"]["e_value"] == 1.0
    table = load(store.home.routes)
    assert table is not None and [one.share for one in table.endpoints["api"].deployments] == [100.0]


def test_harm_is_reversed_at_the_next_look(store: Store) -> None:
    """Traffic returns, the candidate goes down, the verdict has the counts, and apart from that nothing changes."""
    stage = Stage(store)
    row = stage.rolling()
    with Traffic(store) as traffic:
        traffic.send(200, START + MINUTE, status=lambda candidate, number: 500 if candidate else 200)
    (said,) = stage.advance(START + 2 * MINUTE)
    assert said["state"] == "rolled_back" and said["status"] == "fail" and "evidence of harm" in said["reason"]
    assert stage.traffic == {stage.stable: 100.0} and stage.champion == "line:1"
    assert stage.desired(row.candidate_id) == "down" and stage.row.data["outcome"] == "harm"
    evidence = facts.verdicts_by(store.ledger, row.run_id)[-1].evidence
    assert evidence["e_value"] >= 20 and evidence["named"] == ["errors(5xx)"]


def test_a_failing_world_is_no_evidence(store: Store) -> None:
    """Errors in both arms alike do not reverse a rollout."""
    stage = Stage(store)
    stage.rolling()
    with Traffic(store) as traffic:
        traffic.send(600, START + MINUTE, status=lambda candidate, number: 500 if number % 2 else 200)
    (said,) = stage.advance(START + HOUR)
    assert said["state"] == "stepping" and said["status"] == "pass"


def test_a_crash_loop_is_a_tripwire(store: Store) -> None:
    """A deployment that failed is taken out without statistics, before and after it had traffic."""
    stage = Stage(store)
    row = stage.begin()
    stage.state(row.candidate_id, "failed", "ended 3 times")
    (said,) = stage.advance(START)
    assert said["state"] == "rolled_back" and "ended 3 times" in said["reason"]
    row = stage.rolling()
    stage.state(row.candidate_id, "failed", "ended 5 times")
    assert stage.advance(START)[0]["state"] == "rolled_back" and stage.traffic == {stage.stable: 100.0}


def test_a_first_deployment_that_fails_leaves_nothing(store: Store) -> None:
    """There is nothing to return to; the rollout says so."""
    stage = Stage(store, first=False)
    row = stage.begin(stage.one)
    stage.state(row.candidate_id, "failed", "no such file")
    (said,) = stage.advance(START)
    assert said["state"] == "failed" and stage.traffic == {} and stage.champion == ""


def test_nothing_is_decided_that_cannot_be_done(store: Store) -> None:
    """While the stable deployment cannot take traffic, a reversal and the next share wait; then they happen."""
    stage = Stage(store)
    row = stage.rolling()
    stage.state(stage.stable, "starting")
    with Traffic(store) as traffic:
        traffic.send(200, START + MINUTE, status=lambda candidate, number: 500 if candidate else 200)
    assert stage.advance(START + 2 * HOUR) == [] and rollout.waiting(store.ledger) == [stage.stable]
    stage.state(stage.stable, "ready")
    assert stage.advance(START + 2 * HOUR)[0]["state"] == "rolled_back"
    assert row.candidate_id not in stage.traffic


@pytest.mark.parametrize(
    ("policy", "state", "share"),
    [("pause", "paused", 10.0), ("rollback", "rolled_back", 0.0), ("promote", "stepping", 50.0)],
)
def test_without_enough_requests_the_policy_decides(store: Store, policy: Any, state: str, share: float) -> None:
    """At the deadline a step without its requests is inconclusive."""
    plan = canary([10, 50, 100], judge=[ck.errors()], soak="1h", minimum=20, deadline="10h", on_inconclusive=policy)
    stage = Stage(store, plan)
    row = stage.rolling()
    assert stage.advance(START + 9 * HOUR) == []
    (said,) = stage.advance(START + 10 * HOUR)
    assert (said["state"], said["status"]) == (state, "inconclusive")
    assert stage.traffic.get(row.candidate_id, 0.0) == share


def test_a_paused_rollout_waits_for_a_person_and_is_still_judged(store: Store) -> None:
    """A case is open until somebody resumes; harm ends it all the same."""
    stage = Stage(store)
    row = stage.rolling()
    stage.advance(START + 10 * HOUR)
    (case,) = live.list_cases(store.ledger)
    assert case.state == "open" and case.subject == row.id
    with Traffic(store) as traffic:
        traffic.send(300, START + 11 * HOUR)
        assert stage.advance(START + 20 * HOUR) == []
        assert rollout.resume(store, "api", START + 20 * HOUR)["state"] == "stepping"
        assert live.list_cases(store.ledger)[0].state == "closed"
        with pytest.raises(NotFound, match="no paused rollout"):
            rollout.resume(store, "api", START + 20 * HOUR)
        went_on = [one["state"] for one in stage.advance(START + 40 * HOUR)]
        assert went_on == ["stepping"], "its requests were there"
        assert [one["state"] for one in stage.advance(START + 60 * HOUR)] == ["paused"]
        traffic.send(200, START + 61 * HOUR, status=lambda candidate, number: 500 if candidate else 200)
        assert stage.advance(START + 62 * HOUR)[0]["state"] == "rolled_back"
    assert {one.state for one in live.list_cases(store.ledger)} == {"closed"}


def test_a_newer_version_restarts_at_no_traffic(store: Store) -> None:
    """The older candidate is superseded; the newer one begins anew, with evidence of its own."""
    stage = Stage(store)
    first = stage.rolling()
    three = make_version(store, 3.0)
    second = stage.begin(three, START + MINUTE)
    old, new = live.list_rollouts(store.ledger, stage.endpoint_id)
    assert (old.state, old.data["outcome"], new.state) == ("rolled_back", "superseded", "starting")
    assert stage.traffic == {stage.stable: 100.0} and stage.desired(first.candidate_id) == "down"
    assert "superseded by line:3" in old.data["history"][-1]["reason"] and second.stable_id == stage.stable


def test_a_superseded_candidate_keeps_its_share_while_nobody_can_take_it(store: Store) -> None:
    """A rollout is not started over one whose traffic cannot be moved now; nothing of it is kept."""
    stage = Stage(store)
    row = stage.rolling()
    stage.state(stage.stable, "starting")
    with pytest.raises(Unavailable, match="cannot take traffic"):
        stage.begin(make_version(store, 3.0))
    assert len(live.list_rollouts(store.ledger, stage.endpoint_id)) == 1 and row.candidate_id in stage.traffic


def test_blue_green_switches_at_once_and_can_switch_back(store: Store) -> None:
    """All traffic at once; the old one stays warm, and a newer version ends the watch."""
    stage = Stage(store, blue_green(watch="1h"))
    row = stage.rolling()
    assert stage.traffic == {row.candidate_id: 100.0} and stage.row.state == "watching"
    assert stage.champion == "line:2" and stage.desired(stage.stable) == "up"
    three = make_version(store, 3.0)
    later = stage.begin(three, START + MINUTE)
    assert later.stable_id == row.candidate_id and stage.desired(stage.stable) == "down"
    assert live.list_rollouts(store.ledger, stage.endpoint_id)[0].state == "promoted"


def test_late_labels_reverse_a_promotion(store: Store) -> None:
    """While a promotion is watched, labels of predictions from the steps still return traffic and alias."""
    stage = Stage(store, canary([50, 100], judge=[ck.errors(), ck.outcome("late")], soak="1h", minimum=20))
    row = stage.rolling()
    with Traffic(store) as traffic:
        ids = traffic.send(200, START + MINUTE, score=0.9)
    assert stage.advance(START + HOUR)[0]["state"] == "watching" and stage.champion == "line:2"
    arms = {call.prediction_id: call for call in calls_of(store.ledger, ids)}
    items = [{"prediction_id": one, "label": not arms[one].candidate} for one in ids]
    accept_labels(store, "api", items, START + HOUR + MINUTE)
    (said,) = stage.advance(START + HOUR + 2 * MINUTE)
    assert said["state"] == "rolled_back" and "outcome(late)" in said["reason"]
    assert stage.champion == "line:1" and stage.traffic == {stage.stable: 100.0}
    assert stage.desired(row.candidate_id) == "down"


def test_a_promoted_deployment_that_fails_is_replaced_by_the_warm_one(store: Store) -> None:
    """While the former deployment is warm, a crash loop of the new one returns traffic and alias."""
    stage = Stage(store, blue_green(watch="1h"))
    row = stage.rolling()
    stage.state(row.candidate_id, "failed", "ended 5 times")
    (said,) = stage.advance(START + MINUTE)
    assert said["state"] == "rolled_back" and stage.champion == "line:1" and stage.traffic == {stage.stable: 100.0}


def test_advancing_without_anything_due_writes_nothing(store: Store) -> None:
    """Looking is free: no transaction and no audit leaf."""
    stage = Stage(store)
    stage.rolling()
    before = store.ledger.query("SELECT count(*) FROM audit")[0][0]
    for _ in range(5):
        assert stage.advance(START + MINUTE) == []
    assert store.ledger.query("SELECT count(*) FROM audit")[0][0] == before


def test_proof_is_awaited_where_it_is_asked_for(store: Store) -> None:
    """With advance="proven" a step does not end before non-inferiority is shown."""
    plan = canary([50, 100], judge=[ck.errors()], soak="1h", minimum=5, advance="proven", margin=1.0)
    stage = Stage(store, plan)
    stage.rolling()
    with Traffic(store) as traffic:
        traffic.send(50, START + MINUTE)
        assert stage.advance(START + 2 * HOUR) == []
        traffic.send(400, START + 2 * HOUR, status=lambda candidate, number: 200 if candidate else 500)
    assert stage.advance(START + 3 * HOUR)[0]["state"] == "watching"
