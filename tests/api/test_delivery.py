"""Deliveries reach their receivers at least once, whoever else is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.receivers import Receiver, verified
from tests.store.builders import write
from tests.stories.conftest import free_port
from trimtab.api.delivery import Deliveries, Pace, pause_s, sign
from trimtab.api.outbound import HOSTS, HTTP, Guard
from trimtab.store import registry, webhooks
from trimtab.store.ledger import Tx
from trimtab.store.secrets import NAME, Secrets
from trimtab.store.store import Store, open_store

HERE = frozenset({"127.0.0.1"})
QUICK = Pace(tick=0.01, first=0.02, longest=0.05, pause=0.05, attempts=4, timeout=0.5)
Start = Callable[..., Deliveries]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store."""
    with open_store(tmp_path / "store", actor="tests") as opened:
        yield opened


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    """Return a function that starts delivering."""
    begun: list[tuple[Deliveries, threading.Thread]] = []

    def begin(pace: Pace = QUICK, of: Store = store) -> Deliveries:
        made = Deliveries(of, Guard(HERE, HERE), pace)
        thread = threading.Thread(target=made.run, daemon=True)
        thread.start()
        begun.append((made, thread))
        return made

    yield begin
    for made, thread in begun:
        made.close()
        thread.join(5)


def hook(store: Store, url: str, *, secret: str = "", name: str = "hook") -> str:
    """Add a webhook that hears of new models, and return its id."""
    ident = webhooks.new_key()
    sealed = Secrets(store.home.root).seal(secret, ident, first=True) if secret else ""

    def add(tx: Tx) -> None:
        webhooks.create(
            tx, ident, name=name, url=url, description="", secret=sealed, status="ACTIVE",
            events=("registered_model.created",), now_ms=1,
        )  # fmt: skip

    store.ledger.write(add, what="hook")
    return ident


def register(store: Store, *names: str) -> None:
    """Register models, each an event."""
    for name in names:
        write(store.ledger, registry.create_registered, name, now_ms=1)


def states(store: Store, ident: str = "") -> list[tuple[Any, ...]]:
    """Return state, attempts and answer of each delivery, oldest first."""
    where = "WHERE webhook_id=?" if ident else "WHERE ''=?"
    return store.ledger.query(f"SELECT state, attempts, answer FROM delivery {where} ORDER BY id", (ident,))


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_signature_is_the_documented_one() -> None:
    """A value that was computed with OpenSSL from the documented form."""
    assert sign("s", "1f0c", "1700000000", b'{"a": 1}') == "v1,EqIDdhJ/FbVu6AvRG4DSDTrCDlOhzoTLjM1SG85tpRw="


def test_a_pause_doubles_up_to_its_limit() -> None:
    """Each is between the half and the whole of what is due, and never above the longest."""
    pace = Pace()
    for before, whole in ((0, 1.0), (1, 2.0), (5, 32.0), (12, 3600.0), (10_000, 3600.0)):
        found = [pause_s(pace, before, pace.longest) for _ in range(50)]
        assert whole / 2 <= min(found) <= max(found) <= whole and len(set(found)) > 1


def test_deliveries_come_in_order_and_signed(store: Store, start: Start) -> None:
    """A receiver that answers gets all there is, the oldest first, each once."""
    with Receiver() as receiver:
        hook(store, receiver.url, secret="s")
        names = [f"m{number}" for number in range(20)]
        register(store, *names)
        start()
        got = receiver.wait(20)
        until(lambda: states(store) == [("delivered", 1, 200)] * 20)
    assert [one.data["name"] for one in got] == names
    assert all(verified(one, "s") for one in got) and len({one.id for one in receiver.got}) == 20


def test_what_failed_is_tried_again_with_its_id(store: Store, start: Start) -> None:
    """An answer of a broken server is tried again; the receiver sees by the id that it is the same."""
    with Receiver(lambda before: 200 if before >= 2 else 503) as receiver:
        hook(store, receiver.url, secret="s")
        register(store, "a")
        start()
        got = receiver.wait(3)
        until(lambda: states(store) == [("delivered", 3, 200)])
    assert len({one.id for one in got}) == 1 and len({one.body for one in got}) == 1
    assert all(verified(one, "s") for one in got)


def test_it_is_given_up_after_its_attempts(store: Store, start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    """What is never taken fails in the end, which the log tells without the path of the URL."""
    url = f"http://127.0.0.1:{free_port()}/secret-path"
    hook(store, url)
    register(store, "a")
    start()
    until(lambda: states(store) == [("failed", QUICK.attempts, None)])
    told = capfd.readouterr().err
    assert "webhook hook: delivery" in told and "after 4 attempts: ConnectionRefusedError" in told
    assert "secret-path" not in told


def test_what_is_refused_does_not_hold_up_the_rest(store: Store, start: Start) -> None:
    """A receiver that refuses one delivery gets the next ones at once, and the refused one again later."""
    with Receiver(lambda before: 400 if before == 0 else 204) as receiver:
        hook(store, receiver.url)
        register(store, "a", "b", "c")
        start(Pace(tick=0.01, first=0.5, timeout=1))
        got = receiver.wait(4)
    assert [one.data["name"] for one in got] == ["a", "b", "c", "a"]


def test_redirects_are_failures(store: Store, start: Start) -> None:
    """Nothing follows where a receiver points."""
    with Receiver() as inner, Receiver(307, headers={"Location": inner.url}) as outer:
        hook(store, outer.url)
        register(store, "a")
        start()
        until(lambda: states(store) == [("failed", 4, 307)])
        assert inner.got == []


def test_a_dead_receiver_blocks_nobody(store: Store, start: Start) -> None:
    """While one never answers and another refuses connections, a third hears of everything at once."""
    with Receiver(delay=30) as slow, Receiver() as good:
        hanging = hook(store, slow.url)
        gone = hook(store, f"http://127.0.0.1:{free_port()}/")
        well = hook(store, good.url)
        start(Pace(tick=0.01, timeout=20))
        before = time.monotonic()
        for number in range(10):
            register(store, f"m{number}")
        good.wait(10)
        assert time.monotonic() - before < 5
        until(lambda: states(store, well) == [("delivered", 1, 200)] * 10)
        assert {state for state, *_ in states(store, hanging) + states(store, gone)} == {"waiting"}
        assert len(slow.got) == 1


def test_many_dead_receivers_leave_room_for_others(store: Store, start: Start) -> None:
    """However many hang, who answered last time is told at once: those that failed have half of the room."""
    with Receiver(delay=30) as slow, Receiver() as good:
        for _ in range(8):
            hook(store, slow.url)
        hook(store, good.url)
        start(Pace(tick=0.01, first=0.01, pause=0.01, timeout=1.5, targets=4, attempts=100))
        register(store, "a")
        good.wait(1)
        sql = "SELECT 1 FROM webhook WHERE failures=0"
        until(lambda: len(store.ledger.query(sql)) == 1, 20)
        for name in ("b", "c", "d"):
            before = time.monotonic()
            register(store, name)
            good.wait(ord(name) - ord("a") + 1)
            assert time.monotonic() - before < 1


def test_a_dead_receiver_is_asked_less_and_less(store: Store, start: Start) -> None:
    """A pause is the webhook's: a heap of deliveries for a dead target is not a heap of attempts."""
    with Receiver(500) as receiver:
        hook(store, receiver.url)
        register(store, *(f"m{number}" for number in range(30)))
        start(Pace(tick=0.01, first=0.2))
        receiver.wait(2)
        time.sleep(0.5)
        assert len(receiver.got) <= 4


def test_a_receiver_is_left_alone_as_long_as_it_asks(store: Store, start: Start) -> None:
    """Retry-After is longer than the pause that would be made."""
    with Receiver(429, headers={"Retry-After": "30"}) as receiver:
        hook(store, receiver.url)
        register(store, "a")
        start(Pace(tick=0.01, first=0.01, longest=60))
        until(lambda: states(store) == [("waiting", 1, 429)])
        (row,) = store.ledger.query("SELECT d.due, w.paused FROM delivery d, webhook w")
        assert all(29e6 < moment - webhooks.now_us() <= 30e6 for moment in row)


def test_nothing_is_sent_unsigned(store: Store, start: Start) -> None:
    """Without the key of the secrets nothing leaves, and with it again everything does."""
    with Receiver() as receiver:
        hook(store, receiver.url, secret="s")
        key = store.home.root / NAME
        kept = key.read_bytes()
        key.unlink()
        register(store, "a")
        start(Pace(tick=0.01, first=0.02, pause=0.05, longest=0.05))
        sql = "SELECT error FROM delivery"
        until(lambda: "the key of this store's secrets" in store.ledger.query(sql)[0][0])
        assert receiver.got == []
        key.write_bytes(kept)
        assert verified(receiver.wait(1)[0], "s")


def test_an_address_inside_is_not_asked(store: Store) -> None:
    """The guard is asked at each attempt, not only when the webhook was made."""
    with Receiver() as receiver:
        hook(store, receiver.url.replace("http://", "https://"))
        register(store, "a")
        made = Deliveries(store, Guard(), QUICK)
        made.turn()
        assert made.wait(5) and receiver.got == []
        assert "non-public IP address" in store.ledger.query("SELECT error FROM delivery")[0][0]
        made.close()


def test_an_idle_server_writes_nothing(store: Store, start: Start) -> None:
    """Where nothing is to be told the ledger is only read."""
    hook(store, "https://a.example")
    before = store.ledger.query("SELECT count(*) FROM audit")
    start()
    time.sleep(0.2)
    assert store.ledger.query("SELECT count(*) FROM audit") == before


def test_old_deliveries_are_swept(store: Store, start: Start) -> None:
    """What was delivered a while ago is gone after the next look."""
    with Receiver() as receiver:
        hook(store, receiver.url)
        register(store, "a")
        start().close()
        made = Deliveries(store, Guard(HERE, HERE), QUICK)
        made.turn()
        assert made.wait(5) and states(store) == [("delivered", 1, 200)]
        made.close()
        Deliveries(store, Guard(HERE, HERE), Pace(keep=0)).turn()
        assert states(store) == []


PROGRAM = (
    "import sys; from pathlib import Path; from trimtab.api.delivery import Deliveries, Pace\n"
    "from trimtab.store.store import open_store\n"
    "made = Deliveries(open_store(Path(sys.argv[1])), pace=Pace(tick=0.01, first=0.05))\n"
    "print('up', flush=True); made.run()"
)


@pytest.fixture
def process(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return a function that starts a process which delivers."""
    monkeypatch.setenv(HOSTS, "127.0.0.1")
    monkeypatch.setenv(HTTP, "127.0.0.1")
    begun: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        words = [sys.executable, "-c", PROGRAM, str(store.home.root)]
        begun.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        assert begun[-1].stdout is not None and begun[-1].stdout.readline() == "up\n"
        return begun[-1]

    yield begin
    for one in begun:
        one.kill()
        one.communicate()


def test_a_killed_process_loses_nothing(store: Store, process: Callable[[], subprocess.Popen[str]]) -> None:
    """What was on its way when the process was killed is sent again by the next one, with the same id."""
    with Receiver(delay=0.5) as receiver:
        hook(store, receiver.url)
        first = process()
        register(store, "a", "b")
        receiver.wait(1)
        os.kill(first.pid, signal.SIGKILL)
        first.wait(5)
        assert [state for state, *_ in states(store)] == ["waiting", "waiting"]
        process()
        until(lambda: [state for state, *_ in states(store)] == ["delivered"] * 2)
    assert [one.data["name"] for one in receiver.got] == ["a", "a", "b"]
    assert receiver.got[0].id == receiver.got[1].id


def test_one_process_delivers(store: Store, process: Callable[[], subprocess.Popen[str]]) -> None:
    """Of three processes one tells, so that a receiver hears of each event once."""
    with Receiver(delay=0.02) as receiver:
        hook(store, receiver.url)
        for _ in range(3):
            process()
        register(store, *(f"m{number}" for number in range(20)))
        until(lambda: states(store) == [("delivered", 1, 200)] * 20)
        time.sleep(0.2)
        assert len(receiver.got) == 20
