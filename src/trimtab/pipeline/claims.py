"""Who works on which asset: one execution at a time makes versions of an asset, the others wait."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from trimtab.core.clock import monotonic
from trimtab.store import leases
from trimtab.store.store import Store

_TTL_S = 60.0
_BEAT_S = 15.0
_HERE: set[str] = set()
_LOCK = threading.Lock()


@dataclass(eq=False)
class Claim:
    """A claim on an asset; set ``run_id`` to the run at work under it, and its heartbeat is kept."""

    name: str
    mark: str
    lease: leases.Lease
    run_id: str = ""


class Claims:
    """The claims of one execution.

    A lease tells processes apart and not the threads of one, so a claim is also noted in this process. The
    lease's name has no environment: environments share an asset's table.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: list[Claim] = []
        self._beat_at = monotonic() + _BEAT_S

    def take(self, asset: str) -> Claim | None:
        """Return a claim on ``asset``, or None while another execution has it."""
        name = f"step:{self._store.ledger.workspace}:{asset}"
        mark = f"{self._store.home.ledger}:{name}"
        with _LOCK:
            if mark in _HERE:
                return None
            _HERE.add(mark)
        lease = None
        try:
            lease = leases.acquire(self._store.ledger, name, _TTL_S)
        finally:
            if lease is None:
                with _LOCK:
                    _HERE.discard(mark)
        if lease is None:
            return None
        claim = Claim(name, mark, lease)
        self._held.append(claim)
        return claim

    def beat(self) -> None:
        """Keep the claims and the heartbeats of their runs alive; cheap unless it is time."""
        if monotonic() < self._beat_at:
            return
        self._beat_at = monotonic() + _BEAT_S
        for claim in self._held:
            leases.renew(self._store.ledger, claim.lease, _TTL_S)
        leases.beat(self._store.ledger, [claim.run_id for claim in self._held if claim.run_id])

    def release(self, claim: Claim) -> None:
        """Give a claim back."""
        if claim in self._held:
            self._held.remove(claim)
            leases.release(self._store.ledger, claim.lease)
            with _LOCK:
                _HERE.discard(claim.mark)

    def release_all(self) -> None:
        """Give back what is still held."""
        for claim in list(self._held):
            self.release(claim)
