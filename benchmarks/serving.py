"""What a single-row request costs beyond the model, beside hand-written floors; and what recording it costs.

Run it with ``python benchmarks/serving.py``; it prints a Markdown table. CPU milliseconds come from ``/proc``: user
and system time of each process, divided by the requests that one load generator sent over kept-alive connections; the
sides take turns, and the best round of each counts. The floors are some twenty lines each: a relay in front of the
same worker (granian and a small client, without token, limits, split, ids, records or restarts), and a server (granian,
msgspec and the same model, without checks of the request, ids, or a second process). Two models: a formula in Python,
which shows the frame, and a scikit-learn pipeline of scaler, one-hot encoder and logistic regression.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from trimtab.core.clock import parse_time
from trimtab.core.errors import Unavailable
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Run, Version
from trimtab.serve.fetching import settings_of
from trimtab.serve.frames import CallFrame, encode
from trimtab.serve.routes import publish
from trimtab.serve.wire import fetch
from trimtab.serve.worker import pinned
from trimtab.store import facts, live
from trimtab.store.intake import Buffered
from trimtab.store.ledger import Tx
from trimtab.store.store import Store, open_store
from trimtab.train.probe import probe

REQUESTS, WARM, CLIENTS, ROUNDS = 3000, 300, 4, 3
APPENDS = 20_000
BUDGETS = {"router": (0.15, "CPU ms"), "worker": (0.2, "CPU ms"), "append": (3.0, "us")}
AT = parse_time("2026-01-01")
NUMBERS = [f"n{index}" for index in range(8)]
KINDS = ["k0", "k1"]
SIGNATURE: Data = {
    "inputs": [
        *({"name": name, "type": "number", "nullable": True, "categories": None} for name in NUMBERS),
        *({"name": name, "type": "string", "nullable": True, "categories": ["a", "b", "c"]} for name in KINDS),
    ],
    "unseen": "refuse",
}
ROW: Data = {**{name: index * 0.25 for index, name in enumerate(NUMBERS)}, "k0": "a", "k1": "b"}
FORMULA = '''
import math


class Formula:
    """A logistic score of eight numbers, row by row."""

    def predict(self, columns):
        numbers = [columns[f"n{index}"] for index in range(8)]
        return [1 / (1 + math.exp(-sum(0.1 * value for value in row if value is not None))) for row in zip(*numbers)]
'''
FLOOR = """
import asyncio, json, sys
from pathlib import Path
import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from trimtab.train.load import load_model

files, meta, port, snapshot = json.loads(Path(sys.argv[1]).read_text())
sys.path.insert(0, snapshot)
model = load_model({"model": Path(files)}, meta, granted=True)
names = [one["name"] for one in meta["signature"]["inputs"]]


class App:
    async def __rsgi__(self, scope, protocol):
        rows = msgspec.json.decode(await protocol())["rows"]
        answer = model.predict({name: [row[name] for row in rows] for name in names})
        protocol.response_bytes(200, [("content-type", "application/json")], msgspec.json.encode(answer))


asyncio.run(Server(App(), address="127.0.0.1", port=port, interface=Interfaces.RSGI, http=HTTPModes.http1,
                   websockets=False, log_enabled=False).serve())
"""

RELAY = """
import asyncio, sys
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server


class Link(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.held = transport, b""

    def data_received(self, data):
        self.held += data
        head, _, body = self.held.partition(b"\\r\\n\\r\\n")
        if len(body) >= int(head.partition(b"content-length: ")[2].split()[0]):
            self.held = b""
            self.answer.set_result(body)


class App:
    idle = []

    async def __rsgi__(self, scope, protocol):
        body, loop = await protocol(), asyncio.get_running_loop()
        link = self.idle.pop() if self.idle else (await loop.create_unix_connection(Link, sys.argv[2]))[1]
        link.answer = loop.create_future()
        head = b"POST /score HTTP/1.1\\r\\nhost: w\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body)
        link.transport.write(head + body)
        answer = await link.answer
        self.idle.append(link)
        protocol.response_bytes(200, [("content-type", "application/json")], answer)


asyncio.run(Server(App(), address="127.0.0.1", port=int(sys.argv[1]), interface=Interfaces.RSGI,
                   http=HTTPModes.http1, websockets=False, log_enabled=False).serve())
"""


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """Return the resident megabytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _send(port: int, path: str, count: int, times: list[float]) -> None:
    body = json.dumps({"rows": [ROW]}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    request = (head + f"content-length: {len(body)}\r\n\r\n").encode() + body
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(count):
            begun = time.perf_counter()
            connection.sendall(request)
            answer = connection.recv(65536)
            times.append(time.perf_counter() - begun)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(answer.decode())


def load(port: int, path: str, count: int) -> list[float]:
    """Send ``count`` requests over a few connections and return their seconds, sorted."""
    times: list[float] = []
    each = count // CLIENTS
    threads = [threading.Thread(target=_send, args=(port, path, each, times)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(times)


def measure(sides: list[tuple[int, str, dict[str, int]]]) -> dict[str, float]:
    """Return CPU milliseconds a request of each process, and latency, the best of rounds that take turns.

    Args:
        sides: port, path and the processes by name; the first name of a side stands for its latency.
    """
    best: dict[str, float] = {}
    for port, path, _ in sides:
        load(port, path, WARM)
    for _ in range(ROUNDS):
        for port, path, pids in sides:
            before = {name: _cpu(pid) for name, pid in pids.items()}
            times = load(port, path, REQUESTS)
            told = {name: (_cpu(pid) - before[name]) / len(times) * 1e3 for name, pid in pids.items()}
            first = next(iter(pids))
            told |= {f"{first} p50": times[len(times) // 2] * 1e3, f"{first} p99": times[len(times) * 99 // 100] * 1e3}
            best |= {name: min(value, best.get(name, value)) for name, value in told.items()}
    return best


def package(store: Store, name: str) -> Version:
    """Add a version of one of the two models."""
    meta: Data = {
        "task": "binary", "classes": [False, True], "positive": True, "signature": SIGNATURE, "trusted": [],
        "golden": "",
    }  # fmt: skip
    folder = store.home.snapshots / ("0" * 64)
    folder.mkdir(exist_ok=True)
    if name == "formula":
        (folder / "formula.py").write_text(FORMULA)
        sys.path.insert(0, str(folder))
        import pickle

        import formula  # type: ignore[import-not-found]

        content, form = pickle.dumps(formula.Formula()), {"format": "pickle", "container": "columns"}
    else:
        content, form = _pipeline(meta)
    blob = store.blobs.put(content)

    def write(tx: Tx) -> Version:
        run = Run(
            id=new_id("run"), kind="make", name=name, state="done", started_at=AT, ended_at=AT,
            code={"snapshot": f"sha256:{folder.name}"},
        )  # fmt: skip
        facts.start_run(tx, run)
        facts.add_grant(tx, blob, "pickle", run.id, "benchmark", AT)
        asset = facts.put_asset(tx, name=name, kind="model", spec={}, at=AT)
        return facts.add_version(
            tx, asset, digest=blob, run_id=run.id, state="published", location={"files": {"model": blob}},
            meta={**meta, **form}, at=AT,
        )  # fmt: skip

    return store.ledger.write(write, what="make")


def _pipeline(meta: Data) -> tuple[bytes, Data]:
    import numpy as np
    import skops.io
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    draw = np.random.default_rng(0)
    rows = np.empty((500, 10), dtype=object)
    rows[:, :8] = draw.normal(size=(500, 8))
    rows[:, 8:] = draw.choice(["a", "b", "c"], size=(500, 2))
    columns = ColumnTransformer([("n", StandardScaler(), list(range(8))), ("k", OneHotEncoder(), [8, 9])])
    model = make_pipeline(columns, LogisticRegression()).fit(rows, draw.random(500) < 0.5)
    content = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=content)
    few = {one["name"]: list(rows[:20, index]) for index, one in enumerate(SIGNATURE["inputs"])}
    return content, {"format": "skops", "trusted": trusted, **probe(model, meta, few, "numpy")}


def setup(root: Path, name: str, port: int, floor_port: int) -> str:
    """Write what every program reads, and return the worker's socket."""
    with open_store(root) as store:
        version = package(store, name)
        spec = {"rollout": {}, "salt": "s", "timeout": "30s", "threads": 1}

        def write(tx: Tx) -> str:
            endpoint = live.put_endpoint(tx, name=f"{name}_api", spec=spec, at=AT)
            made = live.add_deployment(tx, endpoint_id=endpoint.id, version_id=version.id, runtime={}, at=AT)
            live.set_deployment_state(tx, made.id, "ready")
            live.set_traffic(tx, endpoint.id, {made.id: 100.0}, expect_epoch=0)
            return made.id

        deployment = store.ledger.write(write, what="deploy")
        publish(store)
        worker = settings_of(store, live.get_deployment(store.ledger, deployment))
        package_file = str(store.blobs.path(version.location["files"]["model"]))
        snapshot = str(store.home.snapshots / ("0" * 64))
    up = {"root": str(root), "host": "127.0.0.1", "port": port, "control": "none", "token": "", "clock": "real"}
    (root / "up.json").write_text(json.dumps(up))
    (root / "worker.json").write_bytes(msgspec.json.encode(worker))
    (root / "floor.json").write_bytes(msgspec.json.encode([package_file, version.meta, floor_port, snapshot]))
    (root / "floor.py").write_text(FLOOR)
    (root / "relay.py").write_text(RELAY)
    return worker.socket


def compare(root: Path, name: str) -> dict[str, float]:
    """Measure router and worker, the bare relay in front of the same worker, and the bare server."""
    ports = [_port() for _ in range(3)]
    worker_socket = setup(root, name, ports[0], ports[2])
    programs = {
        "worker": ["-m", "trimtab.serve.worker", "worker.json"],
        "router": ["-m", "trimtab.serve.router", "up.json"],
        "relay": ["relay.py", str(ports[1]), worker_socket],
        "floor": ["floor.py", "floor.json"],
    }
    running = {
        key: subprocess.Popen(
            [sys.executable, *words], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **pinned(1)},
        )
        for key, words in programs.items()
    }  # fmt: skip
    pids = {key: process.pid for key, process in running.items()}
    sides = [
        (ports[0], f"/endpoints/{name}_api/invocations", {"router": pids["router"], "worker": pids["worker"]}),
        (ports[1], "/", {"relay": pids["relay"]}),
        (ports[2], "/", {"floor": pids["floor"]}),
    ]
    try:
        for port, path, _ in sides:
            _wait(port, path)
        return {**measure(sides), **{f"{key} MB": _memory(pid) for key, pid in pids.items()}}
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _wait(port: int, path: str) -> None:
    deadline = time.monotonic() + 60
    body, kind = json.dumps({"rows": [ROW]}).encode(), {"content-type": "application/json"}
    while time.monotonic() < deadline:
        try:
            answer = fetch(f"http://127.0.0.1:{port}{path}", method="POST", body=body, headers=kind, timeout=30.0)
            if answer.status == 200:
                return
        except Unavailable:
            time.sleep(0.1)
    raise SystemExit(f"nobody answered on {port}")


def append(folder: Path) -> dict[str, float]:
    """Return microseconds of CPU for encoding and for appending a call's frame of an ordinary size."""
    body = json.dumps({"rows": [ROW]}).encode()
    frame = CallFrame(
        1, "e" * 36, "d" * 36, "v" * 36, "r" * 32, 10**15, 0.9, 0.1, True, 200, 900, 1, "", body, body * 2
    )
    log = Buffered(folder, flush_every=1.0)
    payload = encode(frame)
    begun = time.thread_time()
    for _ in range(APPENDS):
        encode(frame)
    encoded = time.thread_time()
    for _ in range(APPENDS):
        log.append(payload)
    appended = time.thread_time()
    log.close()
    return {"encode": (encoded - begun) / APPENDS * 1e6, "append": (appended - encoded) / APPENDS * 1e6}


def main() -> None:
    """Measure and print."""
    print("| model | router CPU ms | bare relay | worker CPU ms | bare server | p50/p99 ms | relay | server | MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in ("formula", "pipeline"):
        with tempfile.TemporaryDirectory() as folder:
            found = compare(Path(folder) / "s", name)
        shown = [f"{found[one]:.3f}" for one in ("router", "relay", "worker", "floor")]
        shown += [f"{found[f'{one} p50']:.2f}/{found[f'{one} p99']:.2f}" for one in ("router", "relay", "floor")]
        print(f"| {name} | {' | '.join(shown)} | {found['router MB']:.0f} + {found['worker MB']:.0f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        costs = append(Path(folder))
    print(f"\nrecording a call: {costs['encode']:.2f} us to encode its frame, {costs['append']:.2f} us to append it")
    print("budgets: " + ", ".join(f"{name} {most:g} {unit}" for name, (most, unit) in BUDGETS.items()))


if __name__ == "__main__":
    main()
