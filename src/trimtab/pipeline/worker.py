"""Job workers: a small fork server, and the processes it forks, in which steps run.

``python -m trimtab.pipeline.worker`` imports only light modules, so forking it is cheap and safe; each fork
is a worker with a process group of its own that imports the project's modules from the snapshot and stays
warm. When the process that started the server dies, however it dies, its end of the socket closes: the
server kills every worker's group and ends, and a worker whose server dies is killed by the kernel.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import random
import resource
import select
import selectors
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from trimtab.core.context import Recorder, recording
from trimtab.core.errors import ProjectError, TrimtabError
from trimtab.core.nouns import Data
from trimtab.core.optional import have, need
from trimtab.pipeline.jobs import Job, Session, Told, frame, frames
from trimtab.pipeline.kinds import StepContext, StepResult, load_kind
from trimtab.store.store import Store, open_store

_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 16
_IDLE_S = 0.5


class _Live(list[tuple[str, int, float]]):
    """Metrics that are also told at once, at most ten times a second."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self._channel = channel
        self._last = 0.0

    def append(self, item: tuple[str, int, float]) -> None:
        super().append(item)
        now = time.monotonic()
        if now - self._last >= 0.1:
            self._last = now
            _tell(self._channel, Told(kind="progress", name=item[0], step=item[1], value=item[2]))


def _tell(channel: socket.socket, told: Told) -> None:
    channel.sendall(frame(msgspec.msgpack.encode(told)))


def serve(channel: socket.socket, session: Session) -> None:
    """Carry out jobs from ``channel`` until it closes."""
    _limit(session)
    os.chdir(session.project_root)
    sys.path.insert(0, session.snapshot)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    store = open_store(
        Path(session.store),
        environment=session.environment,
        workspace=session.workspace,
        actor=session.actor,
    )
    decoder = msgspec.msgpack.Decoder(Job)
    buffer = bytearray()
    while True:
        if not select.select([channel], [], [], _IDLE_S)[0]:
            # What the last step left behind is freed while nobody waits for it.
            gc.collect()
        chunk = channel.recv(_CHUNK)
        if not chunk:
            return
        buffer += chunk
        for payload in frames(buffer):
            _carry_out(decoder.decode(payload), session, store, channel)


def _limit(session: Session) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if session.memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (session.memory_bytes, session.memory_bytes))
    with suppress(OSError):
        # Of all processes of this tree, a worker is the one to end when memory runs out.
        Path("/proc/self/oom_score_adj").write_text("500")


def _carry_out(job: Job, session: Session, store: Store, channel: socket.socket) -> None:
    recorder = Recorder()
    recorder.metrics = _Live(channel)
    _capture(Path(job.log))
    try:
        result = _run(job, session, store, recorder)
        metrics = list(dict.fromkeys([*recorder.metrics, *result.metrics]))
        result = msgspec.structs.replace(result, metrics=metrics, params={**recorder.params, **result.params})
        answer = frame(msgspec.msgpack.encode(Told(kind="done", result=result)))
    except BaseException as error:  # whatever a step raises, SystemExit included, is the step's failure
        answer = frame(msgspec.msgpack.encode(Told(kind="failed", error=error_data(error, job, session))))
    _release()
    channel.sendall(answer)


def _run(job: Job, session: Session, store: Store, recorder: Recorder) -> StepResult:
    for table_id, known in job.recover.items():
        if store.tables.latest(table_id) not in (None, known):
            store.tables.rollback_to(table_id, known)
    function = _function(job, session)
    _seed(job.seed)
    context = StepContext(
        declaration=job.declaration,
        function=function,
        op=job.op,
        inputs=job.inputs,
        params=job.params,
        seed=job.seed,
        now=job.now,
        run_id=job.run_id,
        store=store,
        previous=job.previous,
        references=job.references,
        overrides=job.overrides,
        project_root=Path(session.project_root),
        runtime=job.runtime,
        fingerprint=job.fingerprint,
        assets=job.assets,
    )
    started = time.monotonic()
    with recording(recorder):
        result = load_kind(job.kind).run(context)
    facts = {"seconds": round(time.monotonic() - started, 6), **result.facts}
    return msgspec.structs.replace(result, facts=facts)


def _function(job: Job, session: Session) -> Any:
    found: Any = importlib.import_module(job.declaration.module)
    for name in job.declaration.qualname.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        raise ProjectError(
            f"{job.declaration.qualname} of module {job.declaration.module} is not a function any more",
            where=job.declaration.where,
            fix="do not rebind the name of a declared function",
        )
    return found


def _seed(seed: int) -> None:
    random.seed(seed)
    if _has_numpy():
        need("numpy").random.seed(seed % (1 << 32))


@cache
def _has_numpy() -> bool:
    return have("numpy")


def _capture(log: Path) -> None:
    """Send what this process prints, from now on, to ``log``."""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def _release() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def error_data(error: BaseException, job: Job, session: Session) -> Data:
    """Return a step's error as data; its traceback, from the user's first frame on, also goes to the log.

    Paths in the snapshot are told as paths relative to the project folder.
    """
    own = f"{session.snapshot}{os.sep}"
    trace = error.__traceback__
    places = [f"{f.filename.removeprefix(own)}:{f.lineno}" for f in traceback.extract_tb(trace) if own in f.filename]
    while trace is not None and own not in trace.tb_frame.f_code.co_filename and places:
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace)).replace(own, "")
    print(lines, file=sys.stderr, flush=True)
    where = places[-1] if places else job.declaration.where
    if isinstance(error, TrimtabError):
        return {**error.as_data(), "where": error.where.removeprefix(own) or where, "traceback": lines}
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return {
        "type": "StepFailed",
        "message": f"{job.id} raised {text}",
        "where": where,
        "fix": "mend the step and run again; what is done is kept",
        "traceback": lines,
    }


class _Server:
    """Forks workers on demand and tells how they ended."""

    def __init__(self, control: socket.socket, session: Session) -> None:
        self._control = control
        self._session = session
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def loop(self) -> None:
        """Serve until the other end of the socket closes; then kill every worker's group."""
        workers: dict[int, int] = {}
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    message, fds = self._wish()
                    if not message:
                        for pid in workers.values():
                            _kill_group(pid)
                        return
                    pid = self._fork(fds[0])
                    watch = os.pidfd_open(pid)
                    workers[watch] = pid
                    self._selector.register(watch, selectors.EVENT_READ)
                    self._tell("forked", pid, 0)
                else:
                    watch = key.fd
                    pid = workers.pop(watch)
                    self._selector.unregister(watch)
                    os.close(watch)
                    # Its group goes first, while its id cannot be given to anybody else.
                    _kill_group(pid)
                    _, status = os.waitpid(pid, 0)
                    self._tell("ended", pid, os.waitstatus_to_exitcode(status))

    def _wish(self) -> tuple[bytes, list[int]]:
        """Return the next wish for a worker; nothing when the other end is gone, answers unread or not."""
        try:
            message, fds, _, _ = socket.recv_fds(self._control, 16, 1)
        except ConnectionResetError:
            return b"", []
        return message, fds

    def _tell(self, what: str, pid: int, code: int) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            # The other end is gone; the loop sees that next.
            self._control.send(msgspec.msgpack.encode([what, pid, code]))

    def _fork(self, channel_fd: int) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(channel_fd)
            return pid
        try:
            os.setsid()
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            for known in list(self._selector.get_map().values()):
                if known.fileobj is not self._control:
                    os.close(known.fd)
            self._selector.close()
            self._control.close()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            serve(socket.socket(fileno=channel_fd), self._session)
        except BaseException:  # nothing may climb back into the server's loop
            traceback.print_exc()
            os._exit(1)
        os._exit(0)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def main() -> NoReturn:
    """Be the fork server on the socket whose number stands first on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    session = msgspec.json.decode(sys.stdin.buffer.read(), type=Session)
    gc.freeze()
    _Server(control, session).loop()
    sys.exit(0)


if __name__ == "__main__":
    main()
