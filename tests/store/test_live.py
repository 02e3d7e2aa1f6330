"""Endpoints, traffic, deployments, rollouts, automations, firings, alarms, cases and check state."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from tests.store.builders import START, at, make, write
from trimtab.core.errors import Conflict, NotFound, WrongUse
from trimtab.core.ids import new_id
from trimtab.core.nouns import Deployment, Endpoint
from trimtab.store import live
from trimtab.store.ledger import Ledger, Tx, within
from trimtab.store.live import RolloutRow


def _endpoint(ledger: Ledger, name: str = "delay_api", **spec: Any) -> Endpoint:
    made = write(ledger, live.put_endpoint, name=name, spec=spec, at=START)
    assert isinstance(made, Endpoint)
    return made


def _deployment(ledger: Ledger, endpoint: Endpoint, *, ready: bool = True) -> Deployment:
    def add(tx: Tx) -> Deployment:
        version = make(tx, "delays", kind="model")
        made = live.add_deployment(
            tx, endpoint_id=endpoint.id, version_id=version.id, runtime={"python": "3.11"}, at=START
        )
        if ready:
            live.set_deployment_state(tx, made.id, "ready", "")
        return live.get_deployment(tx, made.id)

    return ledger.write(add, what="deploy")


def test_an_endpoint_is_kept_and_updated(ledger: Ledger) -> None:
    """Putting an endpoint again keeps its id and traffic and takes over a changed spec."""
    first = _endpoint(ledger, serves="delays")
    assert (first.traffic, first.epoch) == ({}, 0)
    again = _endpoint(ledger, serves="delays", sticky="carrier")
    assert (again.id, again.spec["sticky"]) == (first.id, "carrier")
    assert live.find_endpoint(ledger, "delay_api") == live.get_endpoint(ledger, first.id) == again
    assert live.list_endpoints(ledger) == [again]
    assert live.list_endpoints(within(ledger, environment="prod")) == []


def test_a_missing_endpoint_names_the_closest(ledger: Ledger) -> None:
    """An unknown name says which endpoint comes closest."""
    _endpoint(ledger)
    with pytest.raises(NotFound, match="did you mean 'delay_api'"):
        live.need_endpoint(ledger, "delay_ap")
    with pytest.raises(NotFound):
        live.get_endpoint(ledger, new_id("end"))


def test_deployments_count_up_within_their_endpoint(ledger: Ledger) -> None:
    """Each endpoint numbers its deployments from one; they start wanted and starting."""
    endpoint, other = _endpoint(ledger), _endpoint(ledger, "other_api")
    first, second = (_deployment(ledger, endpoint, ready=False) for _ in range(2))
    assert (first.number, second.number, first.desired, first.state) == (1, 2, "up", "starting")
    assert _deployment(ledger, other).number == 1
    assert live.list_deployments(ledger, endpoint.id) == [first, second]
    assert len(live.list_deployments(ledger)) == 3


def test_traffic_is_split_by_compare_and_set(ledger: Ledger) -> None:
    """Traffic changes when its epoch is what was read, drops zeros, and counts the epoch up."""
    endpoint = _endpoint(ledger)
    one, two = _deployment(ledger, endpoint), _deployment(ledger, endpoint)
    changed = write(ledger, live.set_traffic, endpoint.id, {one.id: 100 / 3, two.id: 200 / 3}, expect_epoch=0)
    assert live.get_endpoint(ledger, endpoint.id) == changed
    assert changed.epoch == 1
    with pytest.raises(Conflict, match="epoch 1, not 0"):
        write(ledger, live.set_traffic, endpoint.id, {two.id: 100}, expect_epoch=0)
    done = write(ledger, live.set_traffic, endpoint.id, {one.id: 0, two.id: 100}, expect_epoch=1)
    assert done.traffic == {two.id: 100.0}
    assert write(ledger, live.set_traffic, endpoint.id, {}, expect_epoch=2).traffic == {}


@pytest.mark.parametrize("shares", [(50, 49), (150, -50), (100.1, 0), (math.nan, 50), (math.inf, 0)])
def test_shares_that_do_not_add_up_are_refused(ledger: Ledger, shares: tuple[float, float]) -> None:
    """Shares that do not sum to 0 or 100, or are negative or no numbers, change nothing."""
    endpoint = _endpoint(ledger)
    one, two = _deployment(ledger, endpoint), _deployment(ledger, endpoint)
    with pytest.raises(WrongUse, match="would sum to"):
        write(ledger, live.set_traffic, endpoint.id, {one.id: shares[0], two.id: shares[1]}, expect_epoch=0)
    assert live.get_endpoint(ledger, endpoint.id).epoch == 0


def test_traffic_goes_to_ready_deployments_of_the_endpoint_only(ledger: Ledger) -> None:
    """A deployment that is not ready, or is another endpoint's, gets no traffic."""
    endpoint, other = _endpoint(ledger), _endpoint(ledger, "other_api")
    starting, foreign = _deployment(ledger, endpoint, ready=False), _deployment(ledger, other)
    with pytest.raises(WrongUse, match="is starting"):
        write(ledger, live.set_traffic, endpoint.id, {starting.id: 100}, expect_epoch=0)
    with pytest.raises(WrongUse, match="another endpoint"):
        write(ledger, live.set_traffic, endpoint.id, {foreign.id: 100}, expect_epoch=0)


def test_a_deployment_with_traffic_cannot_go_down(ledger: Ledger) -> None:
    """What has traffic stays up; without traffic it goes down and can come up again."""
    endpoint = _endpoint(ledger)
    one = _deployment(ledger, endpoint)
    write(ledger, live.set_traffic, endpoint.id, {one.id: 100}, expect_epoch=0)
    with pytest.raises(Conflict, match="has traffic"):
        write(ledger, live.set_desired, one.id, "down")
    write(ledger, live.set_traffic, endpoint.id, {}, expect_epoch=1)
    write(ledger, live.set_desired, one.id, "down")
    write(ledger, live.set_deployment_state, one.id, "stopped", "asked to")
    write(ledger, live.set_desired, one.id, "up")
    again = live.get_deployment(ledger, one.id)
    assert (again.desired, again.state, again.reason) == ("up", "starting", "")


def test_a_deployment_has_known_states_only(ledger: Ledger) -> None:
    """A state that is none, or a deployment that is none, is refused."""
    one = _deployment(ledger, _endpoint(ledger))
    with pytest.raises(WrongUse, match="'sleeping' is not a state"):
        write(ledger, live.set_deployment_state, one.id, "sleeping", "")
    with pytest.raises(NotFound):
        write(ledger, live.set_deployment_state, new_id("dep"), "ready", "")


def _rollout(endpoint: Endpoint, state: Any = "starting") -> RolloutRow:
    return RolloutRow(
        id=new_id("rol"), endpoint_id=endpoint.id, run_id="run_1", state=state, stable_id="", candidate_id="dep_1",
        data={"step": 0}, updated_at=START,
    )  # fmt: skip


def test_an_endpoint_has_one_rollout_at_a_time(ledger: Ledger) -> None:
    """A second rollout waits until the first is over."""
    endpoint = _endpoint(ledger)
    row = _rollout(endpoint)
    write(ledger, live.add_rollout, row)
    with pytest.raises(Conflict, match="still starting"):
        write(ledger, live.add_rollout, _rollout(endpoint))
    assert live.active_rollout(ledger, endpoint.id) == row
    write(ledger, live.update_rollout, msgspec.structs.replace(row, state="promoted"), "starting")
    assert live.active_rollout(ledger, endpoint.id) is None
    second = _rollout(endpoint)
    write(ledger, live.add_rollout, second)
    assert [one.state for one in live.list_rollouts(ledger, endpoint.id)] == ["promoted", "starting"]


def test_a_rollout_moves_by_compare_and_set_and_ends_for_good(ledger: Ledger) -> None:
    """A rollout's state changes from what was expected, and never after it has ended."""
    row = _rollout(_endpoint(ledger))
    write(ledger, live.add_rollout, row)
    step = msgspec.structs.replace(row, state="stepping", data={"step": 1}, updated_at=at(1))
    with pytest.raises(Conflict, match="is starting, not paused"):
        write(ledger, live.update_rollout, step, "paused")
    write(ledger, live.update_rollout, step, "starting")
    assert live.active_rollout(ledger, row.endpoint_id) == step
    write(ledger, live.update_rollout, msgspec.structs.replace(step, state="rolled_back"))
    with pytest.raises(Conflict, match="cannot become stepping"):
        write(ledger, live.update_rollout, step)
    with pytest.raises(WrongUse, match="not a state"):
        write(ledger, live.update_rollout, msgspec.structs.replace(step, state="lost"))
    with pytest.raises(NotFound):
        write(ledger, live.update_rollout, msgspec.structs.replace(step, id=new_id("rol")))


def test_an_automation_fires_once_for_a_key(ledger: Ledger) -> None:
    """The same cause fires an automation once; another automation has its own keys."""
    put = {"spec": {"when": 1}, "enabled": True, "at": START}
    one = write(ledger, live.put_automation, name="retrain", **put)
    two = write(ledger, live.put_automation, name="report", **put)
    assert live.list_automations(ledger) == [two, one]
    fired = write(ledger, live.add_firing, automation_id=one.id, key="alarm-1", at=START, data={"a": 1})
    assert fired.state == "pending"
    assert write(ledger, live.add_firing, automation_id=one.id, key="alarm-1", at=at(1), data={}) is None
    assert write(ledger, live.add_firing, automation_id=two.id, key="alarm-1", at=at(1), data={}) is not None
    done = msgspec.structs.replace(fired, state="done", run_id="run_1", data={"a": 2})
    write(ledger, live.update_firing, done)
    assert live.list_firings(ledger, one.id) == [done]
    assert len(live.list_firings(ledger)) == 2
    with pytest.raises(NotFound):
        write(ledger, live.update_firing, msgspec.structs.replace(done, id=new_id("fir")))
    changed = write(ledger, live.put_automation, name="retrain", spec={"when": 2}, enabled=False, at=at(1))
    assert (changed.id, changed.enabled, changed.spec) == (one.id, False, {"when": 2})


def test_alarms_stay_and_can_be_over(ledger: Ledger) -> None:
    """Alarms are listed by time; the first time that one was over stands."""
    endpoint = _endpoint(ledger)
    late = write(ledger, live.add_alarm, check="drift", endpoint_id=endpoint.id, at=at(2), data={"x": 1.0})
    early = write(ledger, live.add_alarm, check="loss", endpoint_id="", at=at(1), data={})
    assert live.list_alarms(ledger) == [early, late]
    assert live.list_alarms(ledger, endpoint.id) == [late]
    for day in (3, 4):
        write(ledger, live.resolve_alarm, late.id, at(day))
    assert live.list_alarms(ledger, endpoint.id)[0].resolved_at == at(3)
    with pytest.raises(NotFound):
        write(ledger, live.resolve_alarm, new_id("alm"), at(3))


def test_a_case_is_open_once_and_closed_once(ledger: Ledger) -> None:
    """Opening a case for the same matter returns the open one; closing needs an open one."""
    case = {"kind": "approval", "title": "Roll out?", "subject": "dep_1", "at": START, "facts": {"a": 1}}
    first = write(ledger, live.open_case, **case)
    assert write(ledger, live.open_case, **case) == first
    write(ledger, live.close_case, first.id, run_id="run_1")
    assert live.list_cases(ledger)[0].closed_by == "run_1"
    with pytest.raises(Conflict, match="not open"):
        write(ledger, live.close_case, first.id, run_id="run_2")
    assert write(ledger, live.open_case, **case).id != first.id


def test_state_is_kept_by_key_and_environment(ledger: Ledger) -> None:
    """A check's state is replaced by the next, and belongs to one environment."""
    for data in ({"n": 1, "list": [0.1, None]}, {"n": 2}):
        write(ledger, live.put_state, "drift/x", data)
        assert live.get_state(ledger, "drift/x") == data
    assert live.get_state(within(ledger, environment="prod"), "drift/x") is None
