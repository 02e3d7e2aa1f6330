"""Keeps processes alive: named ones, and a worker for each deployment that the ledger wants up.

The ledger says what should be (``desired``) and the supervisor writes what is (``state`` and ``reason``). It holds
nothing that another one could not find again: killed and started anew, it starts everything that should be up. Its
children die with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from trimtab.core.clock import monotonic, parse_duration
from trimtab.core.errors import Fault, TrimtabError, Unavailable
from trimtab.core.nouns import Deployment, DeploymentState
from trimtab.serve.child import command
from trimtab.serve.collect import STREAM as COLLECTED
from trimtab.serve.fetching import Fetching
from trimtab.serve.fold import STREAM as FOLDED
from trimtab.serve.routes import publish, socket_of
from trimtab.serve.wire import fetch
from trimtab.serve.worker import Proof, pinned
from trimtab.store import live
from trimtab.store.calls import get_offset
from trimtab.store.intake import SEGMENT_BYTES
from trimtab.store.store import Store

TICK_S = 0.05
WINDOW_S = 60.0
EARLY_EXITS, ALL_EXITS = 3, 5
SETTLED_S = 5.0
READY_S = 120.0
DRAIN_S = 0.5
GRACE_S = 10.0
FOLD_S, FOLD_BYTES = 60.0, 48 * 1024 * 1024
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_LOG_BYTES = 8 * 1024 * 1024


class Process(Struct, frozen=True, kw_only=True):
    """A program that should always run."""

    name: str
    argv: list[str]


class Child:
    """One program and how it has fared: started, ended, started again.

    Attributes:
        ready: it has been ready since its last start.
        settled: it has ever been ready.
    """

    def __init__(self, name: str, argv: Sequence[str], logs: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.ready = False
        self.settled = False
        self.started = 0.0
        self._argv = list(argv)
        self._log = logs / f"{name}.log"
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._exits: list[float] = []
        self._next = 0.0

    @property
    def log(self) -> Path:
        """The file with what it printed."""
        return self._log

    @property
    def pid(self) -> int:
        """Its process id, or 0 while it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """It runs, as far as is known."""
        return self._process is not None

    @property
    def exits(self) -> int:
        """How often it ended within the last minute."""
        return sum(monotonic() - at < WINDOW_S for at in self._exits)

    def start(self) -> bool:
        """Start it if it does not run and its pause is over; say whether it was started."""
        if self._process is not None or monotonic() < self._next:
            return False
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > _LOG_BYTES:
                self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                command(self._argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment
            )
        self.started, self.ready = monotonic(), False
        return True

    def ended(self) -> int | None:
        """Return the exit code once, when it has ended since the last look."""
        if self._process is None or self._process.poll() is None:
            return None
        code, self._process = self._process.returncode, None
        now = monotonic()
        self._exits = [at for at in self._exits if now - at < WINDOW_S] + [now]
        # The first death is mended at once; a process that keeps dying gets longer and longer pauses.
        longer = _FIRST_PAUSE_S * 2.0 ** (len(self._exits) - 2)
        self._next = now + (0.0 if len(self._exits) == 1 else min(_LONGEST_PAUSE_S, longer))
        return int(code)

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def end(self, patience_s: float) -> None:
        """Ask it to end, insist after ``patience_s`` seconds, and wait."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def last_words(self, lines: int = 4) -> str:
        """Return the last lines of its log, in one line."""
        with contextlib.suppress(OSError):
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
                text = log.read().decode("utf-8", "replace")
            return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])[-800:]
        return ""


class _Worker:
    """The child behind a deployment."""

    def __init__(self, child: Child, deployment: Deployment, timeout_s: float) -> None:
        self.child = child
        self.deployment = deployment
        self.timeout_s = timeout_s
        self.draining = 0.0
        self.asked = False


class Supervisor:
    """Runs until it is told to stop.

    Args:
        store: its ledger says which deployments should be up.
        processes: programs to keep alive beside them; the one called ``router`` is ended first.
    """

    def __init__(self, store: Store, processes: Sequence[Process]) -> None:
        self._store = store
        logs = store.home.logs
        self._named = [Child(one.name, one.argv, logs, os.environ) for one in processes]
        self._workers: dict[str, _Worker] = {}
        self._seen = -1
        self._fetching = Fetching(store)
        self._told = ""
        fold = [sys.executable, "-P", "-m", "trimtab.serve.fold", str(store.home.root), store.environment]
        self._fold = Child("fold", fold, logs, {**os.environ, **pinned(1)})
        self._folded = monotonic()

    def run(self, stop: threading.Event) -> None:
        """Keep everything running until ``stop`` is set, then end it in order.

        Raises:
            Unavailable: a named program cannot be started at all; its last words are told.
        """
        self._take_over()
        try:
            while not stop.is_set():
                for child in self._named:
                    self._keep(child)
                try:
                    self._reconcile()
                    self._keep_folding()
                except Fault as error:
                    self._tell(error)
                stop.wait(TICK_S)
        finally:
            self._end()

    def _tell(self, error: Fault) -> None:
        """Say what the ledger refuses, once; what runs goes on, and the next look may find it mended."""
        if error.message != self._told:
            self._told = error.message
            print(f"supervisor: {error}", file=sys.stderr, flush=True)

    def pids(self) -> dict[str, int]:
        """Return name -> process id of what runs; a worker's name is ``worker-`` and its deployment's id."""
        children = [*self._named, *(worker.child for worker in self._workers.values())]
        return {child.name: child.pid for child in children if child.running}

    def _take_over(self) -> None:
        """Correct what an earlier supervisor left: its workers died with it.

        What was ready stays so: it has proven itself, and the router holds its requests until it listens again.
        """
        for one in live.list_deployments(self._store.ledger):
            share = live.get_endpoint(self._store.ledger, one.endpoint_id).traffic.get(one.id)
            if one.desired == "up" and (one.state != "failed" or share) and one.state != "ready":
                self._say(one, "starting", "")
            elif one.desired == "down" and one.state != "failed":
                self._say(one, "stopped", "")
        publish(self._store)

    def _keep(self, child: Child) -> None:
        code = child.ended()
        if code is not None and not child.settled and child.exits >= EARLY_EXITS:
            raise Unavailable(
                f"the {child.name} process ends as soon as it is started ({_ending(code)}): {child.last_words()}",
                where=str(child.log),
                fix="mend what its log says, then start again",
            )
        child.start()
        child.settled |= child.running and monotonic() - child.started > SETTLED_S

    def _reconcile(self) -> None:
        mark = self._store.ledger.changes()
        if mark != self._seen:
            for deployment in live.list_deployments(self._store.ledger):
                self._want(deployment)
            # Whoever commits traffic publishes it; one that was killed in between is stood in for.
            publish(self._store)
            self._seen = -1 if self._fetching.busy else mark
        for worker in list(self._workers.values()):
            if worker.draining:
                self._drain(worker)
            else:
                self._watch(worker)

    def _want(self, deployment: Deployment) -> None:
        """Take note of what the ledger wants of a deployment."""
        worker = self._workers.get(deployment.id)
        if worker is not None:
            worker.deployment = deployment
        if deployment.desired == "up" and deployment.state != "failed":
            if worker is None:
                self._open(deployment)
            elif worker.draining and not worker.asked:
                worker.draining = 0.0
                self._say(deployment, "ready" if worker.child.settled else "starting", deployment.reason)
        elif deployment.desired == "down":
            if worker is not None and not worker.draining:
                worker.draining = monotonic()
                self._say(deployment, "draining", deployment.reason)
            elif worker is None:
                self._fetching.forget(deployment)
                if deployment.state not in ("stopped", "failed"):
                    self._say(deployment, "stopped", deployment.reason)

    def _open(self, deployment: Deployment) -> None:
        try:
            settings = self._fetching.settings(deployment)
        except Unavailable as error:
            self._say(deployment, "ready" if deployment.state == "ready" else "starting", error.message)
            return
        except TrimtabError as error:
            self._say(deployment, "failed", error.message)
            return
        if settings is None:
            return
        path = self._store.home.run / f"{deployment.id}.json"
        temporary = path.with_suffix(".next")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(msgspec.json.encode(settings))
        temporary.replace(path)
        endpoint = live.get_endpoint(self._store.ledger, deployment.endpoint_id)
        child = Child(
            f"worker-{deployment.id}",
            [sys.executable, "-P", "-m", "trimtab.serve.worker", str(path)],
            self._store.home.logs,
            {**self._environment(), **pinned(settings.threads)},
        )
        timeout_s = parse_duration(endpoint.spec.get("timeout") or "30s").total_seconds()
        self._workers[deployment.id] = _Worker(child, deployment, timeout_s)

    def _environment(self) -> dict[str, str]:
        """Return a worker's environment: it has its files, and needs no way into the object store."""
        kept = self._store.roots.variables
        return {name: value for name, value in os.environ.items() if name not in kept}

    def _watch(self, worker: _Worker) -> None:
        """Start a worker, find out when it is ready, and mend or give up when it ends."""
        child, deployment = worker.child, worker.deployment
        was_ready, code = child.ready, child.ended()
        if code is not None:
            early = not was_ready and not child.settled and child.exits >= EARLY_EXITS
            if early or child.exits >= ALL_EXITS:
                self._give_up(worker, f"its worker ended {child.exits} times within a minute, lastly {_ending(code)}")
                return
            # A deployment that has proven itself stays ready: what is decided must not depend on a restart.
            again = f"its worker ended ({_ending(code)}) and is started again"
            self._say(deployment, "ready" if deployment.state == "ready" else "starting", again)
        child.start()
        if not child.running or child.ready:
            return
        proof = self._proof(deployment, child.pid)
        if proof is not None:
            child.ready = child.settled = True
            text = f"{proof.rows} golden rows repeated, {proof.one_row_ms:.2f} ms for one row"
            self._say(deployment, "ready", text)
        elif monotonic() - child.started > READY_S:
            self._give_up(worker, f"its worker was not ready within {READY_S:g} s")

    def _keep_folding(self) -> None:
        """Start a fold when a minute has passed or much has come together, and there is something to fold."""
        if self._fold.running:
            self._fold.ended()
            return
        since = monotonic() - self._folded
        if since < FOLD_S / 10:
            return
        ahead, behind = (get_offset(self._store.ledger, stream) for stream in (COLLECTED, FOLDED))
        waiting = (ahead.segment - behind.segment) * SEGMENT_BYTES + ahead.byte - behind.byte
        if waiting > FOLD_BYTES or (waiting > 0 and since >= FOLD_S):
            self._folded = monotonic()
            self._fold.start()
        elif since >= FOLD_S:
            self._folded = monotonic()

    def _proof(self, deployment: Deployment, pid: int) -> Proof | None:
        """Return what a worker says once it listens; the socket of a dead one says nothing."""
        path = socket_of(self._store.home, deployment.id)
        if not path.exists():
            return None
        try:
            answer = fetch("http://worker/ready", uds=path, timeout=1.0)
            proof = msgspec.json.decode(answer.body, type=Proof)
        except (Unavailable, msgspec.DecodeError):
            return None
        return proof if proof.pid == pid else None

    def _give_up(self, worker: _Worker, reason: str) -> None:
        words = worker.child.last_words()
        worker.child.end(0.0)
        self._workers.pop(worker.deployment.id, None)
        self._say(worker.deployment, "failed", f"{reason}: {words}" if words else reason)

    def _drain(self, worker: _Worker) -> None:
        """End a worker that has no traffic any more: let the router forget it, ask, then insist."""
        since = monotonic() - worker.draining
        if worker.child.running and worker.child.ended() is None:
            if since > DRAIN_S and not worker.asked:
                worker.asked = True
                worker.child.signal(signal.SIGTERM)
            elif since > DRAIN_S + worker.timeout_s + GRACE_S:
                worker.child.signal(signal.SIGKILL)
            return
        self._workers.pop(worker.deployment.id, None)
        socket_of(self._store.home, worker.deployment.id).unlink(missing_ok=True)
        self._say(worker.deployment, "stopped", worker.deployment.reason)
        # It may have been wanted again after it was asked to end.
        self._seen = -1

    def _say(self, deployment: Deployment, state: DeploymentState, reason: str) -> None:
        """Write the state of a deployment, if it is another one, and publish it."""
        have = live.get_deployment(self._store.ledger, deployment.id)
        if (have.state, have.reason) == (state, reason):
            return
        self._store.ledger.write(
            lambda tx: live.set_deployment_state(tx, deployment.id, state, reason), what=f"deployment {state}"
        )
        publish(self._store)

    def _end(self) -> None:
        """End the router first, which answers what is at work, then everything else."""
        self._fold.end(0.0)
        for child in sorted(self._named, key=lambda child: child.name != "router"):
            child.end(GRACE_S)
        for worker in self._workers.values():
            worker.child.signal(signal.SIGTERM)
        for worker in self._workers.values():
            worker.child.end(GRACE_S)
            if worker.deployment.desired == "down":
                self._say(worker.deployment, "stopped", worker.deployment.reason)


def _ending(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
