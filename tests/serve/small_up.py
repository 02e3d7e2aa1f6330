"""`trimtab up` in small: a supervisor process, and a control process of a few lines. Run by ``stand.Up``."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from trimtab.core.errors import TrimtabError
from trimtab.core.nouns import Data
from trimtab.serve.collect import collect
from trimtab.serve.labels import accept_labels
from trimtab.serve.rollout import advance
from trimtab.serve.routes import publish
from trimtab.serve.serving import leave, run_app
from trimtab.serve.supervisor import Process, Supervisor
from trimtab.store.store import Store, open_store


def _up(config: Path) -> None:
    settings = json.loads(config.read_text())
    store = open_store(Path(settings["root"]), actor="up")
    python = [sys.executable, "-m"]
    supervisor = Supervisor(
        store,
        [
            Process(name="control", argv=[*python, "tests.serve.small_up", "control", str(config)]),
            Process(name="router", argv=[*python, "trimtab.serve.router", str(config)]),
        ],
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_tell_pids, args=(supervisor, store.home.run / "pids.json"), daemon=True).start()
    with store:
        supervisor.run(stop)


def _tell_pids(supervisor: Supervisor, path: Path) -> None:
    while True:
        path.with_suffix(".next").write_text(json.dumps(supervisor.pids()))
        path.with_suffix(".next").replace(path)
        time.sleep(0.02)


class Control:
    """Answers what the router passes on, and moves rollouts on."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        body = await protocol()
        try:
            status, data = self._answer(scope.path, body)
        except TrimtabError as error:
            status, data = 404, {"error": error.as_data()}
        protocol.response_bytes(status, [("content-type", "application/json")], msgspec.json.encode(data))

    def _answer(self, path: str, body: bytes) -> tuple[int, Data]:
        if path == "/health":
            return 200, {"ok": True}
        if path == "/clock":
            return 200, {"now": self._store.now().isoformat()}
        if path.endswith("/labels"):
            items = json.loads(body)["labels"]
            return 200, accept_labels(self._store, path.split("/")[2], items, self._store.now())
        return 200, {"path": path, "length": len(body)}


def _control(config: Path) -> None:
    settings = json.loads(config.read_text())
    store = open_store(Path(settings["root"]), actor="control")
    publish(store)

    def loop() -> None:
        while True:
            collect(store)
            if settings["clock"] == "real":
                advance(store, store.now())
            time.sleep(0.1)

    threading.Thread(target=loop, daemon=True).start()
    asyncio.run(run_app(Control(store), uds=Path(settings["control"])))
    leave(0)


if __name__ == "__main__":
    {"up": _up, "control": _control}[sys.argv[1]](Path(sys.argv[2]))
