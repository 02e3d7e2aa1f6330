"""What a ledger needs of a database: one session that writes, sessions that read, and a turn between processes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from trimtab.core.errors import WrongUse

Value = None | int | float | str | bytes
ALL = 1 << 62
"""As a LIMIT: every row there is."""
_INT64 = 1 << 63
_INSERT = re.compile(r"\s*(?:INSERT|REPLACE)[^(]*\(([^)]*)\)\s*VALUES\s*\(([^)]*)\)", re.IGNORECASE)
_COMPARED = re.compile(r"([\w.\"]+)\s*(?:[<>]=?|<>|=|LIKE|GLOB)\s*\?", re.IGNORECASE)


class Session(Protocol):
    """One conversation with the database; one thread at a time."""

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Run one statement in the ledger's dialect (SQLite's, ``?`` for a parameter) and return its rows.

        Raises:
            Conflict: a constraint of the schema refuses it.
            Lost: the connection is gone.
        """
        ...

    def execute_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """Run one statement for each row of parameters; errors as in ``execute``."""
        ...

    def begin(self) -> None:
        """Begin a transaction that writes; nobody else writes until it ends."""
        ...

    def commit(self) -> None:
        """End the transaction; what it wrote is durable when this returns."""
        ...

    def rollback(self) -> None:
        """End the transaction as if it had not been; harmless without one."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Engine(Protocol):
    """A database that a ledger lies in; opened means that its schema is up to date."""

    @property
    def where(self) -> str:
        """A path or URL without secrets, for messages."""
        ...

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The database's own errors: one of these in a failed group says nothing that its callers could use."""
        ...

    def turn(self) -> AbstractContextManager[None]:
        """Hold the right to open, write and close among the processes that share the ledger, where that needs one."""
        ...

    def writer(self) -> Session:
        """Open a session that writes."""
        ...

    def reader(self) -> Session:
        """Open a session that cannot write."""
        ...

    def changes(self) -> int:
        """Return a number that moves when any process commits."""
        ...

    def close(self) -> None:
        """Close what the engine itself holds."""
        ...


class Lost(Exception):
    """The connection to the database ended; whether the last statement was carried out is not known.

    Attributes:
        fix: what to do.
    """

    def __init__(self, message: str, fix: str = "try again") -> None:
        super().__init__(message)
        self.fix = fix


def checked(sql: str, params: Sequence[Value]) -> Sequence[Value]:
    """Return the parameters, each of which a ledger keeps exactly.

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
    return params


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
