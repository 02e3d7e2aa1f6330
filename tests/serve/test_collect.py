"""From the calls log into the ledger: exactly once, whoever reads, whatever cannot be read."""

from __future__ import annotations

import threading

import pytest

from tests.serve.stand import START, Traffic, deploy, make_version, put_endpoint
from trimtab.serve.collect import collect
from trimtab.serve.frames import calls_folder
from trimtab.store.calls import calls_of
from trimtab.store.intake import Buffered
from trimtab.store.store import Store, open_store


@pytest.fixture
def traffic(store: Store) -> Traffic:
    """Return traffic to an endpoint with one deployment."""
    deploy(store, put_endpoint(store), make_version(store), share=100)
    return Traffic(store)


def _count(store: Store) -> int:
    return int(store.ledger.query("SELECT count(*) FROM call")[0][0])


def test_each_request_counts_once(store: Store, traffic: Traffic) -> None:
    """A request that was sent again is one row; the first answer stands."""
    with traffic:
        (first,) = traffic.send(1, START, score=0.9)
        traffic.sent = 0
        traffic.send(3, START, score=0.1)
    assert _count(store) == 3
    found = calls_of(store.ledger, [first])[0]
    assert found.score == 0.9 and found.prediction is True and found.at == int(START.timestamp() * 1e6)
    assert collect(store) == 0


def test_a_failed_request_can_succeed_later(store: Store, traffic: Traffic) -> None:
    """The failure is one row, its repeat another; the caller's own mistakes leave none."""
    with traffic:
        traffic.send(1, START, status=lambda candidate, number: 500)
        traffic.sent = 0
        traffic.send(1, START, status=lambda candidate, number: 503)
        traffic.sent = 0
        traffic.send(1, START, status=lambda candidate, number: 422)
        traffic.sent = 0
        traffic.send(1, START)
    rows = store.ledger.query("SELECT prediction_id, status FROM call ORDER BY status")
    assert rows == [("0" * 32 + ".0", 200), ("0" * 32 + ".failed", 500)]


def test_readers_at_once_take_each_part_once(store: Store, traffic: Traffic) -> None:
    """However many processes collect, each request is counted by one of them."""
    with traffic:
        for _ in range(5):
            traffic.send(20, START)
    store.ledger.write(lambda tx: tx.execute("DELETE FROM tail"), what="rewind")
    store.ledger.write(lambda tx: tx.execute("DELETE FROM call"), what="rewind")
    counts: list[int] = []
    with open_store(store.home.root) as other:
        threads = [threading.Thread(target=lambda one=one: counts.append(collect(one))) for one in (store, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(counts) == _count(store) == 100


def test_what_cannot_be_read_stops_nobody(store: Store, traffic: Traffic, capsys: pytest.CaptureFixture[str]) -> None:
    """A frame of nonsense is told and passed over."""
    with traffic:
        traffic.send(2, START)
    log = Buffered(calls_folder(store.home.intake), 1 << 20, flush_every=0)
    log.append(b"\xc1 nonsense")
    log.close()
    with Traffic(store) as more:
        more.sent = 2
        more.send(2, START)
    assert _count(store) == 4 and "cannot be read" in capsys.readouterr().err


def test_other_environments_keep_their_calls(store: Store, traffic: Traffic) -> None:
    """A reader for another environment passes over what is not its own."""
    with traffic:
        traffic.send(3, START)
    with open_store(store.home.root, environment="prod") as other:
        assert collect(other) == 0
    assert _count(store) == 3
