"""Kill -9 at random moments, over every kind of write: nothing acknowledged is lost, nothing is there by halves."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from tests.bar.acts import KINDS, examine, perform
from tests.bar.procs import Child, Say
from tests.servers import Postgres
from trimtab.store.ledger import Ledger

KILLS = int(os.environ.get("TRIMTAB_KILLS", "10"))
THREADS = 4


def victim(say: Say, location: str, round_name: str, again: list[str]) -> None:
    """Say what will be written, write it and say that it was; first what the last victim may not have written."""
    ledger, start = Ledger.open(location), int(round_name[1:])
    for name in again:
        say(f"> {name}")
        perform(ledger, name, keyed=True)
        say(f"< {name}")

    def run(thread: int) -> None:
        for number in range(10**9):
            name = f"{KINDS[(start + thread * 2 + number) % len(KINDS)]}/{round_name}.{thread}.{number}"
            say(f"> {name}")
            perform(ledger, name, keyed=True)
            say(f"< {name}")

    for thread in range(THREADS):
        threading.Thread(target=run, args=(thread,), daemon=True).start()
    threading.Event().wait()


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return where a new ledger may be made."""
    if request.param == "sqlite":
        return str(tmp_path_factory.mktemp("kills") / "ledger.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_ledger()


def test_kill_9_loses_nothing_and_halves_nothing(location: str) -> None:
    """After each kill every acknowledged write is there; what was not acknowledged and is sent again is there once."""
    dice = random.Random(7)
    acknowledged: set[str] = set()
    asked: set[str] = set()
    waiting: list[str] = []
    hits = 0
    for number in range(KILLS):
        child = Child(victim, location, f"r{number}", waiting)
        child.hear()
        time.sleep(dice.uniform(0.0, 0.2))
        said = [line.split(" ") for line in child.kill()]
        done = {name for mark, name in said if mark == "<"}
        acknowledged |= done
        asked |= {name for _, name in said}
        open_now = [name for name in dict.fromkeys([*waiting, *(name for _, name in said)]) if name not in done]
        hits += bool(open_now)
        # Every other time what was not acknowledged is not sent again: what is left of it must be whole, or nothing.
        waiting = open_now if number % 2 else []
    with Ledger.open(location) as ledger:
        _settle(ledger, location)
        names = examine(ledger)
        again = sorted(asked - set(names)) + waiting
        for name in again:
            perform(ledger, name, keyed=True)
        after = examine(ledger)
        if "://" not in location:
            assert ledger.query("PRAGMA integrity_check") == [("ok",)]
    print(f"kills: {KILLS}, on an unacknowledged write {hits}, acknowledged {len(acknowledged)}, asked {len(asked)}")
    assert acknowledged <= set(names) <= asked
    assert set(after) == asked
    assert {name.partition("/")[0] for name in acknowledged} == set(KINDS)
    assert hits * 2 >= KILLS


def _settle(ledger: Ledger, location: str) -> None:
    """Wait until a server has ended what its last client, who is dead, had begun."""
    sql = (
        "SELECT 1 FROM pg_stat_activity WHERE backend_type='client backend' AND pid<>pg_backend_pid() AND state<>'idle'"
    )
    while "://" in location and ledger.query(sql):
        time.sleep(0.01)
