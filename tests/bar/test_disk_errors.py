"""A disk that fails now and then: a write that was refused says so, one that was acknowledged stands."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import apsw
import pytest

from tests.bar.acts import KINDS, examine, perform
from tests.bar.disk import Disk, cuts
from trimtab.core.errors import Fault
from trimtab.store.ledger import Ledger
from trimtab.store.sqlite import SqliteEngine, SqliteSession


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError])
@pytest.mark.parametrize("where", ["write", "sync"])
def test_failing_writes_and_syncs_lose_nothing(tmp_path: Path, where: str, error: type[apsw.Error]) -> None:
    """Through errors of writes and syncs the open ledger stays whole and goes on; then the power is cut as well."""
    disk = Disk(f"bar-{where}-{error.__name__}")
    dice = random.Random(3)
    acknowledged: set[str] = set()
    refused: list[BaseException] = []

    def fail(what: str) -> None:
        if what == where and dice.random() < (0.2 if where == "sync" else 0.02):
            raise error("the disk says no")

    engine = SqliteEngine(tmp_path / "ledger.db", vfs=f"bar-{where}-{error.__name__}")
    with Ledger(engine, workspace="w", environment="e", actor="") as ledger:
        assert isinstance(ledger._writer, SqliteSession)
        # SQLite overlooks that a checkpoint failed, which costs nothing; what Python raises in it cannot be overlooked.
        ledger._writer.connection.pragma("wal_autocheckpoint", 0)

        def run(thread: int) -> None:
            for number in range(30):
                name = f"{KINDS[(number + thread) % len(KINDS)]}/{thread}.{number}"
                try:
                    disk.tell(perform(ledger, name, keyed=True))
                    acknowledged.add(name)
                except BaseException as caught:
                    refused.append(caught)

        disk.trouble = fail
        threads = [threading.Thread(target=run, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        disk.trouble = lambda what: None
        assert {type(one) for one in refused} == {Fault}
        assert set(examine(ledger)) == acknowledged
        ledger._writer.connection.pragma("wal_autocheckpoint", 20)
        perform(ledger, "count/last.1", keyed=True)
        assert ledger.query("PRAGMA integrity_check") == [("ok",)]
        events = list(disk.events)
    disk.unregister()
    print(f"{error.__name__} of a {where}: {len(refused)} refused, {len(acknowledged)} stand")
    for number, (image, told) in enumerate(cuts(events, dice.sample(range(len(events)), 20), dice)):
        folder = tmp_path / f"image-{number}"
        folder.mkdir()
        for name, content in image.items():
            (folder / name).write_bytes(content)
        with Ledger.open(folder / "ledger.db", workspace="w", environment="e") as ledger:
            assert told <= set(examine(ledger))
            assert ledger.query("PRAGMA integrity_check") == [("ok",)]
