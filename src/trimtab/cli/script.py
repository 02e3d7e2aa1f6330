"""``trimtab run SCRIPT.py``: a script as it is, with what it fits and logs recorded by MLflow's client (R31)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from trimtab.cli.server import token_of
from trimtab.core.clock import monotonic
from trimtab.core.errors import Conflict, NotFound, Unavailable
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Run, RunState
from trimtab.core.optional import have
from trimtab.pipeline.runtime import actor
from trimtab.pipeline.scripts import code_of, runtime_of
from trimtab.serve.child import command
from trimtab.serve.wire import fetch
from trimtab.store import facts, leases
from trimtab.store.ledger import Tx
from trimtab.store.store import Store, open_store

KIND = "script"
_PATIENCE_S, _BEAT_S = 30.0, 10.0
_STOPPED = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)}
_AROUND = """
import os, runpy, sys
import mlflow
mlflow.autolog(silent=True)
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def is_script(words: Sequence[str]) -> bool:
    """Say whether the words after ``trimtab run`` are a script and what it is given."""
    return bool(words) and words[0].endswith(".py")


def run_script(words: Sequence[str], *, root: Path, environment: str, by: str = "") -> Data:
    """Run a script and record it, with the runs that MLflow's client makes in it as its children.

    Args:
        words: the script's path, and what it is given.
        root: the store's folder.
        environment: where it runs.
        by: who runs it; by default this account.

    Returns:
        ``{"run", "state", "children", "code"}``; ``code`` is the script's own exit code.

    Raises:
        NotFound: there is no such script.
        Unavailable: MLflow's client is not installed, or no server came up.
    """
    script = Path(words[0])
    if not script.is_file():
        raise NotFound(f"there is no script {words[0]}", fix="name a Python file, or an asset without .py")
    if not have("mlflow"):
        raise Unavailable(
            "MLflow's client, which records what a script fits and logs, is not installed beside trimtab",
            where=words[0],
            fix="pip install mlflow-skinny (or mlflow), or declare the script's steps as assets",
        )
    with contextlib.closing(open_store(root, environment=environment, actor=by or actor())) as store:
        with _server(store) as url, _recorded(store, script, words) as run_id:
            env = {**os.environ, **_settings(store, url, run_id, script)}
            argv = command([sys.executable, "-c", _AROUND, *words])
            code = subprocess.run(argv, env=env, check=False).returncode
            code = code if code >= 0 else 128 - code  # as shells tell of a signal
            _end(store, run_id, code)
        found = facts.get_run(store.ledger, run_id)
        children = [child.id for child in facts.list_runs(store.ledger, parent=run_id)]
        return {"run": run_id, "state": found.state if found else "", "children": children, "code": code}


def _settings(store: Store, url: str, run_id: str, script: Path) -> Mapping[str, str]:
    """Return what tells MLflow's client where to write, and its runs whose children they are."""
    tags = {"trimtab.run": run_id}
    return {
        "MLFLOW_TRACKING_URI": url,
        "MLFLOW_REGISTRY_URI": url,
        "MLFLOW_TRACKING_TOKEN": token_of(store),
        "MLFLOW_EXPERIMENT_NAME": os.environ.get("MLFLOW_EXPERIMENT_NAME", script.stem),
        "MLFLOW_RUN_CONTEXT": msgspec.json.encode(tags).decode(),
        "MLFLOW_DISABLE_TELEMETRY": os.environ.get("MLFLOW_DISABLE_TELEMETRY", "true"),
    }


@contextlib.contextmanager
def _recorded(store: Store, script: Path, words: Sequence[str]) -> Iterator[str]:
    """Begin the run and keep it alive for those who look."""
    run = Run(
        id=new_id("run"), kind=KIND, name=script.stem, state="running", started_at=store.now(),
        actor=store.ledger.actor, params={"argv": list(words)}, code=code_of(script, store), runtime=runtime_of(store),
    )  # fmt: skip

    def begin(tx: Tx) -> None:
        facts.start_run(tx, run)
        leases.claim_run(tx, run.id, leases.holder())

    store.ledger.write(begin, what="run script")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_S):
            with contextlib.suppress(Unavailable):  # the next beat may get through
                leases.beat(store.ledger, [run.id])

    threading.Thread(target=beat, name="beat", daemon=True).start()
    try:
        yield run.id
    except BaseException as error:
        _end(store, run.id, 130 if isinstance(error, KeyboardInterrupt) else 1)
        raise
    finally:
        ended.set()


def _end(store: Store, run_id: str, code: int) -> None:
    """End the run as the script ended, unless it has ended already."""
    found = facts.get_run(store.ledger, run_id)
    if found is None or found.state != "running":
        return
    state: RunState = "done" if code == 0 else "cancelled" if code in _STOPPED else "failed"
    error = {} if code == 0 else {"message": f"the script ended with {code}", "where": "", "fix": "see what it printed"}
    store.ledger.write(
        lambda tx: facts.finish_run(tx, run_id, state=state, ended_at=store.now(), error=error, facts={"code": code}),
        what="script ended",
    )


@contextlib.contextmanager
def _server(store: Store) -> Iterator[str]:
    """Yield the URL of the store's server, which is started for the while if it does not run."""
    running = _running(store)
    if running:
        yield running
        return
    port = _free_port()
    log = store.home.logs / "script-up.log"
    argv = [
        sys.executable, "-m", "trimtab", "up", "--dir", str(store.home.root), "--env", store.environment, "--port",
        str(port),
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(command(argv), stdout=out, stderr=out, cwd=store.home.root, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, log)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = monotonic() + _PATIENCE_S
    while monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(Unavailable):
            if fetch(f"{url}/health", timeout=1.0).status == 200:
                return
        time.sleep(0.05)
    raise Unavailable("the server that records the script did not come up", where=str(log), fix="see its log")


def _running(store: Store) -> str:
    """Return the URL of `trimtab up` on this store, or an empty text where none runs."""
    with (store.home.run / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return ""
        except BlockingIOError:
            told: Data = msgspec.json.decode((store.home.run / "up.json").read_bytes())
    if told["environment"] != store.environment:
        raise Conflict(
            f"`trimtab up` runs on this store for the environment {told['environment']!r}",
            where=str(store.home.root),
            fix=f"use --env {told['environment']}, or stop it",
        )
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(told["host"]), str(told["host"]))  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{told['port']}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
