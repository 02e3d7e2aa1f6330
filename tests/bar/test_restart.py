"""PostgreSQL breaks under four clients: nothing acknowledged is lost, nothing is done twice, nobody hears of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from typing import Any

import psycopg
import pytest

from tests.bar.acts import KINDS, examine, perform
from tests.bar.procs import Child, Say, context
from tests.servers import Postgres, binaries
from trimtab.core.errors import Unavailable
from trimtab.store.ledger import Ledger

RESTARTS = int(os.environ.get("TRIMTAB_RESTARTS", "2"))
CLIENTS, THREADS = 4, 2


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Return a server of this module's own, that waits for the disk."""
    bins = binaries()
    if bins is None:
        pytest.skip("PostgreSQL is not installed")
    made = Postgres(bins, durable=True)
    yield made
    made.close()


def client(say: Say, location: str, name: str, enough: Event) -> None:
    """Write, every other time with a key, and say what came of it and after how many seconds, until it is enough."""
    ledger = Ledger.open(location)

    def run(thread: int) -> None:
        number = 0
        while not enough.is_set():
            act = f"{KINDS[number % len(KINDS)]}/{name}.{thread}.{number}"
            say(f"> {act}")
            began = time.monotonic()
            try:
                perform(ledger, act, keyed=bool(number // len(KINDS) % 2))
                outcome = "<"
            except Unavailable:
                outcome = "?"
            except Exception as error:
                outcome = f"!{type(error).__name__}:{error}".replace(" ", "_").replace("\n", "_")
            say(f"{outcome} {act} {time.monotonic() - began:.3f}")
            number += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()


def crash(server: Postgres) -> None:
    """Restart the server as after a crash."""
    server.stop("immediate")
    server.start()


def kill(server: Postgres) -> None:
    """Kill -9 the server's first process, and start it again once the others have noticed."""
    os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    until = time.monotonic() + 20
    while True:
        try:
            return server.start()
        except RuntimeError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def cut(server: Postgres) -> None:
    """End every connection, several times, while the server lives on."""
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type='client backend' AND pid<>"
    for _ in range(10):
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql + "pg_backend_pid()")
        time.sleep(0.05)


@pytest.mark.parametrize("trouble", [crash, kill, cut])
def test_nothing_is_lost_or_done_twice(server: Postgres, trouble: Callable[[Postgres], None]) -> None:
    """Every write that returned is there, none is there twice, with a key or without; no write failed."""
    location = server.new_ledger()
    Ledger.open(location).close()
    enough = context().Event()
    clients = [Child(client, location, f"c{number}", enough) for number in range(CLIENTS)]
    for _ in range(RESTARTS):
        for one, count in [(one, one.heard + 1000) for one in clients]:
            one.hear(count)
        trouble(server)
    enough.set()
    said = [line.split(" ") for one in clients for line in one.end()]
    outcomes = Counter(words[0] for words in said)
    longest = max(float(words[2]) for words in said if len(words) == 3)
    print(f"{trouble.__name__} x {RESTARTS}: {dict(outcomes)}, longest write {longest:.2f} s")
    assert set(outcomes) <= {">", "<", "?"}
    with Ledger.open(location) as ledger:
        names = examine(ledger)
    acknowledged = {words[1] for words in said if words[0] == "<"}
    unsure = {words[1] for words in said if words[0] == "?"}
    assert acknowledged <= set(names) <= acknowledged | unsure
    assert not unsure
    assert longest < 30
    _check_indexes(server, location.partition("schema=")[2])


def _check_indexes(server: Postgres, schema: str) -> None:
    """Let PostgreSQL check that its indexes are what the tables say."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        except psycopg.Error:
            return
        sql: Any = (
            "SELECT count(bt_index_check(c.oid, true)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind = 'i'"
        )
        found = connection.execute(sql, (schema,)).fetchone()
    assert found is not None
    assert found[0] > 30
