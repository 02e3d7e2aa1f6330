"""The ledger on SQLite: one writer thread a process, one fsync a group, one savepoint a request."""

from __future__ import annotations

import fcntl
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import apsw
import msgspec

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import canonical, digest_bytes
from trimtab.core.errors import Fault, WrongUse
from trimtab.core.nouns import Data
from trimtab.store.migrations import migrate

T = TypeVar("T")
Value = None | int | float | str | bytes
_GROUP = 500
_INT64 = 1 << 63


class Reader(Protocol):
    """Answers queries; a ledger reads what is committed, a transaction also what it wrote itself."""

    @property
    def workspace(self) -> str:
        """The workspace whose rows are meant."""
        ...

    @property
    def environment(self) -> str:
        """The environment whose rows are meant."""
        ...

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a SELECT with bound parameters."""
        ...


class Tx(Reader, Protocol):
    """One request's part of a transaction."""

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Run a statement with bound parameters and return its rows."""
        ...

    def note(self, subject: str, **data: Any) -> None:
        """Add to the audit leaf of this request what happened to ``subject``."""
        ...


class _Job(Generic[T]):
    """A request that waits for its group to be committed."""

    def __init__(self, fn: Callable[[Tx], T], what: str, key: str) -> None:
        self.fn, self.what, self.key = fn, what, key
        self.done = threading.Event()
        self.answer: T | None = None
        self.error: BaseException | None = None
        self.committed = False


class _Transaction:
    """What a request's function is given."""

    def __init__(self, connection: apsw.Connection, workspace: str, environment: str) -> None:
        self._connection = connection
        self.workspace = workspace
        self.environment = environment
        self.notes: list[Data] = []

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return self.execute(sql, params)

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(sql, _bound(params)))

    def note(self, subject: str, **data: Any) -> None:
        self.notes.append({"subject": subject, **data})


def _bound(params: Sequence[Value]) -> tuple[Value, ...]:
    for value in params:
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise WrongUse(f"{value} does not fit into 64 bits", fix="store it as text")
        if isinstance(value, float) and value != value:
            raise WrongUse("NaN cannot be stored as a plain number", fix="use core.metric.split_value")
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise WrongUse(f"text with a lone surrogate cannot be stored: {error}") from error
    return tuple(params)


class Ledger:
    """Facts in SQL. Threads may share one; a forked child must open its own.

    A write is durable when ``write`` returns (WAL, synchronous=FULL). Concurrent writes of a process share a
    transaction and its fsync; processes take turns by a file lock, so nobody ever sees a locked database.
    """

    def __init__(self, path: Path, *, workspace: str, environment: str, actor: str) -> None:
        self.path = path
        self.workspace = workspace
        self.environment = environment
        self.actor = actor
        self._pid = os.getpid()
        self._local = threading.local()
        self._readers: list[apsw.Connection] = []
        self._queue: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._lock = path.with_name("ledger.lock").open("ab")
        with self._alone():
            self._writer = _connect(path)
            migrate(self._writer)
        self._watch = _connect(path)
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._thread.start()
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, workspace: str = "default", environment: str = "dev", actor: str = "") -> Ledger:
        """Open the ledger at ``path``, made and migrated if need be; several processes may do so at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path, workspace=workspace, environment=environment, actor=actor)

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a SELECT over what is committed."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self.path)
            connection.pragma("query_only", True)
            self._readers.append(connection)
        return list(connection.execute(sql, _bound(params)))

    def write(self, fn: Callable[[Tx], T], *, what: str, key: str = "") -> T:
        """Run ``fn`` in a transaction and return its answer once that is durable.

        Args:
            fn: may be called twice and must have no other effects; what it raises is raised here and
                undoes this request alone.
            what: names the act in the audit leaf.
            key: an idempotency key; a second write with it returns the first answer and changes nothing.
        """
        if self._closed:
            raise Fault("the ledger is closed")
        if threading.current_thread() is self._thread:
            raise Fault("a write inside a write", fix="use the transaction that was given")
        if os.getpid() != self._pid:
            raise Fault("this ledger was opened before a fork", fix="open it in the child")
        job: _Job[T] = _Job(fn, what, key)
        self._queue.put(job)
        job.done.wait()
        if job.error is not None:
            raise job.error
        return job.answer  # type: ignore[return-value]

    def changes(self) -> int:
        """Return a number that moves when any connection commits."""
        return int(self._watch.pragma("data_version"))

    def close(self) -> None:
        """Finish what is queued and close; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._pid:
            self._queue.put(None)
            self._thread.join(30)
        for connection in (*self._readers, self._watch, self._writer):
            connection.close()
        self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _alone(self) -> _Alone:
        return _Alone(self._lock.fileno())

    def _loop(self) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                return
            group = [job]
            last = False
            while len(group) < _GROUP:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                group.append(more)
            self._commit(group)
            if last:
                return

    def _commit(self, group: list[_Job[Any]]) -> None:
        try:
            with self._alone():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    for job in group:
                        self._one(job)
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        except BaseException as error:
            for job in group:
                if job.error is None:
                    job.error = Fault(f"the ledger could not be written: {error}", where=str(self.path))
                    job.error.__cause__ = error
        finally:
            for job in group:
                job.done.set()

    def _one(self, job: _Job[Any]) -> None:
        self._writer.execute("SAVEPOINT request")
        try:
            tx = _Transaction(self._writer, self.workspace, self.environment)
            if job.key:
                known = tx.query(
                    "SELECT answer FROM idempotency WHERE workspace=? AND key=?", (self.workspace, job.key)
                )
                if known:
                    job.answer = msgspec.msgpack.decode(known[0][0])
                    self._writer.execute("RELEASE request")
                    return
            job.answer = job.fn(tx)
            at = int(wall_seconds() * 1e6)
            if job.key:
                tx.execute(
                    "INSERT INTO idempotency(workspace, environment, key, answer, at) VALUES (?,?,?,?,?)",
                    (self.workspace, self.environment, job.key, msgspec.msgpack.encode(job.answer), at),
                )
            leaf = canonical({"what": job.what, "actor": self.actor, "at": at, "key": job.key, "notes": tx.notes})
            tx.execute(
                "INSERT INTO audit(workspace, environment, at, leaf, sha256) VALUES (?,?,?,?,?)",
                (self.workspace, self.environment, at, leaf, digest_bytes(leaf)),
            )
            self._writer.execute("RELEASE request")
        except BaseException as error:
            job.answer, job.error = None, error
            self._writer.execute("ROLLBACK TO request")
            self._writer.execute("RELEASE request")


class _Alone:
    """Holds the file lock that lets processes take turns."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(30_000)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.pragma("foreign_keys", True)
    connection.pragma("cache_size", -16_000)
    return connection
