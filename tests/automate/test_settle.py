"""Settling comes to the same end whatever kills it, and waits only where it should."""

from __future__ import annotations

import random
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from tests.automate.scene import Control, Killed, killed_at, ready, summary
from tests.monitor.scene import DAY, Scene, shifted
from tests.serve.stand import START
from trimtab.check.declare import drift
from trimtab.core.errors import Unavailable
from trimtab.core.nouns import Data
from trimtab.store import live
from trimtab.store.store import open_store

RETRAIN = [("run", "line"), ("roll_out", "api")]
TICK = START + 3 * DAY


def _prepare(root: Path) -> None:
    """Make a store in which much is due at ``TICK``: calls, labels, an alarm, a retraining and a rollout."""
    with open_store(root, actor="tests") as store:
        scene = Scene(store)
        scene.automate(drift("api.calls"), actions=RETRAIN)
        scene.days(1)
        draw = random.Random(5)
        for hours in range(24, 60):
            rows = [shifted(draw) for _ in range(10)]
            scene.send(rows, START + hours * DAY / 24, request_id=f"{hours:032x}", take=hours % 2 == 0)
        scene.label([f"{24:032x}.{row}" for row in range(10)], [True] * 10, START + 2 * DAY)
        store.set_clock("simulated", TICK)
        scene.close()


def _settle(scene: Scene, now: datetime) -> None:
    Control(scene).settle(now)


def _live(root: Path, number: int = -1, *, after: bool = False) -> tuple[Data, bool]:
    """Settle, dying at one write and starting again as a new process would; return the end and whether it died."""
    died = False
    with open_store(root, actor="tests") as store, ready(root):
        scene = Scene(store)
        with killed_at(number, after=after):
            try:
                _settle(scene, TICK)
            except Killed:
                died = True
        scene.close()
    with open_store(root, actor="tests") as store, ready(root):
        scene = Scene(store)
        _settle(scene, TICK)
        scene.store.set_clock("simulated", TICK + DAY)
        _settle(scene, TICK + DAY)
        told = summary(store)
        scene.close()
    return told, died


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store in which much is due."""
    root = tmp_path_factory.mktemp("settle") / "prepared"
    _prepare(root)
    return root


@pytest.mark.parametrize("after", [False, True], ids=["before a commit", "after a commit"])
def test_a_kill_at_any_write_changes_nothing(prepared: Path, tmp_path: Path, after: bool) -> None:
    """Whichever transaction a kill meets, the next settling comes to the same alarms, decisions and traffic."""

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(prepared, tmp_path / name))

    wanted, _ = _live(fresh("smooth"))
    (firing,) = wanted["firings"]
    assert firing[1]["verdict"] == "accepted" and firing[1]["rolled_out"] and len(wanted["alarms"]) == 1
    number, died = 0, True
    while died:
        told, died = _live(fresh(str(number)), number, after=after)
        assert told == wanted, f"killed at write {number}"
        number += 1
    assert number > 7


def test_settling_again_does_nothing(scene: Scene) -> None:
    """A settling at a time that was settled takes in nothing and decides nothing."""
    scene.days(2)
    control = Control(scene)
    control.settle(scene.store.now())
    again = control.settle(scene.store.now())
    assert again == {"calls": 0, "labels": 0, "alarms": 0, "firings": 0, "decisions": [], "waiting": []}


def test_a_tick_takes_in_all_calls_first(scene: Scene) -> None:
    """Calls that nobody had read are counted by the tick that they belong to."""
    draw = random.Random(1)
    scene.send([shifted(draw) for _ in range(10)], START, take=False)
    scene.send([shifted(draw) for _ in range(10)], START + DAY / 2, take=False)
    done = Control(scene).settle(START + DAY)
    assert done["calls"] == 2
    told = {one["signal"]: one["evidence"] for one in Control(scene).monitors.verdicts(START + DAY)}
    assert "drift" in told


def test_a_deployment_that_never_comes_up_is_told(prepared: Path, tmp_path: Path) -> None:
    """Waiting ends with an error that names the deployment; without waiting the next settling goes on."""
    root = Path(shutil.copytree(prepared, tmp_path / "stuck"))
    with open_store(root, actor="tests") as store:
        scene = Scene(store)
        control = Control(scene)
        done = control.settle(TICK, wait=False)
        candidate = live.list_deployments(store.ledger, scene.endpoint_id)[-1]
        assert done["waiting"] == [candidate.id] and candidate.state == "starting"
        with pytest.raises(Unavailable, match="not ready in time") as caught:
            control.settle(TICK, patience_s=0.1)
        assert caught.value.where == candidate.id
        with ready(root):
            assert control.settle(TICK)["waiting"] == []
        scene.close()


def test_a_deployment_that_fails_ends_the_rollout(prepared: Path, tmp_path: Path) -> None:
    """A candidate that cannot start is given up at once and the stable version keeps its traffic."""
    root = Path(shutil.copytree(prepared, tmp_path / "failing"))
    with open_store(root, actor="tests") as store, ready(root, "failed"):
        scene = Scene(store)
        Control(scene).settle(TICK)
        told = summary(store)
        scene.close()
    assert told["traffic"] == [100.0] and told["rollouts"][-1][0] in ("failed", "rolled_back")
    assert told["firings"][0][1]["outcome"] == told["rollouts"][-1][0]
