"""Real processes: killed, crash-looping, drained, switched under load; nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.stand import (
    ROW,
    Up,
    deploy,
    endpoint_spec,
    frames_of,
    make_version,
    put_endpoint,
    running,
    wait_for,
)
from trimtab import check as ck
from trimtab.core.errors import Unavailable
from trimtab.core.ids import new_hex
from trimtab.core.live import blue_green, canary
from trimtab.core.nouns import Deployment
from trimtab.serve.apply import roll_back, roll_out
from trimtab.serve.collect import collect
from trimtab.serve.supervisor import Process, Supervisor
from trimtab.store import live
from trimtab.store.store import Store, open_store


class Load:
    """Clients that send rows again and again, each until it is answered, and remember what they were told."""

    def __init__(self, up: Up, clients: int = 3) -> None:
        self._up = up
        self._stop = threading.Event()
        self.answered: dict[str, dict[str, Any]] = {}
        self.failed: Counter[int] = Counter()
        self.broken = 0
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        with httpx.Client(timeout=20) as client:
            while not self._stop.is_set():
                self._one(client, new_hex())
                time.sleep(0.003)

    def _one(self, client: httpx.Client, request_id: str) -> None:
        for _ in range(200):
            try:
                answer = self._up.score(client=client, Trimtab_Request_Id=request_id)
            except httpx.TransportError:
                self.broken += 1
                time.sleep(0.05)
                continue
            if answer.status_code != 200:
                self.failed[answer.status_code] += 1
                time.sleep(0.05)
                continue
            self.answered[request_id] = answer.json()
            return
        raise AssertionError(f"{request_id} was never answered")

    def wait(self, more: int) -> None:
        """Wait until so many more requests were answered."""
        wanted = len(self.answered) + more
        wait_for(lambda: len(self.answered) >= wanted, f"{more} more answers", self._up.logs)


def _recorded(root: Path, load: Load) -> None:
    """Check that every answer that a client saw is on record, once, as it was given."""
    with open_store(root) as store:
        collect(store)
        frames = {frame.request_id: frame for frame in frames_of(store) if frame.status == 200}
        rows = {row[0] for row in store.ledger.query("SELECT request_id FROM call WHERE status=200")}
        for request_id, answer in load.answered.items():
            assert json.loads(frames[request_id].response) == answer
            assert request_id in rows


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a store's folder with one deployed version behind ``api``."""
    folder = tmp_path / "s"
    with open_store(folder) as store:
        endpoint = put_endpoint(store, rollout=blue_green(watch="1s"))
        deploy(store, endpoint, make_version(store), share=100)
    return folder


@pytest.fixture
def up(root: Path) -> Iterator[Up]:
    """Return everything running."""
    with running(root) as started:
        started.wait_ready()
        yield started


def _deployments(root: Path) -> list[Deployment]:
    with open_store(root) as store:
        return live.list_deployments(store.ledger)


def test_killing_worker_router_and_control_under_load_loses_nothing(up: Up, root: Path) -> None:
    """SIGKILL one after the other: workers cost no request at all, and each answer that was seen is on record."""
    with Load(up) as load:
        load.wait(50)
        for _ in range(2):
            up.kill("worker")
            load.wait(50)
        assert not load.failed and not load.broken, "a worker's death is not seen by clients"
        up.kill("control")
        load.wait(50)
        assert not load.failed and not load.broken, "scoring does not need the control process"
        for _ in range(2):
            up.kill("router")
            load.wait(50)
    assert not load.failed and load.broken > 0
    up.stop()
    _recorded(root, load)


def test_a_blue_green_switch_under_load_fails_no_request(up: Up, root: Path) -> None:
    """Deploy, switch, drain the old one: every request is answered, by the old version and then by the new one."""
    with open_store(root) as store:
        second = make_version(store, 2.0)
        with Load(up) as load:
            load.wait(50)
            roll_out(store, "api", second.ref)
            wait_for(lambda: _states(store) == {1: "stopped", 2: "ready"}, "the switch", up.logs)
            load.wait(50)
        seen = Counter(answer["version"] for answer in load.answered.values())
        assert not load.failed and not load.broken and set(seen) == {"line:1", "line:2"}
    up.stop()
    _recorded(root, load)


def _states(store: Store) -> dict[int, str]:
    return {one.number: one.state for one in live.list_deployments(store.ledger)}


def test_a_harmful_canary_is_reversed_by_the_judge(root: Path) -> None:
    """A version that fails on negative rows meets the judge: rolled back on live evidence, and taken down."""
    plan = canary([50, 100], judge=[ck.errors()], soak="1h", minimum=20)
    with open_store(root) as store, running(root) as up:
        up.wait_ready()
        spec = endpoint_spec(plan)
        at = store.now()
        store.ledger.write(lambda tx: live.put_endpoint(tx, name="api", spec=spec, at=at), what="plan")
        roll_out(store, "api", make_version(store, 2.0, mood="bad").ref)
        wait_for(lambda: len(live.list_endpoints(store.ledger)[0].traffic) == 2, "the canary", up.logs)
        statuses: Counter[int] = Counter()

        def send() -> bool:
            statuses[up.score({"x": -1.0, "c": "a"}).status_code] += 1
            return _states(store)[2] == "stopped"

        wait_for(send, "the reversal", up.logs)
        (row,) = live.list_rollouts(store.ledger, live.list_endpoints(store.ledger)[0].id)
        assert row.state == "rolled_back" and row.data["outcome"] == "harm"
        assert 5 <= statuses[500] <= 200 and statuses[200] > 0
        assert {up.score({"x": -1.0, "c": "a"}).status_code for _ in range(20)} == {200}


def test_a_version_that_cannot_start_fails_with_its_last_words(up: Up, root: Path) -> None:
    """Three early deaths are a crash loop: the deployment failed, the reason is what its log said, traffic stays."""
    with open_store(root) as store:
        golden = {"rows": [ROW], "output": {"predictions": [True], "scores": [0.123]}}
        blob = store.blobs.put(json.dumps(golden).encode())
        roll_out(store, "api", make_version(store, 2.0, golden=blob).ref)
        wait_for(lambda: _states(store)[2] == "failed", "the crash loop", up.logs)
        reason = live.list_deployments(store.ledger)[1].reason
        assert "3 times" in reason and "0.123 when the model was packaged" in reason
        endpoint = live.list_endpoints(store.ledger)[0]
        wait_for(lambda: live.list_rollouts(store.ledger, endpoint.id)[0].state == "rolled_back", "the tripwire")
        assert up.score().json()["version"] == "line:1"


def test_a_rollback_while_warm_takes_less_than_two_seconds(root: Path) -> None:
    """One command; the next request is answered by the former version."""
    with open_store(root) as store:
        spec = endpoint_spec(blue_green(watch="1h"))
        at = store.now()
        store.ledger.write(lambda tx: live.put_endpoint(tx, name="api", spec=spec, at=at), what="plan")
        with running(root) as up:
            up.wait_ready()
            roll_out(store, "api", make_version(store, 2.0).ref)
            wait_for(lambda: up.score().json()["version"] == "line:2", "the switch", up.logs)
            begun = time.monotonic()
            roll_back(store, "api")
            assert up.score().json()["version"] == "line:1"
            assert time.monotonic() - begun < 2.0


def test_nothing_outlives_a_killed_supervisor_and_a_new_one_picks_up(up: Up, root: Path) -> None:
    """SIGKILL of the supervisor ends every process; started again, the endpoint answers as before."""
    pids = [up.pid(name) for name in ("control", "router", "worker")]
    before = up.score().json()
    up.stop(signal.SIGKILL)
    wait_for(lambda: not any(_alive(pid) for pid in pids), "the children to end")
    with running(root) as again:
        again.wait_ready()
        after = again.score().json()
    assert (after["version"], after["scores"]) == (before["version"], before["scores"])
    assert [one.state for one in _deployments(root)] == ["ready"]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_stopping_answers_what_is_at_work(tmp_path: Path) -> None:
    """SIGTERM while slow requests are at work: each is answered, then everything is gone."""
    with open_store(tmp_path / "s") as store:
        deploy(store, put_endpoint(store), make_version(store, mood="slow"), share=100)
    with running(tmp_path / "s") as up:
        up.wait_ready()
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(up.score().status_code)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        pids = [up.pid(name) for name in ("control", "router", "worker")]
        up.stop()
        for thread in threads:
            thread.join()
    assert answers == [200] * 3 and not any(_alive(pid) for pid in pids)


def test_a_deployment_that_kills_its_worker_again_and_again_fails(root: Path) -> None:
    """Five deaths within a minute are a crash loop also after it was ready; the router says so at once."""
    with running(root) as up, open_store(root) as store:
        up.wait_ready()
        for _ in range(3):
            if _states(store)[1] == "failed":
                break
            assert up.score({"x": 666, "c": "a"}).status_code in (502, 503)
        wait_for(lambda: _states(store)[1] == "failed", "the crash loop", up.logs)
        begun = time.monotonic()
        answer = up.score()
        assert answer.status_code == 503 and "failed" in answer.json()["error"]["message"]
        assert time.monotonic() - begun < 1.0


def test_traffic_that_was_committed_and_not_published_is_published(up: Up, root: Path) -> None:
    """A writer that dies between the two leaves nothing behind: the supervisor stands in."""
    with open_store(root) as store:
        (endpoint,) = live.list_endpoints(store.ledger)
        act = partial(live.set_traffic, endpoint_id=endpoint.id, traffic={}, expect_epoch=endpoint.epoch)
        store.ledger.write(act, what="traffic")
    wait_for(lambda: up.score().status_code == 503, "the routes", up.logs)


def test_a_named_program_that_cannot_start_ends_everything(store: Store) -> None:
    """`trimtab up` on a taken port says so instead of trying for ever."""
    talk = "import sys; print('the port is taken', file=sys.stderr); sys.exit(3)"
    supervisor = Supervisor(store, [Process(name="router", argv=[sys.executable, "-c", talk])])
    with pytest.raises(Unavailable, match=r"router process ends as soon as it is started .*the port is taken"):
        supervisor.run(threading.Event())
    assert supervisor.pids() == {}


def test_a_child_ends_with_its_parent_even_before_it_began(tmp_path: Path) -> None:
    """A child whose parent is gone when it starts does not start."""
    mark = tmp_path / "mark"
    child = Path(__file__).parents[2] / "src" / "trimtab" / "serve" / "child.py"
    stranger = os.getppid() + 10_000_000
    code = os.spawnv(
        os.P_WAIT, sys.executable, [sys.executable, "-I", "-S", str(child), str(stranger), "/bin/touch", str(mark)]
    )
    assert code == 1 and not mark.exists()


def test_a_version_without_its_files_fails_and_others_go_on(up: Up, root: Path) -> None:
    """A package that is gone from the store is told as the deployment's reason."""
    with open_store(root) as store:
        version = make_version(store, 2.0)
        path = store.blobs.path(version.location["files"]["model"])
        path.unlink()
        with contextlib.suppress(Unavailable):
            roll_out(store, "api", version.ref)
        wait_for(lambda: _states(store).get(2) == "failed", "the failure", up.logs)
        assert "not in this store" in live.list_deployments(store.ledger)[1].reason
    assert up.score().status_code == 200
