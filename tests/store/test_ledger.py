"""The ledger: the conformance suite, groups, forks, late writers and kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.store.crash import ROOT, kill_loop
from trimtab.core.errors import Fault, WrongUse
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.live import get_state, put_state
from trimtab.store.sqlite import SqliteSession
from trimtab.testing.ledger import LedgerConformance, OpenLedger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return a new ledger."""
    with Ledger.open(tmp_path / "ledger.db", actor="tester") as opened:
        yield opened


class TestLedger(LedgerConformance):
    """The SQLite ledger keeps the contract."""

    @pytest.fixture
    def open_ledger(self, tmp_path: Path) -> Iterator[OpenLedger]:
        """Open one new SQLite ledger as often as asked."""
        opened: list[Ledger] = []

        def open_one() -> Ledger:
            opened.append(Ledger.open(tmp_path / "ledger.db"))
            return opened[-1]

        yield open_one
        for one in opened:
            one.close()


class Point(Struct):
    """Something that a write answers with."""

    x: int


def test_a_keyed_answer_has_the_type_that_was_asked_for(ledger: Ledger) -> None:
    """The first and the repeated answer of a key are equal, also when they are structs."""
    answers = [ledger.write(lambda tx: Point(3), what="p", key="k", like=Point) for _ in range(2)]
    assert answers == [Point(3), Point(3)]
    plain: list[Any] = [ledger.write(lambda tx: Point(3), what="p", key="k2") for _ in range(2)]
    assert plain == [{"x": 3}, {"x": 3}]


def test_waiting_writes_share_a_transaction(ledger: Ledger) -> None:
    """Writes that wait while another one runs are committed together."""
    started, go = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        started.set()
        go.wait()

    commits: list[int] = []

    def count() -> bool:
        commits.append(1)
        return False

    assert isinstance(ledger._writer, SqliteSession)
    ledger._writer.connection.set_commit_hook(count)
    threads = [threading.Thread(target=ledger.write, args=(slow,), kwargs={"what": "slow"})]
    threads[0].start()
    started.wait()
    for number in range(20):
        change = lambda tx, number=number: put_state(tx, f"n/{number}", {})  # noqa: E731
        threads.append(threading.Thread(target=ledger.write, args=(change,), kwargs={"what": "put"}))
        threads[-1].start()
    while ledger._queue.qsize() < 20:
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join()
    assert len(commits) == 2
    assert ledger.query("SELECT count(*) FROM state") == [(20,)]


def test_a_failed_commit_reaches_every_caller(ledger: Ledger) -> None:
    """When the group cannot be committed, its caller hears of it and the next write works."""

    def full(tx: Tx) -> None:
        tx.execute("PRAGMA max_page_count=1")
        tx.execute("INSERT INTO state VALUES ('w', 'e', 'k', zeroblob(10000000))")

    with pytest.raises(Fault, match="could not be written"):
        ledger.write(full, what="full")
    ledger.write(lambda tx: tx.execute("PRAGMA max_page_count=1073741823"), what="mend")
    ledger.write(lambda tx: put_state(tx, "a", {}), what="put")
    assert get_state(ledger, "a") == {}


def test_no_writer_is_stranded_by_a_close(tmp_path: Path) -> None:
    """Every write that races with the close is carried out or refused; none waits for ever."""
    for attempt in range(10):
        ledger = Ledger.open(tmp_path / f"{attempt}.db")
        outcomes: Counter[str] = Counter()

        def run(ledger: Ledger = ledger, outcomes: Counter[str] = outcomes) -> None:
            try:
                while True:
                    ledger.write(lambda tx: None, what="x")
                    outcomes["done"] += 1
            except Fault:
                outcomes["refused"] += 1

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        ledger.close()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert outcomes["refused"] == 3


def test_a_read_that_is_under_way_outlives_the_close(tmp_path: Path) -> None:
    """Closing while another thread reads neither fails nor disturbs that read."""
    ledger = Ledger.open(tmp_path / "ledger.db")
    found: list[Any] = []
    reading = threading.Event()
    count = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<1000000) SELECT count(*) FROM c"

    def going() -> bool:
        reading.set()
        return False

    def read() -> None:
        ledger.query("SELECT 1")
        ledger._local.reading.session.connection.set_progress_handler(going, 1000)
        found.append(ledger.query(count))

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    ledger.close()
    thread.join()
    assert found == [[(1000000,)]]


def test_a_forked_child_must_open_its_own(ledger: Ledger) -> None:
    """A forked child that uses its parent's ledger gets an error, and the parent's keeps working."""
    get_state(ledger, "a")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        told = b"nothing"
        try:
            ledger.query("SELECT 1")
        except Fault as error:
            told = str(error).encode()
        os.write(writer, told)
        os._exit(0)
    os.waitpid(child, 0)
    assert b"opened before a fork" in os.read(reader, 1000)
    os.close(reader)
    os.close(writer)
    ledger.write(lambda tx: put_state(tx, "a", {}), what="put")


def test_a_parameter_without_a_name_is_told_by_its_place(ledger: Ledger) -> None:
    """Where the statement's text does not tell the column, the error tells the parameter's place."""
    with pytest.raises(WrongUse, match="64 bits") as caught:
        ledger.query("SELECT ?, ?", (1, 2**70))
    assert caught.value.where == "parameter 2"


def test_a_reader_cannot_write(ledger: Ledger) -> None:
    """A query that would change something is refused."""
    with pytest.raises(Exception, match="readonly"):
        ledger.query("DELETE FROM state")


def test_the_reader_of_a_finished_thread_is_let_go(ledger: Ledger) -> None:
    """The connection of a thread that ended does not stay open."""
    for _ in range(5):
        thread = threading.Thread(target=ledger.query, args=("SELECT 1",))
        thread.start()
        thread.join()
    assert len(ledger._readers) <= 1


def test_four_processes_never_see_a_locked_database(tmp_path: Path) -> None:
    """Processes that write at once all get through, and nothing is lost."""
    code = (
        "import sys; from pathlib import Path; from trimtab.store.ledger import Ledger\n"
        "from trimtab.store.live import put_state\n"
        "with Ledger.open(Path(sys.argv[1])) as ledger:\n"
        "    for n in range(40):\n"
        "        ledger.write(lambda tx: put_state(tx, f'{sys.argv[2]}/{n}', {}), what='put')\n"
    )
    path = tmp_path / "ledger.db"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)], env=environment) for n in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    with Ledger.open(path) as ledger:
        assert ledger.query("SELECT count(*) FROM state") == [(160,)]


def test_kill_9_loses_no_acknowledged_write(tmp_path: Path) -> None:
    """After kill -9 at any moment, every acknowledged write is there and every write is whole."""
    acknowledged = kill_loop("ledger", tmp_path)
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        parts = Counter(key.partition("/")[2] for (key,) in ledger.query("SELECT key FROM state"))
        leaves = ledger.query("SELECT count(*) FROM audit")[0][0]
        assert ledger.query("PRAGMA integrity_check") == [("ok",)]
    assert len(acknowledged) > 20
    assert not set(acknowledged) - set(parts)
    assert set(parts.values()) == {3}
    assert leaves == len(parts)
