"""The ledger's database on one machine: SQLite in a file, WAL and synchronous=FULL."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apsw

from trimtab.core.errors import Conflict
from trimtab.store.engine import Value, checked
from trimtab.store.migrations import migrate
from trimtab.store.search import FUNCTIONS


class SqliteSession:
    """A connection; see ``Session``."""

    def __init__(self, path: Path, *, writes: bool, vfs: str = "") -> None:
        self.connection = apsw.Connection(str(path), vfs=vfs or None)
        self.connection.set_busy_timeout(30_000)
        self.connection.pragma("journal_mode", "wal")
        self.connection.pragma("synchronous", "FULL")
        self.connection.pragma("foreign_keys", True)
        self.connection.pragma("cache_size", -16_000)
        self.connection.pragma("journal_size_limit", 64 * 1024 * 1024)
        for name, function in FUNCTIONS.items():
            self.connection.create_scalar_function(name, function, 2, deterministic=True)
        if not writes:
            self.connection.pragma("query_only", True)

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; see ``Session``."""
        try:
            return list(self.connection.execute(sql, tuple(checked(sql, params))))
        except apsw.ConstraintError as error:
            raise Conflict(f"the ledger refuses it: {error}", where=" ".join(sql.split()[:3])) from error

    def execute_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """Run a statement for each row; see ``Session``."""
        try:
            self.connection.executemany(sql, [tuple(checked(sql, row)) for row in rows])
        except apsw.ConstraintError as error:
            raise Conflict(f"the ledger refuses it: {error}", where=" ".join(sql.split()[:3])) from error

    def begin(self) -> None:
        """Begin to write."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make it durable."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo what was begun."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class SqliteEngine:
    """A ledger's file; see ``Engine``. Processes take turns by a file lock, so nobody ever finds it locked.

    Args:
        path: the file, made if it is not there; beside it lies ``ledger.lock``.
        vfs: the SQLite file system that it is opened by; empty for the machine's own.
    """

    def __init__(self, path: Path, *, vfs: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._vfs = vfs
        self._lock = _Turn(path.with_name("ledger.lock"))
        self._watching = threading.Lock()
        with ExitStack() as undo:
            undo.callback(self._lock.close)
            with self.turn():
                self._watch = SqliteSession(path, writes=True, vfs=vfs)
                undo.callback(self._watch.close)
                migrate(self._watch.connection)
            undo.pop_all()

    @property
    def where(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """SQLite's own errors."""
        return (apsw.Error,)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the file lock."""
        with self._lock:
            yield

    def writer(self) -> SqliteSession:
        """Open a connection that writes."""
        return SqliteSession(self.path, writes=True, vfs=self._vfs)

    def reader(self) -> SqliteSession:
        """Open a connection that cannot write."""
        return SqliteSession(self.path, writes=False, vfs=self._vfs)

    def changes(self) -> int:
        """Return a number that moves when any process commits."""
        with self._watching:
            return int(self._watch.connection.pragma("data_version"))

    def close(self) -> None:
        """Close what the engine itself holds."""
        with self._watching:
            self._watch.close()
        self._lock.close()


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
