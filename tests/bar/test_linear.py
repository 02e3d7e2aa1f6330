"""Compare-and-set of aliases, and leases, from two processes and their threads: one order explains each history."""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.bar.acts import START
from tests.bar.linear import UNKNOWN, Op, lease, linearizable, pending, register
from tests.bar.procs import Child, Say
from tests.servers import Postgres
from trimtab.core.errors import Conflict
from trimtab.store import facts, leases
from trimtab.store.ledger import Ledger, Tx

HISTORIES = int(os.environ.get("TRIMTAB_HISTORIES", "10"))
THREADS, OPS = 3, 8


class Teller:
    """Carries operations out and says before and after each what it asks and what it is told."""

    def __init__(self, say: Say, who: str) -> None:
        self.say = say
        self.who = who
        self.count = 0

    def ask(self, where: str, call: tuple[Any, ...], act: Any) -> Any:
        """Carry out one operation on the object called ``where``."""
        self.count += 1
        ident = f"{self.who}.{self.count}"
        self.say(json.dumps([ident, where, time.monotonic_ns(), call]))
        answer = act()
        self.say(json.dumps([ident, time.monotonic_ns(), answer]))
        return answer


def _swap(ledger: Ledger, alias: str, expect: str | None, new: str, *, racy: bool) -> bool:
    if racy:
        found = facts.alias_of(ledger, "model", alias)
        if (found.id if found else None) != expect:
            return False
        ledger.write(lambda tx: facts.set_alias(tx, "model", alias, new), what="alias")
        return True
    try:
        ledger.write(lambda tx: facts.set_alias(tx, "model", alias, new, expect=expect), what="alias")
    except Conflict:
        return False
    return True


def aliases(say: Say, location: str, process: int, versions: list[str], racy: bool, linger: bool) -> None:
    """Read aliases and compare and set them, from several threads."""
    ledger = Ledger.open(location)

    def read(alias: str) -> str | None:
        found = facts.alias_of(ledger, "model", alias)
        return found.id if found else None

    def run(thread: int) -> None:
        dice = random.Random(process * 100 + thread)
        teller = Teller(say, f"{process}.{thread}")
        for number in range(HISTORIES):
            alias, have = f"r{number}", None
            for _ in range(OPS):
                if dice.random() < 0.4:
                    have = teller.ask(alias, ("read",), lambda alias=alias: read(alias))
                else:
                    new = dice.choice(versions)
                    swap = lambda alias=alias, have=have, new=new: _swap(ledger, alias, have, new, racy=racy)  # noqa: E731
                    have = new if teller.ask(alias, ("set", have, new), swap) else have

    _threads(run, linger)


def holders(say: Say, location: str, process: int, linger: bool) -> None:
    """Acquire leases, ask whether they are still held, hold on to them and give them back, from several threads."""
    ledger = Ledger.open(location)

    def held(have: leases.Lease) -> bool:
        try:
            ledger.write(lambda tx: leases.check_lease(tx, have), what="check")
        except Conflict:
            return False
        return True

    def run(thread: int) -> None:
        dice = random.Random(process * 100 + thread)
        teller = Teller(say, f"{process}.{thread}")
        me = leases.holder()
        for number in range(HISTORIES):
            name = f"l{number}"
            epoch = None
            for _ in range(OPS):
                if epoch is None:
                    epoch = teller.ask(name, ("acquire", process), lambda name=name: _epoch(ledger, name))
                    continue
                have, what = leases.Lease(name, me, epoch), dice.choice(["check", "renew", "release"])
                act = {
                    "check": lambda have=have: held(have),
                    "renew": lambda have=have: leases.renew(ledger, have),
                    "release": lambda have=have: leases.release(ledger, have),
                }[what]
                if not teller.ask(name, (what, process, epoch), act):
                    epoch = None

    _threads(run, linger)
    for number in range(HISTORIES):  # a process that ends lets go of what it holds, some time from now
        say(json.dumps([f"{process}.end.{number}", f"l{number}", time.monotonic_ns(), ("die", process)]))


def _epoch(ledger: Ledger, name: str) -> int | None:
    got = leases.acquire(ledger, name)
    return got.epoch if got else None


def _threads(run: Any, linger: bool) -> None:
    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if linger:
        threading.Event().wait()


def _histories(lines: list[str]) -> dict[str, list[Op]]:
    """Return the operations on each object; one without an answer is pending for ever."""
    asked: dict[str, tuple[str, float, tuple[Any, ...]]] = {}
    found: dict[str, list[Op]] = defaultdict(list)
    for line in lines:
        ident, *rest = json.loads(line)
        if len(rest) == 3:
            asked[ident] = rest[0], rest[1], tuple(rest[2])
        else:
            where, start, call = asked.pop(ident)
            found[where].append(Op(start, rest[0], call, rest[1]))
    for where, start, call in asked.values():
        found[where].append(pending(start, *call))
    return found


def _recorded(act: Any, location: str, words: tuple[Any, ...], *, killed: bool) -> tuple[dict[str, list[Op]], float]:
    """Run two processes, kill -9 one of them on its way if so wanted; return what they said and when it died."""
    first = Child(act, location, 1, *words, killed)
    second = Child(act, location, 2, *words, False)
    died = math.inf
    if killed:
        first.hear(800 * HISTORIES)
        died = time.monotonic_ns()
        lines = first.kill()
    else:
        lines = first.end()
    return _histories(lines + second.end()), died


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a new ledger may be made."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_ledger()


@pytest.fixture
def versions(location: str) -> list[str]:
    """Return versions that an alias may point to."""

    def make(tx: Tx) -> list[str]:
        asset = facts.put_asset(tx, name="model", kind="model", spec={}, at=START)
        return [
            facts.add_version(
                tx, asset, digest="sha256:0", run_id="r", state="published", location={}, meta={}, at=START
            ).id
            for _ in range(4)
        ]

    with Ledger.open(location) as ledger:
        return ledger.write(make, what="make")


@pytest.mark.parametrize("killed", [False, True])
def test_aliases_are_linearizable(location: str, versions: list[str], killed: bool) -> None:
    """One order explains what all threads saw of each alias, and every change is counted once."""
    found, _ = _recorded(aliases, location, (versions, False), killed=killed)
    broken = [name for name, history in found.items() if not linearizable(history, None, register)]
    print(f"alias histories: {len(found)}, operations: {sum(map(len, found.values()))}, violations: {len(broken)}")
    assert not broken
    with Ledger.open(location) as ledger:
        epochs = dict(ledger.query("SELECT name, epoch FROM alias"))
    for name, history in found.items():
        changes = [op.answer for op in history if op.call[0] == "set" and op.answer in (True, UNKNOWN)]
        assert changes.count(True) <= epochs.get(name, 0) <= len(changes)


@pytest.mark.parametrize("killed", [False, True])
def test_leases_are_linearizable(location: str, killed: bool) -> None:
    """One order explains what all threads were told of each lease; a process that died holds none."""
    found, died = _recorded(holders, location, (), killed=killed)
    for history in found.values():
        history += [pending(died, "die", 1)] if killed else []
    broken = [name for name, history in found.items() if not linearizable(history, (0, 0), lease)]
    print(f"lease histories: {len(found)}, operations: {sum(map(len, found.values()))}, violations: {len(broken)}")
    assert not broken


def test_a_race_is_caught(location: str, versions: list[str]) -> None:
    """Control: where the alias is compared outside the transaction that sets it, no order explains the histories."""
    found, _ = _recorded(aliases, location, (versions, True), killed=False)
    broken = [name for name, history in found.items() if not linearizable(history, None, register)]
    print(f"racy histories: {len(found)}, caught: {len(broken)}")
    assert broken


def test_the_checker_knows_right_from_wrong() -> None:
    """Small histories whose answer is known."""
    write, stale = Op(0, 10, ("set", None, "a"), True), Op(11, 12, ("read",), None)
    assert linearizable([write, Op(1, 2, ("read",), None), Op(3, 4, ("read",), "a")], None, register)
    assert not linearizable([write, Op(1, 2, ("read",), "a"), Op(3, 4, ("read",), None)], None, register)
    assert not linearizable([write, stale], None, register)
    assert linearizable([pending(0, "set", None, "a"), stale, Op(13, 14, ("read",), "a")], None, register)
    assert not linearizable([Op(0, 9, ("set", None, "a"), True), Op(0, 9, ("set", None, "b"), True)], None, register)
    twice = [Op(0, 1, ("acquire", 1), 1), Op(2, 3, ("acquire", 2), 2)]
    assert not linearizable(twice, (0, 0), lease)
    assert linearizable([*twice, pending(1, "die", 1)], (0, 0), lease)
