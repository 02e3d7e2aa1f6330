"""A stand for tests: a store with small models, and real processes on it: router, workers, supervisor, a control."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from trimtab.core.clock import parse_time, to_micros
from trimtab.core.ids import new_id
from trimtab.core.live import canary
from trimtab.core.nouns import Data, Run, Verdict, Version
from trimtab.serve.collect import collect
from trimtab.serve.frames import CallFrame, calls_folder, decode_call, encode
from trimtab.serve.router import pick, plan_of
from trimtab.serve.routes import table_of
from trimtab.store import facts, live
from trimtab.store.intake import Buffered, Offset, read
from trimtab.store.ledger import Tx
from trimtab.store.store import Store, open_store

START = parse_time("2026-01-01T00:00:00Z")
MODULE = "served_by_tests"
SOURCE = '''
import math, os, signal, time


class Line:
    """Scores a row by its x; what else it does depends on its mood."""

    def __init__(self, slope, mood=""):
        self.slope, self.mood = slope, mood

    def predict(self, columns):
        xs = columns["x"]
        if self.mood == "slow":
            time.sleep(0.4)
        if any(x == 666 for x in xs):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(x == 500 for x in xs) or (self.mood == "bad" and any(x is not None and x < 0 for x in xs)):
            raise ValueError("it does not like this row")
        if any(x == 400 for x in xs):
            return [0.5]  # too few
        if any(x == 404 for x in xs):
            return [math.nan for _ in xs]
        return [1 / (1 + math.exp(-self.slope * (0.0 if x is None else x))) for x in xs]
'''
SIGNATURE: Data = {
    "inputs": [
        {"name": "x", "type": "number", "nullable": True, "categories": None},
        {"name": "c", "type": "string", "nullable": False, "categories": ["a", "b"]},
    ],
    "unseen": "refuse",
}
ROW: Data = {"x": 1.0, "c": "a"}


def make_version(
    store: Store, slope: float = 1.0, *, name: str = "line", mood: str = "", gate: str = "pass", **meta: Any
) -> Version:
    """Add a published version of a small model, as training would: package, golden rows, grant, gate verdict."""
    folder = store.home.snapshots / ("5" * 64)
    folder.mkdir(exist_ok=True)
    path = folder / f"{MODULE}.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    model = module.Line(slope, mood)
    rows = [{"x": float(number), "c": "a"} for number in range(3)]
    scores = model.predict({"x": [row["x"] for row in rows]})
    golden = {"rows": rows, "output": {"predictions": [score >= 0.5 for score in scores], "scores": scores}}
    blob = store.blobs.put(pickle.dumps(model))
    data: Data = {
        "format": "pickle", "trusted": [], "container": "columns", "task": "binary", "classes": [False, True],
        "positive": True, "signature": SIGNATURE, "golden": store.blobs.put(msgspec.json.encode(golden)), **meta,
    }  # fmt: skip

    def write(tx: Tx) -> Version:
        asset = facts.put_asset(tx, name=name, kind="model", spec={}, at=START)
        run = Run(
            id=new_id("run"), kind="make", name=name, state="done", started_at=START, ended_at=START,
            code={"snapshot": f"sha256:{folder.name}"},
        )  # fmt: skip
        facts.start_run(tx, run)
        made = facts.add_version(
            tx, asset, digest=blob, run_id=run.id, state="published", location={"files": {"model": blob}}, meta=data,
            at=START,
        )  # fmt: skip
        facts.add_grant(tx, blob, "pickle", run.id, "tests", START)
        if gate:
            verdict = Verdict(
                check="metric(auc above 0.5)", kind="metric", status=gate, subject=made.id, evidence={},  # type: ignore[arg-type]
                reason="as tests want it", at=START,
            )  # fmt: skip
            facts.add_verdict(tx, verdict)
        return made

    return store.ledger.write(write, what="make")


def endpoint_spec(rollout: Any = None, **more: Any) -> Data:
    """Return an endpoint's spec as `apply` writes it."""
    plan = rollout or canary([10, 50, 100], soak="1h", minimum=20)
    data = {name: getattr(plan, name) for name in plan.__struct_fields__}
    data["steps"] = list(plan.steps)
    data["judge"] = [
        {"name": check.name, "kind": check.kind, "params": dict(check.params), "severity": check.severity}
        for check in plan.judge
    ]
    return {"rollout": data, "sticky": "", "timeout": "10s", "threads": 1, "serves": "line", "salt": "fixed", **more}


def put_endpoint(store: Store, name: str = "api", rollout: Any = None, **more: Any) -> str:
    """Make an endpoint and return its id."""
    spec = endpoint_spec(rollout, **more)
    return store.ledger.write(lambda tx: live.put_endpoint(tx, name=name, spec=spec, at=START).id, what="endpoint")


def deploy(store: Store, endpoint_id: str, version: Version, *, share: float = 0.0, state: str = "ready") -> str:
    """Add a deployment that takes ``share`` percent, the rest staying with the others in proportion; return its id."""

    def write(tx: Tx) -> str:
        made = live.add_deployment(tx, endpoint_id=endpoint_id, version_id=version.id, runtime={}, at=START)
        live.set_deployment_state(tx, made.id, state)  # type: ignore[arg-type]
        if share:
            endpoint = live.get_endpoint(tx, endpoint_id)
            rest = {name: old * (100 - share) / 100 for name, old in endpoint.traffic.items()}
            live.set_traffic(tx, endpoint_id, {**rest, made.id: share}, expect_epoch=endpoint.epoch)
        return made.id

    return store.ledger.write(write, what="deploy")


def frames_of(store: Store) -> list[CallFrame]:
    """Return all frames in the calls log."""
    payloads, _ = read(calls_folder(store.home.intake), Offset(0, 0), 10_000_000)
    return [decode_call(payload) for payload in payloads]


class Traffic:
    """Requests to one endpoint as the router would record them, without any process.

    Args:
        store: the store.
        name: the endpoint.
    """

    def __init__(self, store: Store, name: str = "api") -> None:
        self._store, self._name = store, name
        self._log = Buffered(calls_folder(store.home.intake), 1 << 22, flush_every=0)
        self.sent = 0

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def send(
        self,
        count: int,
        at: datetime,
        *,
        status: Any = lambda candidate, number: 200,
        latency_us: int = 900,
        score: float = 0.7,
        key: str = "",
        wanted: str = "",
    ) -> list[str]:
        """Record requests a second apart from ``at`` on, take them in, and return their prediction ids."""
        plan = plan_of(table_of(self._store.ledger, self._store.home).endpoints[self._name])
        ids = []
        for number in range(count):
            request_id = f"{self.sent:032x}"
            self.sent += 1
            chosen = pick(plan, self._name, key or request_id, wanted)
            code = status(chosen.candidate or chosen.weight == 1.0, number)
            body = {"predictions": [score >= 0.5], "scores": [score]} if code == 200 else {"error": {}}
            frame = CallFrame(
                1, plan.route.id, chosen.target.id, chosen.target.version_id, request_id,
                to_micros(at) + number * 1_000_000, chosen.weight, chosen.candidate_weight, chosen.candidate, code,
                latency_us, int(code == 200), key, msgspec.json.encode({"rows": [ROW]}), msgspec.json.encode(body),
                bool(wanted),
            )  # fmt: skip
            assert self._log.append(encode(frame))
            ids.append(f"{request_id}.0")
        collect(self._store)
        return ids


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Up:
    """`trimtab up` in small: a supervisor process with a router, workers and a control process (``small_up``)."""

    def __init__(self, root: Path, *, clock: str = "real", token: str = "") -> None:
        self.root = root
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {"root": str(root), "host": "127.0.0.1", "port": self.port, "token": token, "clock": clock}
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(timeout=20)

    def start(self) -> Up:
        """Start it and wait until the router answers."""
        with open_store(self.root) as store:
            control = store.home.sockets / "control.sock"
            config = store.home.run / "up.json"
        config.write_text(json.dumps({**self.settings, "control": str(control), "project": "", "environment": "dev"}))
        log = (self.root / "up.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.serve.small_up", "up", str(config)],
                cwd=Path(__file__).parents[2], stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: self.get("/health").status_code == 200, "the control process", self.logs)
        return self

    def logs(self) -> str:
        """Return what all processes printed."""
        texts = [(self.root / "up.log").read_text()]
        texts += [f"--- {path.name}\n{path.read_text()}" for path in sorted((self.root / "logs").glob("*.log"))]
        return "\n".join(texts)[-6000:]

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET something; a refused connection looks like a 503."""
        try:
            return self.client.get(f"{self.url}{path}", **more)
        except httpx.TransportError:
            return httpx.Response(503)

    def score(
        self, *rows: Data, name: str = "api", client: httpx.Client | None = None, **headers: str
    ) -> httpx.Response:
        """POST rows to an endpoint."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        body = {"rows": list(rows) or [ROW]}
        return (client or self.client).post(f"{self.url}/endpoints/{name}/invocations", json=body, headers=named)

    def wait_ready(self, name: str = "api") -> None:
        """Wait until the endpoint answers."""
        wait_for(lambda: self.score(name=name).status_code == 200, f"{name} to answer", self.logs)

    def pid(self, name: str) -> int:
        """Return the process id of a child of the supervisor by the start of its name."""
        pids = json.loads((self.root / "run" / "pids.json").read_text())
        return int(next(pid for known, pid in pids.items() if known.startswith(name)))

    def kill(self, name: str) -> int:
        """Kill a child with SIGKILL and return its process id."""
        old = self.pid(name)
        os.kill(old, signal.SIGKILL)
        return old

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        self.client.close()


def wait_for(holds: Any, what: str, told: Any = lambda: "", patience: float = 30.0) -> None:
    """Wait until ``holds()`` is true."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"waited {patience} s for {what}\n{told()}"
        time.sleep(0.02)


@contextlib.contextmanager
def running(root: Path, **options: Any) -> Iterator[Up]:
    """Run an ``Up`` for a block."""
    up = Up(root, **options)
    try:
        yield up.start()
    finally:
        up.stop()
