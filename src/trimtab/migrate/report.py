"""What a move did: counts of each kind there and here, and what did not come over, by name."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from msgspec import Struct

from trimtab.core.nouns import Data

Why = Literal["refused", "conflict", "left", "difference"]
KINDS = (
    "experiments", "runs", "params", "tags", "points", "inputs", "files", "models", "registered models", "versions",
    "aliases", "traces", "spans", "assessments",
)  # fmt: skip
MOST = 5000
"""How many problems are named; the others are counted."""


class Problem(Struct, frozen=True):
    """Something that did not come over.

    Attributes:
        why: ``refused`` it cannot be kept here, ``conflict`` it is here with other content, ``left`` it stays where it
            is, ``difference`` counts differ.
        what: its kind.
        ident: which one.
        reason: in words.
    """

    why: Why
    what: str
    ident: str
    reason: str


class Report:
    """Counts and problems of a move."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.copied: Counter[str] = Counter()
        self.already: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self.more = 0
        self.renumbered: dict[int, int] = {}
        self._bad = False

    def tell(self, why: Why, what: str, ident: str, reason: str) -> None:
        """Add something that did not come over."""
        self._bad |= why != "left"
        if len(self.problems) < MOST:
            self.problems.append(Problem(why, what, ident, reason))
        else:
            self.more += 1

    @property
    def ok(self) -> bool:
        """Whether everything is here that could be read there."""
        return not self._bad

    def as_data(self) -> Data:
        """Return the report as plain data."""
        kinds = [kind for kind in KINDS if self.seen[kind] or self.copied[kind] or self.already[kind]]
        return {
            "ok": self.ok,
            "counts": {
                kind: {"there": self.seen[kind], "copied": self.copied[kind], "already": self.already[kind]}
                for kind in kinds
            },
            "renumbered": {str(old): new for old, new in self.renumbered.items() if old != new},
            "problems": self.problems,
            "problems_not_named": self.more,
        }
