"""Power cuts at random moments of real writes: what was acknowledged is there, bit for bit, and nothing by halves."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bar.acts import KINDS, examine, leaves, perform
from tests.bar.disk import Disk, Event, cuts
from trimtab.store.ledger import Ledger
from trimtab.store.sqlite import SqliteEngine, SqliteSession

CUTS = int(os.environ.get("TRIMTAB_CUTS", "1000"))
EACH = 200


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory, where there is one: thousands of images are written."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield folder
    shutil.rmtree(folder)


def _work(folder: Path, seed: int, *, synchronous: str, checkpoint: int) -> tuple[list[Event], list[bytes]]:
    """Write from four threads through a recording disk; return what happened, and the leaves in the end."""
    dice = random.Random(seed)
    disk = Disk(f"bar-{seed}-{synchronous}")
    engine = SqliteEngine(folder / "ledger.db", vfs=f"bar-{seed}-{synchronous}")
    ledger = Ledger(engine, workspace="w", environment="e", actor="")
    assert isinstance(ledger._writer, SqliteSession)
    ledger._writer.connection.pragma("synchronous", synchronous)
    ledger._writer.connection.pragma("wal_autocheckpoint", checkpoint)
    kinds = [[dice.choice(KINDS) for _ in range(15)] for _ in range(4)]

    def run(thread: int) -> None:
        for number, kind in enumerate(kinds[thread]):
            disk.tell(perform(ledger, f"{kind}/{thread}.{number}", keyed=bool(number % 2)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    final = leaves(ledger)
    assert len(final) == 60
    ledger.close()
    disk.unregister()
    return disk.events, final


def _judge(folder: Path, image: dict[str, bytes], told: set[str], final: list[bytes]) -> str:
    """Open what was found after a cut and say what became of it."""
    for name, content in image.items():
        (folder / name).write_bytes(content)
    try:
        with Ledger.open(folder / "ledger.db", workspace="w", environment="e") as ledger:
            if ledger.query("PRAGMA integrity_check") != [("ok",)]:
                return "corrupt"
            names = examine(ledger)
            assert leaves(ledger) == final[: len(names)]
            _go_on(ledger, names)
            return "lost" if told - set(names) else "whole"
    except Exception as error:
        return f"corrupt: {type(error).__name__}: {error}"


def _go_on(ledger: Ledger, names: list[str]) -> None:
    """Send the last write with a key once more, which changes nothing, and then a new one."""
    for name in [name for name in names if int(name.rpartition(".")[2]) % 2][-1:]:
        assert perform(ledger, name, keyed=True) == name
    perform(ledger, "count/after.1", keyed=True)
    assert ledger.query("SELECT count(*) FROM audit") == [(len(names) + 1,)]


def _outcomes(scratch: Path, seed: int, count: int, *, synchronous: str, checkpoint: int) -> Counter[str]:
    (scratch / "work").mkdir()
    events, final = _work(scratch / "work", seed, synchronous=synchronous, checkpoint=checkpoint)
    dice = random.Random(seed)
    moments = [dice.randint(0, len(events)) for _ in range(count)]
    outcomes: Counter[str] = Counter()
    for image, told in cuts(events, moments, dice):
        folder = scratch / "image"
        folder.mkdir()
        outcomes[_judge(folder, image, told, final)] += 1
        shutil.rmtree(folder)
    shutil.rmtree(scratch / "work")
    return outcomes


def test_no_power_cut_loses_what_was_acknowledged(scratch: Path) -> None:
    """After a cut at any moment the ledger opens, is whole, holds all acknowledged writes, and goes on."""
    outcomes: Counter[str] = Counter()
    for seed in range(-(-CUTS // EACH)):
        checkpoint = (1000, 200, 20, 5)[seed % 4]
        outcomes += _outcomes(scratch, seed, EACH, synchronous="FULL", checkpoint=checkpoint)
    print(f"power cuts: {dict(outcomes)}")
    assert outcomes == {"whole": EACH * -(-CUTS // EACH)}


def test_the_cuts_bite(scratch: Path) -> None:
    """Control: without the sync at each commit the same cuts do lose acknowledged writes, and corrupt none."""
    outcomes = _outcomes(scratch, 10**6, EACH, synchronous="NORMAL", checkpoint=200)
    print(f"power cuts without the sync of commits: {dict(outcomes)}")
    assert set(outcomes) == {"whole", "lost"}
    assert outcomes["lost"] > EACH // 10


def test_the_examination_sees_corruption(scratch: Path) -> None:
    """Control: without any sync the cuts corrupt ledgers, and that is seen."""
    outcomes = _outcomes(scratch, 10**6, EACH // 2, synchronous="OFF", checkpoint=5)
    print(f"power cuts without any sync: {dict(outcomes)}")
    assert any(outcome.startswith("corrupt") for outcome in outcomes)
