"""The ledger on SQLite: one writer thread a process, one fsync a group, one savepoint a request."""

from __future__ import annotations

import fcntl
import os
import queue
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import apsw
import msgspec

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import canonical, digest_bytes
from trimtab.core.errors import Conflict, Fault, WrongUse
from trimtab.core.nouns import Data
from trimtab.store.migrations import migrate

T = TypeVar("T")
Value = None | int | float | str | bytes
_GROUP = 500
_INT64 = 1 << 63
_INSERT = re.compile(r"\s*(?:INSERT|REPLACE)[^(]*\(([^)]*)\)\s*VALUES\s*\(([^)]*)\)", re.IGNORECASE)
_COMPARED = re.compile(r"([\w.\"]+)\s*(?:[<>]=?|<>|=|LIKE|GLOB)\s*\?", re.IGNORECASE)


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


class _Within:
    """The same facts, read in another workspace or environment."""

    def __init__(self, reader: Reader, workspace: str, environment: str) -> None:
        self._reader = reader
        self.workspace = workspace
        self.environment = environment

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return self._reader.query(sql, params)


def within(reader: Reader, *, workspace: str = "", environment: str = "") -> Reader:
    """Return a reader of the same facts in another workspace or environment; empty means the reader's own."""
    scope = workspace or reader.workspace, environment or reader.environment
    return reader if scope == (reader.workspace, reader.environment) else _Within(reader, *scope)


class _Job(Generic[T]):
    """A request that waits for its group to be committed."""

    def __init__(self, fn: Callable[[Tx], T], what: str, key: str, like: Any) -> None:
        self.fn, self.what, self.key, self.like = fn, what, key, like
        self.done = threading.Event()
        self.answer: T | None = None
        self.error: BaseException | None = None


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
        try:
            return list(self._connection.execute(sql, _bound(sql, params)))
        except apsw.ConstraintError as error:
            raise Conflict(f"the ledger refuses it: {error}", where=" ".join(sql.split()[:3])) from error

    def note(self, subject: str, **data: Any) -> None:
        self.notes.append({"subject": subject, **data})


def _bound(sql: str, params: Sequence[Value]) -> tuple[Value, ...]:
    """Return the parameters, each of which SQLite keeps exactly.

    Raises:
        WrongUse: one cannot be kept exactly; ``where`` names its column.
    """
    for index, value in enumerate(params):
        if isinstance(value, str):
            if not value.isascii():
                _check_text(sql, index, value)
        elif isinstance(value, int):
            if not -_INT64 <= value < _INT64:
                raise WrongUse(f"{value} does not fit into 64 bits", where=_field(sql, index), fix="store it as text")
        elif isinstance(value, float):
            if value != value:
                raise WrongUse(
                    "NaN cannot be stored as a plain number",
                    where=_field(sql, index),
                    fix="store core.metric.split_value(value), a number and its kind",
                )
        elif value is not None and not isinstance(value, bytes):
            raise WrongUse(
                f"a {type(value).__name__} cannot be stored",
                where=_field(sql, index),
                fix="use None, int, float, str or bytes",
            )
    return tuple(params)


def _check_text(sql: str, index: int, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WrongUse(
            f"text with a lone surrogate at {error.start} cannot be stored",
            where=_field(sql, index),
            fix="decode its bytes with the right encoding",
        ) from error


def _field(sql: str, index: int) -> str:
    """Return the column that a statement's parameter is meant for, as far as its text tells."""
    insert = _INSERT.match(sql)
    if insert:
        columns = [name.strip() for name in insert[1].split(",")]
        marks = [mark.strip() for mark in insert[2].split(",")]
        places = [number for number, mark in enumerate(marks) if mark == "?"]
        if index < len(places) and len(columns) == len(marks):
            return columns[places[index]]
    compared = _COMPARED.findall(sql)
    if len(compared) == sql.count("?"):
        return str(compared[index])
    return f"parameter {index + 1}"


class _Connected:
    """A thread's connection, and whether it is reading right now."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.busy = threading.Lock()


class _Turn:
    """Makes processes, and the threads of each, take turns: a file lock under a lock that may be held again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._threads = threading.RLock()
        self._depth = 0

    def __enter__(self) -> None:
        self._threads.acquire()
        if self._depth == 0:
            try:
                fcntl.flock(self._file.fileno(), fcntl.LOCK_EX)
            except BaseException:
                self._threads.release()
                raise
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_UN)
        self._threads.release()

    def close(self) -> None:
        self._file.close()


class Ledger:
    """Facts in SQL. Threads may share one; a forked child must open its own.

    Contract: a write is durable when ``write`` returns (WAL, synchronous=FULL). Concurrent writes of a process
    share a transaction and its fsync; processes take turns by a file lock, so nobody ever sees a locked
    database. A write that raises changes nothing and disturbs no other. A read sees whole writes only, and every
    write that had returned before the read began, whoever wrote it.
    """

    def __init__(self, path: Path, *, workspace: str, environment: str, actor: str) -> None:
        self.path = path
        self.workspace = workspace
        self.environment = environment
        self.actor = actor
        self._pid = os.getpid()
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Connected] = weakref.WeakSet()
        self._queue: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._watching = threading.Lock()
        self._closed = False
        self._turn = _Turn(path.with_name("ledger.lock"))
        with ExitStack() as undo:
            undo.callback(self._turn.close)
            with self._turn:
                self._writer = _connect(path)
                undo.callback(self._writer.close)
                migrate(self._writer)
                self._watch = _connect(path)
            undo.pop_all()
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, *, workspace: str = "default", environment: str = "dev", actor: str = "") -> Ledger:
        """Open the ledger at ``path``, made and migrated if need be; several processes may do so at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path, workspace=workspace, environment=environment, actor=actor)

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a SELECT over what is committed.

        Raises:
            Fault: the ledger is closed, or was opened before a fork.
            WrongUse: a parameter cannot be compared exactly.
        """
        self._usable()
        reader: _Connected | None = getattr(self._local, "reader", None)
        if reader is None:
            with self._turn:
                reader = self._local.reader = _Connected(_connect(self.path))
            reader.connection.pragma("query_only", True)
            self._readers.add(reader)
        with reader.busy:
            self._usable()
            return list(reader.connection.execute(sql, _bound(sql, params)))

    def write(self, fn: Callable[[Tx], T], *, what: str, key: str = "", like: Any = Any) -> T:
        """Run ``fn`` in a transaction and return its answer once that is durable.

        Args:
            fn: may be called twice and must have no other effects; what it raises is raised here and
                undoes this request alone.
            what: names the act in the audit leaf.
            key: an idempotency key; a second write with it returns the first answer and changes nothing. The
                answer is then what msgspec can encode, and comes back as plain data.
            like: the type that the answer of a write with a key is decoded to.

        Raises:
            Conflict: ``key`` was used for another act.
            Fault: the ledger is closed or could not be written, or this is called from inside a write.
        """
        self._usable()
        if threading.current_thread() is self._thread:
            raise Fault("a write inside a write", where=what, fix="use the transaction that was given")
        job: _Job[T] = _Job(fn, what, key, like)
        with self._gate:
            self._usable()
            self._queue.put(job)
        job.done.wait()
        if job.error is not None:
            raise job.error
        return job.answer  # type: ignore[return-value]

    def changes(self) -> int:
        """Return a number that moves when any process commits; it means nothing to another process."""
        with self._watching:
            self._usable()
            return int(self._watch.pragma("data_version"))

    def close(self) -> None:
        """Finish what is queued and what is being read, and close; calling it again does nothing."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        if os.getpid() != self._pid:
            return
        self._thread.join()
        with self._turn:
            for reader in list(self._readers):
                with reader.busy:
                    reader.connection.close()
            with self._watching:
                self._watch.close()
            self._writer.close()
        self._turn.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _usable(self) -> None:
        if self._closed:
            raise Fault("the ledger is closed", where=str(self.path), fix="open the store again")
        if os.getpid() != self._pid:
            raise Fault("this ledger was opened before a fork", where=str(self.path), fix="open it in the child")

    def _loop(self) -> None:
        while (job := self._queue.get()) is not None:
            group = [job]
            more: _Job[Any] | None = job
            while len(group) < _GROUP and more is not None:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is not None:
                    group.append(more)
            self._commit(group)
            if more is None:
                return

    def _commit(self, group: list[_Job[Any]]) -> None:
        try:
            with self._turn:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    for job in group:
                        self._one(job)
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        except BaseException as error:  # the thread must live, and every caller must hear
            for job in group:
                if job.error is None or isinstance(job.error, apsw.Error):
                    job.error = Fault(f"the ledger could not be written: {error}", where=str(self.path))
                    job.error.__cause__ = error
        finally:
            for job in group:
                job.done.set()

    def _one(self, job: _Job[Any]) -> None:
        self._writer.execute("SAVEPOINT request")
        try:
            job.answer = self._answer(job)
            self._writer.execute("RELEASE request")
        except BaseException as error:
            job.answer, job.error = None, error
            self._writer.execute("ROLLBACK TO request")
            self._writer.execute("RELEASE request")

    def _answer(self, job: _Job[Any]) -> Any:
        tx = _Transaction(self._writer, self.workspace, self.environment)
        if job.key:
            sql = "SELECT answer, what FROM idempotency WHERE workspace=? AND key=?"
            known = tx.query(sql, (self.workspace, job.key))
            if known:
                if known[0][1] != job.what:
                    raise Conflict(
                        f"key {job.key!r} was used for {known[0][1]!r} and not for {job.what!r}",
                        where=job.key,
                        fix="send a new key with a new request",
                    )
                return msgspec.msgpack.decode(known[0][0], type=job.like)
        answer = job.fn(tx)
        at = int(wall_seconds() * 1e6)
        if job.key:
            kept = msgspec.msgpack.encode(answer)
            tx.execute(
                "INSERT INTO idempotency(workspace, environment, key, answer, at, what) VALUES (?,?,?,?,?,?)",
                (self.workspace, self.environment, job.key, kept, at, job.what),
            )
            answer = msgspec.msgpack.decode(kept, type=job.like)
        leaf = canonical({"what": job.what, "actor": self.actor, "at": at, "key": job.key, "notes": tx.notes})
        tx.execute(
            "INSERT INTO audit(workspace, environment, at, leaf, sha256) VALUES (?,?,?,?,?)",
            (self.workspace, self.environment, at, leaf, digest_bytes(leaf)),
        )
        return answer


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(30_000)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.pragma("foreign_keys", True)
    connection.pragma("cache_size", -16_000)
    connection.pragma("journal_size_limit", 64 * 1024 * 1024)
    return connection
