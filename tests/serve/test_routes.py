"""Routing tables as files: whole, newest, and only when something changed."""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.serve.stand import START, deploy, make_version, put_endpoint
from trimtab.core.errors import Conflict
from trimtab.core.ids import new_id
from trimtab.serve.routes import KEPT, Table, Watcher, epochs, load, publish, socket_of, table_of
from trimtab.store import live
from trimtab.store.ledger import Tx
from trimtab.store.live import RolloutRow
from trimtab.store.store import Store


def _move(endpoint_id: str, shares: dict[str, float], epoch: int, tx: Tx) -> None:
    live.set_traffic(tx, endpoint_id, shares, expect_epoch=epoch)


def test_a_table_says_all_that_the_router_needs(store: Store) -> None:
    """Sockets, shares, states, salt and time limit come from the ledger; a deployment that is down does not appear."""
    version, endpoint = make_version(store), put_endpoint(store, sticky="X-Session", timeout="2s")
    one, two = deploy(store, endpoint, version, share=100), deploy(store, endpoint, version)
    store.ledger.write(lambda tx: live.set_desired(tx, two, "down"), what="down")
    publish(store)
    table = load(store.home.routes)
    assert table is not None and table.epoch == 1
    route = table.endpoints["api"]
    assert (route.salt, route.sticky, route.timeout_s, route.candidate) == ("fixed", "X-Session", 2.0, None)
    assert [(one_.id, one_.number, one_.version, one_.share) for one_ in route.deployments] == [(one, 1, "line:1", 100)]
    assert len(route.deployments[0].socket) < 100


def test_the_candidate_comes_last(store: Store) -> None:
    """The deployment that a rollout judges takes its buckets from the top, whatever its number."""
    version, endpoint = make_version(store), put_endpoint(store)
    one, two = deploy(store, endpoint, version, share=100), deploy(store, endpoint, version, share=90)
    row = RolloutRow(
        id=new_id("rol"), endpoint_id=endpoint, run_id="", state="stepping", stable_id=two, candidate_id=one, data={},
        updated_at=START,
    )  # fmt: skip
    store.ledger.write(lambda tx: live.add_rollout(tx, row), what="rollout")
    route = table_of(store.ledger, store.home).endpoints["api"]
    assert [target.id for target in route.deployments] == [two, one] and route.candidate == one


def test_publishing_the_same_changes_nothing(store: Store) -> None:
    """A table that says what the newest one says is not written."""
    put_endpoint(store)
    assert (publish(store), publish(store)) == (1, 1)
    put_endpoint(store, name="other")
    assert publish(store) == 2


def test_a_few_tables_are_kept(store: Store) -> None:
    """Older tables go, so that the folder stays small."""
    for number in range(KEPT + 3):
        put_endpoint(store, name=f"e{number}")
        publish(store)
    assert epochs(store.home.routes) == list(range(4, KEPT + 4))


def test_publishers_at_once_leave_the_newest_facts(store: Store) -> None:
    """However commits and publishers interleave, the newest table says what the ledger says."""
    version, endpoint = make_version(store), put_endpoint(store)
    one, two = deploy(store, endpoint, version, share=100), deploy(store, endpoint, version)

    def work(first: float) -> None:
        for step in range(5):
            share = first + step
            epoch = live.get_endpoint(store.ledger, endpoint).epoch
            with contextlib.suppress(Conflict):  # somebody was first: publish all the same
                store.ledger.write(partial(_move, endpoint, {one: 100 - share, two: share}, epoch), what="traffic")
            publish(store)

    threads = [threading.Thread(target=work, args=(first,)) for first in (1, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = load(store.home.routes)
    assert table is not None and table.endpoints == table_of(store.ledger, store.home).endpoints


def test_a_table_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """The newest whole table holds."""
    (tmp_path / "1.json").write_bytes(msgspec.json.encode(Table(epoch=1)))
    (tmp_path / "2.json").write_bytes(b'{"epoch": 2, "endp')
    (tmp_path / "next.17").write_bytes(b"half")
    found = load(tmp_path)
    assert found is not None and found.epoch == 1
    assert load(tmp_path / "nowhere") is None


def test_a_watcher_sees_every_change(tmp_path: Path) -> None:
    """Also a second change within the grain of the folder's time is seen; a quiet folder costs no reading."""
    watcher = Watcher(tmp_path)
    assert watcher.changed()
    for number in range(3):
        (tmp_path / f"{number}.json").write_text("{}")
        assert watcher.changed(), number
    os.utime(tmp_path, (1, 1))
    assert watcher.changed() and not watcher.changed()
    assert not Watcher(tmp_path / "nowhere").changed()


@pytest.mark.parametrize("ids", [("dep_" + "a" * 32, "dep_" + "a" * 31 + "b")])
def test_sockets_differ(store: Store, ids: tuple[str, str]) -> None:
    """Two deployments never share a socket."""
    assert len({socket_of(store.home, one) for one in ids}) == 2
