"""Typed, time-ordered ids: a prefix that tells the noun, and the 32 hex digits of a UUIDv7 (RFC 9562)."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable

from trimtab.core.clock import wall_seconds
from trimtab.core.errors import WrongUse

PREFIXES = {
    "ast": "asset",
    "ver": "version",
    "run": "run",
    "vrd": "verdict",
    "end": "endpoint",
    "dep": "deployment",
    "rol": "rollout",
    "aut": "automation",
    "fir": "firing",
    "alm": "alarm",
    "env": "environment",
    "cas": "case",
    "pln": "plan",
}
_ID = re.compile(rf"(?:{'|'.join(PREFIXES)})_[0-9a-f]{{32}}")


class IdMaker:
    """Makes ids that sort by the time they were made, also within one millisecond of one process.

    Args:
        wall: real seconds since the epoch.
        random: returns that many random bytes.
    """

    def __init__(self, wall: Callable[[], float] = wall_seconds, random: Callable[[int], bytes] = os.urandom) -> None:
        self._wall = wall
        self._random = random
        self._last = 0
        self._lock = threading.Lock()

    def hex(self) -> str:
        """Return the 32 hex digits of a new UUIDv7; 12 sub-millisecond bits count up within a process."""
        with self._lock:
            stamp = max(int(self._wall() * 4096_000), self._last + 1)
            self._last = stamp
        millis, fraction = divmod(stamp, 4096)
        tail = int.from_bytes(self._random(8), "big") & ((1 << 62) - 1)
        value = (millis << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | tail
        return f"{value:032x}"

    def new(self, prefix: str) -> str:
        """Return a new id such as ``run_0192...``.

        Raises:
            WrongUse: ``prefix`` names no noun.
        """
        if prefix not in PREFIXES:
            raise WrongUse(f"{prefix!r} is not an id prefix", fix=f"one of {', '.join(sorted(PREFIXES))}")
        return f"{prefix}_{self.hex()}"


_MAKER = IdMaker()


def new_id(prefix: str) -> str:
    """Return a new id of the kind ``prefix`` (see ``PREFIXES``) from this process's maker."""
    return _MAKER.new(prefix)


def new_hex() -> str:
    """Return 32 hex digits, time-ordered: a trace id that has no noun of its own."""
    return _MAKER.hex()


def is_id(text: str) -> bool:
    """Say whether ``text`` has the form of a typed id."""
    return _ID.fullmatch(text) is not None
