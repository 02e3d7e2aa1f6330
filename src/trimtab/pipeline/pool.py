"""A pool of warm job workers: hands steps out, hears what they say, kills what has to end."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from trimtab.core.clock import monotonic
from trimtab.core.errors import Fault, Unavailable
from trimtab.core.nouns import Data
from trimtab.pipeline.jobs import Job, Session, Told, frame, frames
from trimtab.pipeline.spawn import command, environment

_CAPS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "LOKY_MAX_CPU_COUNT",
    "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS", "ARROW_IO_THREADS",
)  # fmt: skip
_GRACE_S = 2.0
_CHUNK = 1 << 16


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a job: a metric (``progress``), printed text (``log``), or its end (``ended``).

    Attributes:
        told: what the worker said; an end always has it.
    """

    job: str
    kind: Literal["progress", "log", "ended"]
    told: Told
    text: str = ""


@dataclass(eq=False)
class _Worker:
    pid: int
    channel: socket.socket
    job: Job | None = None
    buffer: bytearray = field(default_factory=bytearray)
    deadline: float = 0.0
    limit_s: float = 0.0
    stopped: str = ""
    closed: bool = False
    exit_code: int | None = None
    log_read: int = 0
    answer: Told | None = None
    kill_at: float = 0.0


class Pool:
    """Runs jobs in worker processes that stay warm between them.

    One thread uses a pool. Processes are started by the first job; ``close`` ends them all, and so does the
    death of this process.

    Args:
        session: what all jobs have in common.
        slots: how many jobs may run at once.
    """

    def __init__(self, session: Session, *, slots: int) -> None:
        self.session = session
        self.slots = slots
        self._workers: list[_Worker] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def free(self) -> int:
        """How many more jobs may start now."""
        return self.slots - sum(worker.job is not None for worker in self._workers)

    @property
    def running(self) -> list[str]:
        """The jobs that have started and not ended."""
        return [worker.job.id for worker in self._workers if worker.job is not None]

    def start(self, job: Job, *, timeout_s: float = 0.0) -> None:
        """Hand ``job`` to an idle worker; a new one is forked when there is none.

        Args:
            job: what to do.
            timeout_s: kill it after this many seconds; 0 means never.

        Raises:
            Fault: every slot is taken.
        """
        if self.free <= 0:
            raise Fault("every slot of the pool is taken", fix="wait for a job to end")
        idle = [worker for worker in self._workers if worker.job is None and not worker.closed]
        worker = idle[0] if idle else self._fork()
        worker.job = job
        worker.limit_s = timeout_s
        worker.deadline = monotonic() + timeout_s if timeout_s else 0.0
        worker.log_read = 0
        try:
            worker.channel.sendall(frame(msgspec.msgpack.encode(job)))
        except OSError:
            self._lose(worker)

    def wait(self, timeout_s: float) -> list[Notice]:
        """Return what happened to jobs; waits up to ``timeout_s`` for something to happen."""
        notices: list[Notice] = []
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._control:
                self._hear_server()
            elif isinstance(key.data, _Worker):
                self._hear(key.data, notices)
        self._enforce()
        for worker in self._workers:
            if worker.job is not None:
                self._read_log(worker, notices)
            if worker.job is not None and worker.answer is not None:
                notices.append(Notice(job=worker.job.id, kind="ended", told=worker.answer))
                worker.job, worker.answer = None, None
        self._workers = [worker for worker in self._workers if not worker.closed or worker.job is not None]
        return notices

    def stop(self, reason: str, *, jobs: list[str] | None = None) -> None:
        """Kill the process groups of ``jobs`` (all by default); their end is told with ``reason``."""
        for worker in self._workers:
            if worker.job is not None and (jobs is None or worker.job.id in jobs):
                self._terminate(worker, reason)

    def close(self) -> None:
        """End every process of the pool."""
        for worker in self._workers:
            worker.channel.close()
        self._workers = []
        if self._control is not None and self._server is not None:
            # The closed socket makes the server kill what is left.
            self._control.close()
            try:
                self._server.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._control, self._server = None, None
        self._selector.close()
        self._selector = selectors.DefaultSelector()

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        threads = str(self.session.threads)
        with theirs:
            self._server = subprocess.Popen(
                command("trimtab.pipeline.worker", str(theirs.fileno())),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=environment(**dict.fromkeys(_CAPS, threads)),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        assert self._server.stdin is not None
        with self._server.stdin as stdin:
            stdin.write(msgspec.json.encode(self.session))
        self._control = ours
        self._selector.register(ours, selectors.EVENT_READ)
        return ours

    def _fork(self) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        control = self._control or self._begin()
        with theirs:
            try:
                socket.send_fds(control, [b"fork"], [theirs.fileno()])
            except BrokenPipeError:
                # It died while nobody worked; a new one takes its place.
                self._drop_server()
                control = self._begin()
                socket.send_fds(control, [b"fork"], [theirs.fileno()])
        while True:
            answer = control.recv(_CHUNK)
            if not answer:
                ours.close()
                self._drop_server()
                raise Unavailable("the worker server died", fix="run again; look for out-of-memory kills")
            what, pid, code = msgspec.msgpack.decode(answer)
            if what == "forked":
                break
            self._note_end(pid, code)
        worker = _Worker(pid=pid, channel=ours)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _hear_server(self) -> None:
        if self._control is None:
            return
        try:
            # What made the socket readable may have been read meanwhile.
            message = self._control.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        if message:
            _, pid, code = msgspec.msgpack.decode(message)
            self._note_end(pid, code)
            return
        self._drop_server()

    def _drop_server(self) -> None:
        """Note that the server died; the kernel killed its workers with it."""
        assert self._control is not None and self._server is not None
        self._selector.unregister(self._control)
        self._control.close()
        self._control = None
        self._server.kill()
        self._server.wait()
        self._server = None
        for worker in self._workers:
            self._note_end(worker.pid, -signal.SIGKILL)

    def _note_end(self, pid: int, code: int) -> None:
        for worker in self._workers:
            if worker.pid == pid and worker.exit_code is None:
                worker.exit_code = code

    def _hear(self, worker: _Worker, notices: list[Notice]) -> None:
        try:
            chunk = worker.channel.recv(_CHUNK)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._lose(worker)
            return
        worker.buffer += chunk
        for payload in frames(worker.buffer):
            told = msgspec.msgpack.decode(payload, type=Told)
            if worker.job is None:
                continue
            if told.kind == "progress":
                notices.append(Notice(job=worker.job.id, kind="progress", told=told))
            else:
                worker.answer = told

    def _lose(self, worker: _Worker) -> None:
        """Note that a worker's socket has closed: it is dead or dying."""
        if worker.closed:
            return
        worker.closed = True
        self._selector.unregister(worker.channel)
        worker.channel.close()
        limit = monotonic() + _GRACE_S
        while worker.exit_code is None and self._control is not None and monotonic() < limit:
            ready = selectors.DefaultSelector()
            ready.register(self._control, selectors.EVENT_READ)
            if ready.select(0.1):
                self._hear_server()
            ready.close()
        if worker.job is not None and worker.answer is None:
            worker.answer = Told(kind="failed", error=_death(worker))

    def _enforce(self) -> None:
        now = monotonic()
        for worker in self._workers:
            if worker.job is None or worker.closed:
                continue
            if worker.deadline and now >= worker.deadline and not worker.stopped:
                self._terminate(worker, f"took longer than its limit of {worker.limit_s:g} s")
            if worker.kill_at and now >= worker.kill_at:
                _signal(worker, signal.SIGKILL)

    def _terminate(self, worker: _Worker, reason: str) -> None:
        if worker.stopped:
            return
        worker.stopped = reason
        worker.kill_at = monotonic() + _GRACE_S
        _signal(worker, signal.SIGTERM)

    def _read_log(self, worker: _Worker, notices: list[Notice]) -> None:
        assert worker.job is not None
        text = _text_from(Path(worker.job.log), worker.log_read)
        if text:
            worker.log_read += len(text)
            told = Told(kind="progress")
            notices.append(Notice(job=worker.job.id, kind="log", told=told, text=text.decode("utf-8", "replace")))


def _text_from(log: Path, start: int) -> bytes:
    try:
        with log.open("rb") as stream:
            stream.seek(start)
            return stream.read()
    except FileNotFoundError:
        return b""


def _tail(log: Path) -> bytes:
    size = log.stat().st_size if log.exists() else 0
    return _text_from(log, max(0, size - _CHUNK))


def _signal(worker: _Worker, number: int) -> None:
    # Once its end was told, the id may belong to somebody else.
    if worker.exit_code is not None:
        return
    try:
        os.killpg(worker.pid, number)
    except ProcessLookupError:
        # It was forked so lately that it has no group of its own yet.
        with suppress(ProcessLookupError):
            os.kill(worker.pid, number)


def _death(worker: _Worker) -> Data:
    """Return the error of a job whose worker process ended under it."""
    assert worker.job is not None
    code = worker.exit_code
    if worker.stopped:
        what = worker.stopped
    elif code is None:
        what = "lost its worker process"
    elif code < 0:
        hint = ", as when memory runs out" if code == -signal.SIGKILL else ""
        what = f"was killed by signal {signal.Signals(-code).name}{hint}"
    else:
        what = f"ended its worker process with exit code {code}"
    lines = _tail(Path(worker.job.log)).decode("utf-8", "replace").strip().splitlines()[-3:]
    told = "".join(f"\n  | {line}" for line in lines)
    return {
        "type": "StepFailed",
        "message": f"{worker.job.id} {what}{told}",
        "where": worker.job.declaration.where,
        "fix": f"look at {worker.job.log}, then run again; what is done is kept",
        "traceback": "",
    }
