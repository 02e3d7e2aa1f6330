"""The error tree: one class for each thing that a caller can do about it.

TrimtabError
├── WrongUse              exit 2: the request cannot be carried out as it was put
│   ├── ProjectError      a declaration or the project file is wrong (names file and line)
│   ├── NotFound          a name, reference or id that does not exist (names the closest)
│   ├── BadInput          data or a payload is not what was declared (names field and row)
│   │   └── BadSource     a source file is missing, truncated or unreadable
│   └── MissingExtra      an optional dependency is not installed (names the extra)
├── Refused               exit 1: a verdict, a gate or a policy said no
│   ├── GateFailed        a version failed its gate and was not published
│   └── StaleInput        an input failed its gate or is older than its freshness limit
├── Conflict              exit 3: somebody else changed it first (compare-and-set failed)
└── Fault                 exit 3: something broke
    ├── StepFailed        user code raised, or its worker process died
    ├── Corrupt           stored data is not what its digest says
    └── Unavailable       a process or a store does not answer
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TrimtabError(Exception):
    """The root of every error that Trimtab raises on purpose.

    Attributes:
        exit_code: what the command line exits with (1 verdict, 2 wrong use, 3 fault).
        where: the place to look at (``file:line``, a field, an id), or an empty string.
        fix: what to do about it, or an empty string.
    """

    exit_code = 3

    def __init__(self, message: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        # The default reduction drops keyword-only arguments, and errors cross process borders.
        return (_rebuild, (type(self), self.message, self.where, self.fix))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  fix: {self.fix}" if self.fix else text

    def as_data(self) -> dict[str, str]:
        """Return the error as plain data: ``type``, ``message``, ``where``, ``fix``."""
        return {"type": type(self).__name__, "message": self.message, "where": self.where, "fix": self.fix}


def _rebuild(kind: type[TrimtabError], message: str, where: str, fix: str) -> TrimtabError:
    return kind(message, where=where, fix=fix)


class WrongUse(TrimtabError):
    """The request cannot be carried out as it was put."""

    exit_code = 2


class ProjectError(WrongUse):
    """A declaration or the project file is wrong."""


class NotFound(WrongUse):
    """A name, reference or id does not exist."""


class BadInput(WrongUse):
    """Data or a payload is not what was declared."""


class BadSource(BadInput):
    """A source file is missing, truncated or unreadable."""


class MissingExtra(WrongUse):
    """An optional dependency is not installed."""


class Refused(TrimtabError):
    """A verdict, a gate or a policy said no."""

    exit_code = 1


class GateFailed(Refused):
    """A version failed its gate and was not published."""


class StaleInput(Refused):
    """An input failed its gate or is older than its freshness limit."""


class Conflict(TrimtabError):
    """Somebody else changed it first."""


class Fault(TrimtabError):
    """Something broke that the caller did not cause."""


class StepFailed(Fault):
    """User code raised, or its worker process died."""


class Corrupt(Fault):
    """Stored data is not what its digest says."""


class Unavailable(Fault):
    """A process or a store does not answer."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the known name closest to ``name``, or an empty string."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
