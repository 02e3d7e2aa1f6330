"""Settling: do all that is due at a moment of event time, until nothing is left to do.

What is decided depends on what had happened by then, in the order of event time, and on nothing else: each part is a
transaction of its own and finds by itself what is left for it, so a settling that was cut short is carried on by the
next one and comes to the same end.
"""

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

READY_S = 180.0
_POLL_S = 0.02


def settle(
    store: Store, loop: Loop, monitors: Monitors, now: datetime, *, wait: bool, patience_s: float = READY_S
) -> Data:
    """Take in calls and labels, look, act and advance rollouts, until nothing moves.

    Args:
        store: the store.
        loop: its automations.
        monitors: its watches.
        now: event time; nothing later counts.
        wait: for retraining runs and for deployments to become ready; else the next settling goes on.
        patience_s: the longest (real) time to wait for deployments.

    Returns:
        ``{"calls", "labels", "alarms", "firings", "decisions", "waiting"}``: how much was taken in, how many alarms
        and firings there were, what was decided about rollouts, and the deployments that are not ready yet.

    Raises:
        Unavailable: a deployment does not become ready, or the server is ending.
    """
    done: Data = {"calls": 0, "labels": 0, "alarms": 0, "firings": 0, "decisions": []}
    deadline = monotonic() + patience_s
    while True:
        done["calls"] += collect(store)
        ticked = monitors.tick(now)
        fired = loop.fire(now)
        ended = loop.step(now, wait=wait)
        decisions = advance(store, now)
        done["labels"] += ticked.labels
        done["alarms"] += len(ticked.alarms)
        done["firings"] += len(fired)
        done["decisions"] += decisions
        if ticked.moved or fired or ended or decisions:
            deadline = monotonic() + patience_s
            continue
        pending = _starting(store)
        if not (wait and pending):
            return {**done, "waiting": pending}
        _wait(store, deadline, pending)


def _starting(store: Store) -> list[str]:
    """Return the deployments that a rollout waits for."""
    found = []
    for endpoint in live.list_endpoints(store.ledger):
        row = live.active_rollout(store.ledger, endpoint.id)
        if row is not None and row.state == "starting":
            found.append(row.candidate_id)
    return found


def _wait(store: Store, deadline: float, pending: list[str]) -> None:
    """Wait until one of the deployments is no longer starting.

    Raises:
        Unavailable: that takes too long.
    """
    while True:
        time.sleep(_POLL_S)
        if any(live.get_deployment(store.ledger, one).state != "starting" for one in pending):
            return
        if monotonic() > deadline:
            raise Unavailable(
                f"{len(pending)} deployment(s) are not ready in time: {', '.join(pending)}",
                where=pending[0],
                fix="see that `trimtab up` runs, and the worker's log in .trimtab/logs",
            )
