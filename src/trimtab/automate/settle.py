"""Settling: do all that is due at a moment of event time, until nothing is left to do."""

from __future__ import annotations

import time
from datetime import datetime

from trimtab.automate.loop import Loop
from trimtab.core.clock import monotonic
from trimtab.core.errors import Unavailable
from trimtab.core.nouns import Data
from trimtab.monitor.watch import Monitors
from trimtab.serve.collect import collect
from trimtab.serve.rollout import advance
from trimtab.store import live
from trimtab.store.store import Store

_READY_S = 180.0
_POLL_S = 0.02


def settle(store: Store, loop: Loop, monitors: Monitors, now: datetime, *, wait: bool) -> Data:
    """Take in calls and labels, look, act and advance rollouts, until nothing moves.

    Args:
        store: the store.
        loop: its automations.
        monitors: its watches.
        now: event time; nothing later counts.
        wait: for retraining runs and for deployments to become ready.

    Raises:
        Unavailable: a deployment does not become ready.
    """
    done: Data = {"calls": 0, "alarms": 0, "firings": 0, "decisions": []}
    while True:
        done["calls"] += collect(store)
        ticked = monitors.tick(now)
        fired = loop.fire(now)
        moved = loop.step(now, wait=wait)
        decisions = advance(store, now)
        done["alarms"] += len(ticked.alarms)
        done["firings"] += len(fired)
        done["decisions"] += decisions
        if ticked.moved or fired or moved or decisions:
            continue
        if not (wait and _starting(store)):
            return done
        _until_ready(store)


def _starting(store: Store) -> list[str]:
    """Return the deployments that a rollout waits for."""
    found = []
    for endpoint in live.list_endpoints(store.ledger):
        row = live.active_rollout(store.ledger, endpoint.id)
        if row is not None and row.state == "starting":
            found.append(row.candidate_id)
    return found


def _until_ready(store: Store) -> None:
    deadline = monotonic() + _READY_S
    while True:
        states = [live.get_deployment(store.ledger, one).state for one in _starting(store)]
        if not states or any(state in ("ready", "failed") for state in states):
            return
        if monotonic() > deadline:
            raise Unavailable(f"a deployment is not ready after {_READY_S:g} s", fix="see trimtab show and the logs")
        time.sleep(_POLL_S)
