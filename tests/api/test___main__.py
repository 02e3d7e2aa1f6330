"""The control process as a program: ready soon, light, and gone when it is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.monitor.scene import Scene
from tests.serve.stand import wait_for
from trimtab.api.__main__ import Settings, ask_router
from trimtab.core.errors import Unavailable
from trimtab.serve.routes import load
from trimtab.serve.wire import fetch


@pytest.fixture
def start(scene: Scene) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Return a function that starts the program on the scene's store and waits until it is well."""
    home = scene.store.home
    socket = home.sockets / "control.sock"
    config = home.run / "up.json"
    config.write_text(
        json.dumps({"root": str(home.root), "project": "", "environment": "dev", "control": str(socket), "more": 1})
    )
    started: list[subprocess.Popen[bytes]] = []

    def well() -> bool:
        try:
            return fetch("http://localhost/health", uds=socket, timeout=1.0).status == 200
        except Unavailable:
            assert started[-1].poll() is None
            return False

    def begin() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-m", "trimtab.api", str(config)]))
        wait_for(well, "the control process")
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_it_starts_again_after_a_kill_and_ends_when_told(
    scene: Scene, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """It publishes the routes, takes over the socket of one that was killed, and leaves with 0."""
    for path in scene.store.home.routes.iterdir():
        path.unlink()
    first = start()
    table = load(scene.store.home.routes)
    assert table is not None and "api" in table.endpoints
    first.kill()
    first.wait()
    second = start()
    loaded = Path(f"/proc/{second.pid}/maps").read_text()
    assert not any(name in loaded for name in ("polars", "duckdb", "pyarrow", "numpy"))
    second.send_signal(signal.SIGTERM)
    assert second.wait(10) == 0


def test_a_router_that_is_not_there_is_unavailable() -> None:
    """Asking it for its counts fails in the way that the metrics expect."""
    settings = Settings(root="", project="", environment="dev", control="", port=9, token="x")
    with pytest.raises(Unavailable):
        ask_router(settings)
