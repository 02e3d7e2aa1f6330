"""Asks a deployment's worker, through its restarts: scoring is idempotent, so an attempt that died is made again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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
        pool, crashes, pause, suspect = self.pool(socket), 0, _FIRST_PAUSE, False
        while True:
            begun = monotonic()
            left = deadline - begun
            if left <= 0:
                raise TooSlow(f"no answer within {timeout:g} s: nobody listens", where=socket)
            try:
                answer = await pool.request(head, body, timeout=left)
            except CannotConnect:
                # A used connection that ended is a crash only if the worker is gone, not if it was closed idle.
                crashes += suspect
                suspect = False
                if crashes < CRASHES:
                    await asyncio.sleep(min(pause, left))
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    if not wanted():
                        raise Gone("it is another deployment's turn now", where=socket) from None
            except Broken as error:
                pool.drop_idle()
                suspect = error.reused
                crashes += not suspect
            else:
                return answer, int((monotonic() - begun) * 1e6)
            if crashes >= CRASHES:
                raise Crashed(f"the worker died {crashes} times with this request at work", where=socket)
