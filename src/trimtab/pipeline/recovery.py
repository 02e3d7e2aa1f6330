"""After a death: runs that nobody executes any more are marked, and what they left half-done is found."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.core.nouns import Run
from trimtab.store import facts, leases
from trimtab.store.store import Store


def reap(store: Store) -> list[Run]:
    """Mark the runs whose executor died as lost, and return them."""
    return leases.reap(store.ledger)


def to_recover(store: Store, node: str, assets: Mapping[str, str], *, run_id: str = "") -> dict[str, int | None]:
    """Return which tables may hold commits that the ledger does not name: table id -> newest that it names.

    A step commits its tables before the ledger hears of it, so a death between the two leaves a commit that
    no version names. It is dropped before the next step of the same asset begins, which then does the work
    anew: nothing is lost and nothing is there twice. The caller's run is at work on the asset, and one run at
    a time is, so that no living process can be between the two.

    Args:
        store: the store.
        node: the asset whose steps commit.
        assets: every asset that they make versions of -> its id, which is also its table's.
        run_id: the caller's own run.
    """
    ledger = store.ledger
    sql = (
        "SELECT state FROM run WHERE workspace=? AND name=? AND kind IN ('make', 'gate')"
        " AND key <> '' AND id <> ? ORDER BY id DESC LIMIT 1"
    )
    last = ledger.query(sql, (ledger.workspace, node, run_id))
    if not last or last[0][0] == "done":
        return {}
    return {table_id: _newest(store, table_id) for table_id in assets.values()}


def _newest(store: Store, table_id: str) -> int | None:
    """Return the newest Delta version that any version of an asset names, in any environment."""
    rows = store.ledger.query("SELECT location FROM version WHERE asset_id=?", (table_id,))
    found = [facts.unpack(row[0]).get("delta_version") for row in rows]
    return max((number for number in found if number is not None), default=None)
