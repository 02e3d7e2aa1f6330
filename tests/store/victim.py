"""A process that the crash tests kill: it acts in a loop and says on a pipe what was acknowledged."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from trimtab.core.optional import need
from trimtab.store.blobs import LocalBlobs
from trimtab.store.intake import Buffered, Durable
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.live import put_state
from trimtab.store.tables import DeltaTables

Act = Callable[[str], None]


def payload(name: str) -> bytes:
    """Return bytes that belong to a name and can be checked against it."""
    return name.encode() + b":" + name.encode() * (1 + hash(len(name)) % 7 + int(name.rpartition(".")[2]) % 300)


def ledger_act(folder: Path) -> Act:
    """Each act writes three rows in one transaction."""
    ledger = Ledger.open(folder / "ledger.db")

    def act(name: str) -> None:
        def change(tx: Tx) -> None:
            for part in "abc":
                put_state(tx, f"{part}/{name}", {"name": name})

        ledger.write(change, what="three")

    return act


def blobs_act(folder: Path) -> Act:
    """Each act keeps one blob."""
    blobs = LocalBlobs(folder)
    return lambda name: void(blobs.put(payload(name)))


def durable_act(folder: Path) -> Act:
    """Each act appends two frames durably."""
    log = Durable(folder, segment_bytes=64 * 1024)
    return lambda name: log.append_all([b"1" + payload(name), b"2" + payload(name)])


def buffered_act(folder: Path) -> Act:
    """Each act appends one frame to a mapped segment."""
    log = Buffered(folder, segment_bytes=64 * 1024)

    def act(name: str) -> None:
        assert log.append(payload(name))

    return act


def tables_act(folder: Path) -> Act:
    """Each act stages a row that names its run and commits it; one at a time, as under a lease."""
    tables, turn = DeltaTables(folder), threading.Lock()
    ident = "ast_" + "0" * 32

    def act(name: str) -> None:
        with turn:
            staged = tables.stage(ident, need("pyarrow").table({"run": [name]}))
            tables.commit([staged], table_id=ident, mode="append", run_id=name)

    return act


ACTS = {
    "ledger": ledger_act,
    "blobs": blobs_act,
    "durable": durable_act,
    "buffered": buffered_act,
    "tables": tables_act,
}


def void(_: object) -> None:
    """Drop an answer."""


def main() -> None:
    """Act in four threads until killed; a line on standard output acknowledges each act."""
    kind, folder, round_name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    act = ACTS[kind](folder)

    def run(thread: int) -> None:
        for number in range(10**9):
            name = f"{round_name}.{thread}.{number}"
            act(name)
            os.write(1, f"{name}\n".encode())

    for thread in range(4):
        threading.Thread(target=run, args=(thread,), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
