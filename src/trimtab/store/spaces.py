"""Names that clients choose: assets outside the project's own name space, made when they are first named."""

from __future__ import annotations

from trimtab.core.ids import new_hex
from trimtab.store.ledger import Tx
from trimtab.store.packing import pack


def next_version(tx: Tx, space: str, name: str, *, kind: str, at: int) -> tuple[str, int]:
    """Return the asset of a name in a space, made if need be, and the number of its next version.

    Args:
        tx: the transaction.
        space: the name space.
        name: in it.
        kind: of the asset, where it is made.
        at: when, in microseconds since 1970.
    """
    rows = tx.query("SELECT id FROM asset WHERE workspace=? AND space=? AND name=?", (tx.workspace, space, name))
    if rows:
        sql = "SELECT coalesce(max(number), 0) + 1 FROM version WHERE asset_id=?"
        return str(rows[0][0]), int(tx.query(sql, (rows[0][0],))[0][0])
    ident = f"ast_{new_hex()}"
    put_asset(tx, ident, space, name, kind=kind, at=at)
    return ident, 1


def put_asset(tx: Tx, ident: str, space: str, name: str, *, kind: str, at: int) -> None:
    """Write an asset of a space."""
    tx.execute(
        "INSERT INTO asset(id, workspace, environment, space, name, kind, spec, created_at) VALUES (?,?,?,?,?,?,?,?)",
        (ident, tx.workspace, tx.environment, space, name, kind, pack({}), at),
    )
