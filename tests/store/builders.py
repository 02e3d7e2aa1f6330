"""Short ways to put facts into a ledger."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from trimtab.core.ids import new_id
from trimtab.core.nouns import Run, Version, VersionState
from trimtab.store import facts
from trimtab.store.ledger import Ledger, Tx

START = datetime(2013, 1, 1, tzinfo=UTC)


def at(days: float) -> datetime:
    """Return an event time, in days since the start."""
    return START + timedelta(days=days)


def write(ledger: Ledger, function: Any, /, *args: Any, **options: Any) -> Any:
    """Call a function of the room with a transaction and return its answer."""
    return ledger.write(lambda tx: function(tx, *args, **options), what=function.__name__)


def begin(tx: Tx, name: str = "flights", **fields: Any) -> Run:
    """Start a run."""
    run = Run(id=new_id("run"), **{"kind": "make", "name": name, "state": "running", "started_at": START, **fields})
    facts.start_run(tx, run)
    return run


def make(
    tx: Tx,
    name: str,
    used: Iterable[tuple[Version, str]] = (),
    *,
    kind: str = "table",
    state: VersionState = "published",
    **fields: Any,
) -> Version:
    """Make a version of an asset in a run of its own, from other versions."""
    asset = facts.put_asset(tx, name=name, kind=kind, spec={}, at=START)
    run = begin(tx, name)
    version = facts.add_version(
        tx,
        asset,
        **{"digest": "sha256:00", "run_id": run.id, "state": state, "location": {}, "meta": {}, "at": START, **fields},
    )
    facts.add_used(tx, run.id, [(one.id, role) for one, role in used])
    facts.add_made(tx, run.id, [version.id])
    facts.finish_run(tx, run.id, state="done", ended_at=START)
    return version
