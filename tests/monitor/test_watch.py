"""Ticks of all watches: alarms are recorded once, state and offsets move together, watches start anew when due."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.scene import DAY, Scene, shifted, usual
from tests.serve.stand import START, deploy, make_version
from trimtab.check.declare import drift, performance
from trimtab.core.clock import to_micros
from trimtab.core.errors import Conflict
from trimtab.monitor.watch import Monitors, restart
from trimtab.store import calls, facts, live
from trimtab.store.intake import Offset
from trimtab.store.ledger import Ledger
from trimtab.store.store import open_store

DRIFT = drift("api.calls")
LOSS = performance("api")


def _alarms(scene: Scene) -> list[str]:
    return [str(alarm.data["signal"]) for alarm in live.list_alarms(scene.store.ledger)]


def test_a_quiet_stream_raises_nothing(scene: Scene) -> None:
    """Thirty days as in training leave no alarm; both watches say pass, and were looked at each day."""
    scene.automate(DRIFT)
    scene.days(30)
    assert _alarms(scene) == []
    told = {one["signal"]: one for one in scene.monitors.verdicts(scene.store.now())}
    assert {one["status"] for one in told.values()} == {"pass"}
    assert told["drift"]["evidence"]["rows"] == 3000 and told["drift"]["by_default"] is False
    assert told["performance"]["evidence"]["rows"] == 29, "a day is one observation by default"


def test_drift_and_decay_are_separate_alarms(scene: Scene) -> None:
    """Drift of an input alone raises the drift alarm only, wrong predictions alone the performance alarm only."""
    scene.automate(DRIFT)
    scene.days(3)
    for _, ticked in scene.days(10, shifted, first=3):
        for alarm in ticked.alarms:
            assert alarm.data["signal"] == "drift" and alarm.data["evidence"]["features"][0]["feature"] == "x"
    assert "drift" in _alarms(scene)


def test_decay_is_found_without_drift(scene: Scene) -> None:
    """Inputs as in training whose labels come out wrong raise the performance alarm only."""
    scene.automate(LOSS)
    scene.days(15, wrong=0.5)
    assert set(_alarms(scene)) == {"performance"}


def test_an_alarm_has_its_verdict_and_evidence(scene: Scene) -> None:
    """An alarm names its check, endpoint and version, and a recorded verdict with the whole evidence."""
    scene.automate(DRIFT)
    scene.days(10, shifted)
    alarm = live.list_alarms(scene.store.ledger)[0]
    (verdict,) = [one for one in facts.verdicts_of(scene.store.ledger, scene.endpoint_id) if one.at == alarm.at]
    assert alarm.check == DRIFT.name and alarm.data["version"] == "line:1" and alarm.data["verdict"] == verdict.id
    assert verdict.status == "fail" and verdict.evidence == alarm.data["evidence"]
    assert verdict.evidence["tick"] == alarm.at.isoformat() and verdict.evidence["e_value"] >= 1.0


def test_a_watch_starts_anew_after_its_alarm(scene: Scene) -> None:
    """After an alarm the evidence is gathered from nothing, and the count of alarms stays."""
    scene.automate(DRIFT)
    ticks = scene.days(10, shifted)
    first = next(day for day, ticked in ticks if ticked.alarms)
    told = {one["signal"]: one for one in scene.monitors.verdicts(scene.store.now())}["drift"]
    (alarm,) = live.list_alarms(scene.store.ledger)
    assert told["alarms"] == 1 + alarm.data["repeats"] >= 2
    assert told["evidence"]["rows"] < 1000 - 100 * (first + 1) + 1


def test_one_cause_is_one_alarm(scene: Scene) -> None:
    """While the same champion answers, drift that is found again is told by the alarm that is open."""
    scene.automate(DRIFT)
    scene.days(10, shifted)
    (alarm,) = live.list_alarms(scene.store.ledger)
    latest = alarm.data["latest"]
    assert alarm.at.isoformat() == alarm.data["evidence"]["tick"] < latest["at"] == latest["evidence"]["tick"]
    verdicts = {one.id: one for one in facts.verdicts_of(scene.store.ledger, scene.endpoint_id)}
    assert verdicts[alarm.data["verdict"]].evidence == alarm.data["evidence"]
    assert verdicts[latest["verdict"]].reason == latest["reason"]


def test_a_tick_without_news_changes_nothing(scene: Scene) -> None:
    """Ticking again at the same time and later leaves state, offsets and audit as they are."""
    scene.days(3)
    before, leaves = scene.state(), scene.store.ledger.query("SELECT count(*) FROM audit")
    for now in (scene.store.now(), scene.store.now() + DAY):
        assert not scene.monitors.tick(now).moved
    assert scene.state() == before and scene.store.ledger.query("SELECT count(*) FROM audit") == leaves


def test_a_kill_between_ticks_changes_nothing(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick that dies before it has committed is done again by the next process with the same result."""
    scene.automate(DRIFT)
    with open_store(tmp_path / "other", actor="tests") as store:
        smooth = Scene(store)
        smooth.automate(DRIFT)
        smooth.days(8, shifted)
        smooth.close()
        wanted = [(alarm.at, alarm.check) for alarm in live.list_alarms(store.ledger)]
    write = Ledger.write
    dies = iter([False, True] * 1000)

    def dying(self: Ledger, fn: Callable[..., Any], *, what: str, **more: Any) -> Any:
        if what == "monitor tick" and next(dies):
            raise KeyboardInterrupt
        return write(self, fn, what=what, **more)

    monkeypatch.setattr(Ledger, "write", dying)
    draw = random.Random(1)
    for day in range(8):
        begin = START + day * DAY
        batch = [shifted(draw) for _ in range(100)]
        ids = scene.send(batch, begin + DAY / 4)
        scene.store.set_clock("simulated", begin + DAY)
        scene.label(ids, [(draw.random() < score) != (draw.random() < 0.0) for _, score in batch], begin + DAY)
        while True:
            scene.monitors = Monitors(scene.store)
            try:
                scene.monitors.tick(begin + DAY)
            except KeyboardInterrupt:
                continue
            break
    assert [(alarm.at, alarm.check) for alarm in live.list_alarms(scene.store.ledger)] == wanted


def test_another_champion_starts_the_watches_anew(scene: Scene) -> None:
    """With another version at all traffic the reference is that version's, and its predecessor's alarms are over."""
    scene.automate(DRIFT)
    scene.days(10, shifted)
    assert any(alarm.resolved_at is None for alarm in live.list_alarms(scene.store.ledger))
    deploy(scene.store, scene.endpoint_id, scene.make(2), share=100)
    scene.monitors.tick(scene.store.now())
    told = scene.monitors.verdicts(scene.store.now())
    assert {one["evidence"]["version"] for one in told} == {"line:2"}
    assert {one["status"] for one in told} == {"inconclusive"}
    resolved = [alarm.resolved_at for alarm in live.list_alarms(scene.store.ledger)]
    assert all(at == scene.store.now() for at in resolved)


def test_only_the_champions_rows_count(scene: Scene) -> None:
    """Rows and labels of another version count for nothing."""
    scene.automate(DRIFT)
    second = make_version(scene.store, 2.0)
    other = deploy(scene.store, scene.endpoint_id, second)
    draw = random.Random(1)
    ids = scene.send([shifted(draw) for _ in range(200)], START, version=second, deployment=other)
    scene.label(ids, [True] * 200, START + DAY)
    scene.monitors.tick(START + DAY)
    assert {one["evidence"]["rows"] for one in scene.monitors.verdicts(START + DAY)} == {0}


def test_labels_that_arrive_at_the_time_of_a_tick_count_in_the_next(scene: Scene) -> None:
    """Simulated time stands still: labels posted after a tick of the same time are neither lost nor doubled."""
    scene.automate(performance("api", batch=10))
    draw = random.Random(1)
    ids = scene.send([usual(draw) for _ in range(30)], START)
    for part in (ids[:10], ids[10:20], ids[20:]):
        scene.label(part, [True] * 10, START)
        scene.monitors.tick(START)
    scene.monitors.tick(START + DAY)
    (told,) = [one for one in scene.monitors.verdicts(START + DAY) if one["signal"] == "performance"]
    assert told["evidence"]["rows"] == 30


def test_a_restart_forgets_the_evidence(scene: Scene) -> None:
    """After a decision every watch of the endpoint gathers evidence from that time on."""
    scene.days(5)
    now = scene.store.now()
    watched = scene.monitors.of_endpoint("api", now)
    scene.store.ledger.write(lambda tx: restart(tx, watched, now), what="decision")
    told = scene.monitors.verdicts(now)
    assert {one["evidence"]["rows"] for one in told} == {0}
    assert {one["evidence"]["since"] for one in told} == {now.isoformat()}


def test_a_check_that_cannot_watch_is_an_open_case_once(scene: Scene) -> None:
    """A check on a column that is not there stops no other watch and is told to people, once."""
    scene.automate(drift("api.calls", columns=["nonsense"]))
    for first in (0, 2):
        scene.monitors = Monitors(scene.store)
        scene.days(2, first=first)
    (case,) = live.list_cases(scene.store.ledger)
    assert case.kind == "monitor" and "was not trained on" in case.title
    assert [one["signal"] for one in scene.monitors.verdicts(scene.store.now())] == ["performance"]


def test_two_that_tick_at_once_do_not_count_twice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick whose part of the log was read by somebody else meanwhile is refused."""
    scene.send([usual(random.Random(1)) for _ in range(10)], START)
    write = Ledger.write

    def overtaken(self: Ledger, fn: Callable[..., Any], *, what: str, **more: Any) -> Any:
        if what == "monitor tick":
            write(self, lambda tx: calls.put_offset(tx, "monitors", Offset(9, 9)), what="somebody else")
        return write(self, fn, what=what, **more)

    monkeypatch.setattr(Ledger, "write", overtaken)
    with pytest.raises(Conflict):
        scene.monitors.tick(START + DAY)


def test_nothing_ahead_of_the_clock_is_looked_at(scene: Scene) -> None:
    """A look at a time knows only what had happened by then."""
    scene.automate(drift("api.calls", batch=50))
    draw = random.Random(1)
    scene.send([usual(draw) for _ in range(50)], START)
    scene.send([shifted(draw) for _ in range(50)], START + 2 * DAY)
    scene.monitors.tick(START + DAY)
    (told,) = [one for one in scene.monitors.verdicts(START + DAY) if one["signal"] == "drift"]
    assert told["evidence"]["rows"] == 50 and told["evidence"]["since"] == (START + DAY).isoformat()
    assert to_micros(START + 2 * DAY) > to_micros(START + DAY)
