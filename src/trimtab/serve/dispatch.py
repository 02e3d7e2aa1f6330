"""Asks a deployment's worker, through its restarts: scoring is idempotent, so an attempt that died is made again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from trimtab.core.clock import monotonic
from trimtab.core.errors import Fault, Unavailable
from trimtab.serve.wire import Broken, CannotConnect, Pool, Response, TooSlow

CRASHES = 2
"""A request that was at work in this many crashes of its worker is answered with an error."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2


class Crashed(Fault):
    """The worker died with this request at work, more than once."""


class Gone(Unavailable):
    """The deployment takes no requests any more."""


class Workers:
    """Connections to all workers, by socket."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}

    def pool(self, socket: str) -> Pool:
        """Return the connections to one worker."""
        found = self._pools.get(socket)
        if found is None:
            found = self._pools[socket] = Pool(socket)
        return found

    def keep(self, sockets: set[str]) -> None:
        """Let go of workers that no route names any more."""
        for socket in self._pools.keys() - sockets:
            self._pools.pop(socket).drop_idle()

    async def ask(
        self, socket: str, head: bytes, body: bytes, *, timeout: float, wanted: Callable[[], bool]
    ) -> tuple[Response, int]:
        """Return a worker's answer, and the microseconds of the attempt that brought it.

        While nobody listens (the worker starts, or starts again) the request waits.

        Args:
            socket: where the worker listens.
            head: the request's head.
            body: its body.
            timeout: seconds for everything, waiting included.
            wanted: asked while waiting: is it still this deployment that should answer?

        Raises:
            TooSlow: no answer in time.
            Crashed: the worker died with this request at work, twice.
            Gone: it is not this deployment any more that should answer.
        """
        deadline = monotonic() + timeout
        pool, deaths, pause, suspect = self.pool(socket), _Deaths(socket), _FIRST_PAUSE, False
        while True:
            begun = monotonic()
            left = deadline - begun
            if left <= 0:
                raise TooSlow(f"no answer within {timeout:g} s: nobody listens", where=socket)
            try:
                answer = await pool.request(head, body, timeout=left)
            except CannotConnect:
                # A used connection that ended is a crash only if the worker is gone, not if it was closed idle.
                if suspect:
                    deaths.note()
                suspect = False
            except Broken as error:
                pool.drop_idle()
                suspect = error.reused
                if error.reused:
                    continue
                deaths.note()
            else:
                return answer, int((monotonic() - begun) * 1e6)
            if deaths.count >= CRASHES:
                raise Crashed(f"the worker died {deaths.count} times with this request at work", where=socket)
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)
            if not wanted():
                raise Gone("it is another deployment's turn now", where=socket)


class _Deaths:
    """Counts the workers that died under a request: a dying one may still take a connection and drop it again."""

    def __init__(self, socket: str) -> None:
        self.count = 0
        self._socket = socket
        self._last: tuple[int, int] | None = None

    def note(self) -> None:
        """Count the death of the worker whose socket lies there now; each worker makes a socket of its own."""
        try:
            stat = Path(self._socket).stat()
        except OSError:
            self.count += 1
            return
        mark = (stat.st_ino, stat.st_ctime_ns)
        self.count += mark != self._last
        self._last = mark
