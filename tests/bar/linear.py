"""Whether a history of overlapping operations is one that some order of them, one at a time, would have given.

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory of Lowe (2017): an
operation may come next if no other ended before it began; a set of operations done and a state are looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

UNKNOWN = "unknown"
"""The answer of an operation whose caller died: it may have been carried out, later too, or not."""


class Op(NamedTuple):
    """One operation: from when to when, what was asked, and the answer."""

    start: float
    end: float
    call: tuple[Any, ...]
    answer: Any


Step = Callable[[Any, tuple[Any, ...], Any], Iterable[Any]]
"""Given a state, a call and its answer, the states that may follow: none if the answer is impossible."""


def linearizable(history: Iterable[Op], first: Any, step: Step) -> bool:
    """Say whether some order explains a history, from the first state on."""
    ops: Sequence[Op] = sorted(history, key=lambda op: op.start)
    must = sum(1 << index for index, op in enumerate(ops) if op.answer != UNKNOWN)
    seen = set()
    waiting = [(0, first)]
    while waiting:
        done, state = waiting.pop()
        if done & must == must:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        horizon = min(op.end for index, op in enumerate(ops) if not done >> index & 1)
        for index, op in enumerate(ops):
            if op.start > horizon:
                break
            if not done >> index & 1:
                waiting += [(done | 1 << index, after) for after in step(state, op.call, op.answer)]
    return False


def register(state: Any, call: tuple[Any, ...], answer: Any) -> list[Any]:
    """Be a register with ``("read",)`` and ``("set", expect, new)``, which answers whether it was as expected."""
    if call[0] == "read":
        return [state] if answer in (state, UNKNOWN) else []
    fits = state == call[1]
    return [call[2] if fits else state] if answer in (fits, UNKNOWN) else []


def lease(state: Any, call: tuple[Any, ...], answer: Any) -> list[Any]:
    """Be a lease: its holder (0: nobody) and epoch. ``("die", process)`` frees what a process held."""
    holder, epoch = state
    what, process = call[:2]
    if what == "die":
        return [(0, epoch) if holder == process else state]
    if what == "acquire":
        fits = holder in (0, process)
        right = answer == UNKNOWN or answer == (epoch + 1 if fits else None)
        return [(process, epoch + 1) if fits else state] if right else []
    held = (holder, epoch) == (process, call[2])
    if what == "release":
        return [(0, epoch) if held else state]
    return [state] if answer in (held, UNKNOWN) else []


def pending(start: float, *call: Any) -> Op:
    """Return an operation that may happen at any time from ``start`` on, or never."""
    return Op(start, math.inf, call, UNKNOWN)
