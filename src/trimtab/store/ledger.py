"""The ledger: one writer thread a process, one durable commit a group, one savepoint a request."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import canonical, digest_bytes
from trimtab.core.errors import Conflict, Fault, NotFound, Unavailable, closest
from trimtab.core.nouns import Data
from trimtab.store.engine import Engine, Lost, Session
from trimtab.store.engine import Value as Value
from trimtab.store.sqlite import SqliteEngine

T = TypeVar("T")
_GROUP = 500
_PATIENCE_S = 30.0
_Mark = tuple[int, str]


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

    def execute_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """Run a statement for each row of parameters."""
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

    def __init__(self, session: Session, workspace: str, environment: str) -> None:
        self._session = session
        self.workspace = workspace
        self.environment = environment
        self.notes: list[Data] = []

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return self._session.execute(sql, params)

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return self._session.execute(sql, params)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        if rows:
            self._session.execute_many(sql, rows)

    def note(self, subject: str, **data: Any) -> None:
        self.notes.append({"subject": subject, **data})


class _Reading:
    """A thread's session, and whether it is reading right now."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.busy = threading.Lock()


class Ledger:
    """Facts in SQL. Threads may share one; a forked child must open its own.

    Contract: a write is durable when ``write`` returns. Concurrent writes of a process share a transaction and
    its one durable commit; processes take turns, so nobody ever sees a locked database. A write that raises
    changes nothing and disturbs no other. A read sees whole writes only, and every write that had returned
    before the read began, whoever wrote it. Where the database is a server, a lost connection is opened again:
    a write whose commit was on its way is looked up, and carried out again only if it is not there.
    """

    def __init__(self, engine: Engine, *, workspace: str, environment: str, actor: str) -> None:
        self.engine = engine
        self.workspace = workspace
        self.environment = environment
        self.actor = actor
        self._pid = os.getpid()
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Reading] = weakref.WeakSet()
        self._queue: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        with ExitStack() as undo:
            undo.callback(engine.close)
            with engine.turn():
                self._writer = engine.writer()
            undo.pop_all()
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls, location: Path | str, *, workspace: str = "default", environment: str = "dev", actor: str = ""
    ) -> Ledger:
        """Open a ledger, made and migrated if need be; several processes may do so at once.

        Args:
            location: a file, or the URL of a database for which there is a back end.
            workspace: whose rows are meant.
            environment: where names resolve and facts are written.
            actor: who acts, for the audit leaves.

        Raises:
            NotFound: no back end knows the URL's scheme.
            Unavailable: the database does not answer.
        """
        return cls(_engine(str(location)), workspace=workspace, environment=environment, actor=actor)

    @property
    def where(self) -> str:
        """Where the ledger lies, without secrets."""
        return self.engine.where

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a SELECT over what is committed.

        Raises:
            Fault: the ledger is closed, or was opened before a fork.
            Unavailable: the database does not answer.
            WrongUse: a parameter cannot be compared exactly.
        """
        for last in (False, True):
            reading = self._reading()
            with reading.busy:
                self._usable()
                try:
                    return reading.session.execute(sql, params)
                except Lost as error:
                    reading.session.close()
                    self._local.reading = None
                    if last:
                        raise Unavailable(
                            f"the ledger does not answer: {error}", where=self.where, fix=error.fix
                        ) from error
        raise AssertionError

    def _reading(self) -> _Reading:
        self._usable()
        reading: _Reading | None = getattr(self._local, "reading", None)
        if reading is None:
            try:
                with self.engine.turn():
                    reading = self._local.reading = _Reading(self.engine.reader())
            except Lost as error:
                raise Unavailable(f"the ledger does not answer: {error}", where=self.where, fix=error.fix) from error
            self._readers.add(reading)
        return reading

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
            Unavailable: the database does not answer; nothing was changed.
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
        self._usable()
        return self.engine.changes()

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
        with self.engine.turn():
            for reading in list(self._readers):
                with reading.busy:
                    reading.session.close()
            self._writer.close()
        self.engine.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _usable(self) -> None:
        if self._closed:
            raise Fault("the ledger is closed", where=self.where, fix="open the store again")
        if os.getpid() != self._pid:
            raise Fault("this ledger was opened before a fork", where=self.where, fix="open it in the child")

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
            self._carry_out(group)
        except BaseException as error:  # the thread must live, and every caller must hear
            told = error if isinstance(error, Unavailable) else None
            for job in group:
                if job.error is None or isinstance(job.error, (Lost, *self.engine.errors)):
                    job.error = told or Fault(f"the ledger could not be written: {error}", where=self.where)
                    job.error.__cause__ = error
        finally:
            for job in group:
                job.done.set()

    def _carry_out(self, group: list[_Job[Any]]) -> None:
        """Commit a group. Over a lost connection look whether it is there, and do it again if it is not."""
        until = time.monotonic() + _PATIENCE_S
        sent: _Mark | None = None
        while True:
            try:
                with self.engine.turn():
                    self._writer.begin()
                    try:
                        if sent is None or not self._is_there(sent):
                            sent = None
                            mark = self._fill(group)
                            sent = mark
                        self._writer.commit()
                    except BaseException:
                        with suppress(Lost):
                            self._writer.rollback()
                        raise
                return
            except Lost as error:
                self._reopen(until, error, sent)

    def _is_there(self, mark: _Mark) -> bool:
        # The transaction that was begun before this has the turn, so the lost one has ended, either way.
        return bool(self._writer.execute("SELECT 1 FROM audit WHERE id=? AND sha256=?", mark))

    def _reopen(self, until: float, lost: Lost, sent: _Mark | None) -> None:
        pause = 0.02
        while True:
            with suppress(Exception):
                self._writer.close()
            try:
                self._writer = self.engine.writer()
                return
            except Lost as error:
                if time.monotonic() > until:
                    words = "whether the write was carried out is not known" if sent else "nothing was written"
                    raise Unavailable(
                        f"the ledger does not answer ({words}): {error}", where=self.where, fix=error.fix
                    ) from lost
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _fill(self, group: list[_Job[Any]]) -> _Mark | None:
        """Carry out each request of a group in the open transaction; return what its last leaf is known by."""
        mark: _Mark | None = None
        for job in group:
            job.error = None
            self._writer.execute("SAVEPOINT request")
            try:
                job.answer, mark = self._answer(job, mark)
                self._writer.execute("RELEASE SAVEPOINT request")
            except BaseException as error:
                job.answer, job.error = None, error
                if isinstance(error, Lost):
                    raise
                if isinstance(error, self.engine.errors):
                    job.error = Fault(f"the ledger could not be written: {error}", where=self.where)
                    job.error.__cause__ = error
                try:
                    self._writer.execute("ROLLBACK TO SAVEPOINT request")
                    self._writer.execute("RELEASE SAVEPOINT request")
                except self.engine.errors:  # the database has undone the whole group by itself
                    raise error from None
        return mark

    def _answer(self, job: _Job[Any], mark: _Mark | None) -> tuple[Any, _Mark | None]:
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
                return msgspec.msgpack.decode(known[0][0], type=job.like), mark
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
        sha256 = digest_bytes(leaf)
        sql = "INSERT INTO audit(workspace, environment, at, leaf, sha256) VALUES (?,?,?,?,?) RETURNING id"
        number = tx.execute(sql, (self.workspace, self.environment, at, leaf, sha256))[0][0]
        return answer, (int(number), sha256)


def _engine(location: str) -> Engine:
    """Return the engine for a location; that of another database than SQLite comes from an entry point."""
    scheme, found, _ = location.partition("://")
    if not found:
        return SqliteEngine(Path(location))
    known = {one.name: one for one in entry_points(group="trimtab.ledgers")}
    if scheme not in known:
        raise NotFound(
            f"no ledger is known for {scheme}://{closest(scheme, known)}",
            where="ledger",
            fix=f"one of {', '.join(known)}",
        )
    engine: Engine = known[scheme].load()(location)
    return engine
