"""Leases, heartbeats and lost runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.store.builders import at, begin, write
from tests.store.crash import ROOT
from trimtab.core.errors import Conflict
from trimtab.store import facts, leases
from trimtab.store.clock import put_clock
from trimtab.store.ledger import Ledger, Tx

_ELSEWHERE = "elsewhere/boot/1/1"


def _child(where: str, code: str, *, wait: bool = True) -> tuple[subprocess.Popen[str], str]:
    """Run code in another process, with the ledger as ``ledger``; return it and its first line."""
    text = (
        "import sys; from pathlib import Path; from trimtab.store import leases, facts\n"
        "from trimtab.store.ledger import Ledger\n"
        "ledger = Ledger.open(sys.argv[1])\n" + code + "\nsys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", text, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    if wait:
        child.communicate()
    return child, line


def test_a_lease_is_held_by_one_process(ledger: Ledger) -> None:
    """While a living process holds a lease no other gets it; when it dies the next one does at once."""
    claim = "print(leases.acquire(ledger, 'x', 1000) is not None, flush=True)"
    child, got = _child(ledger.where, claim, wait=False)
    try:
        assert got == "True"
        assert leases.acquire(ledger, "x") is None
    finally:
        child.kill()
        child.communicate()
    mine = leases.acquire(ledger, "x")
    assert mine is not None
    assert mine.epoch == 2
    assert _child(ledger.where, claim)[1] == "False"


def test_a_released_lease_is_free(ledger: Ledger) -> None:
    """What was given back can be taken by another, and giving back late harms nobody."""
    mine = leases.acquire(ledger, "x")
    assert mine is not None
    assert leases.renew(ledger, mine)
    leases.release(ledger, mine)
    assert not leases.renew(ledger, mine)
    again = leases.acquire(ledger, "x")
    assert again is not None
    leases.release(ledger, mine)
    assert leases.renew(ledger, again)


def test_claiming_again_fences_out_the_earlier_claim(ledger: Ledger) -> None:
    """A process that claims again holds the new epoch; a transaction under the old one is refused."""
    old = leases.acquire(ledger, "x")
    new = leases.acquire(ledger, "x")
    assert old is not None
    assert new is not None
    assert new.epoch == old.epoch + 1
    write(ledger, leases.check_lease, new)
    with pytest.raises(Conflict, match="no longer held"):
        write(ledger, leases.check_lease, old)


def _held_elsewhere(ledger: Ledger, expires: int) -> None:
    sql = "INSERT INTO lease(name, workspace, environment, holder, epoch, expires) VALUES (?,?,?,?,?,?)"
    ledger.write(
        lambda tx: tx.execute(sql, ("x", tx.workspace, tx.environment, _ELSEWHERE, 5, expires)), what="elsewhere"
    )


def test_a_lease_of_another_machine_runs_out(ledger: Ledger) -> None:
    """A holder that cannot be seen keeps its lease until its time is over, and not longer."""
    _held_elsewhere(ledger, 2**62)
    assert leases.acquire(ledger, "x") is None
    ledger.write(lambda tx: tx.execute("UPDATE lease SET expires=0"), what="later")
    got = leases.acquire(ledger, "x")
    assert got is not None
    assert got.epoch == 6


def test_a_holder_is_known_by_more_than_its_pid() -> None:
    """A process is alive; the same pid with another start is not; another machine cannot be seen."""
    me = leases.holder()
    assert leases.is_alive(me) is True
    assert leases.is_alive(me.rpartition("/")[0] + "/1") is False
    assert leases.is_alive(_ELSEWHERE) is None


def test_runs_of_a_dead_process_are_lost_at_once(ledger: Ledger) -> None:
    """A run whose process died is marked lost on event time, once; the runs of the living go on."""
    mine, theirs, idle = write(ledger, begin), write(ledger, begin), write(ledger, begin)
    write(ledger, put_clock, "simulated", at(3))
    write(ledger, leases.claim_run, mine.id, leases.holder())
    claim = (
        f"ledger.write(lambda tx: leases.claim_run(tx, {theirs.id!r}, leases.holder()), what='claim')\n"
        "print('ready', flush=True)"
    )
    child, _ = _child(ledger.where, claim, wait=False)
    assert leases.reap(ledger) == []
    child.kill()
    child.communicate()
    lost = leases.reap(ledger)
    assert [(run.id, run.state, run.ended_at, run.error["type"]) for run in lost] == [
        (theirs.id, "lost", at(3), "Lost")
    ]
    assert leases.reap(ledger) == []
    assert {run.id for run in facts.list_runs(ledger, state="running")} == {mine.id, idle.id}


def test_runs_of_another_machine_are_lost_without_a_beat(ledger: Ledger) -> None:
    """A run elsewhere is lost when its heartbeat is older than a minute, and never ends before it began."""
    run = write(ledger, begin, started_at=at(9))
    write(ledger, leases.claim_run, run.id, _ELSEWHERE)
    assert leases.reap(ledger) == []
    ledger.write(lambda tx: tx.execute("UPDATE run SET beat=beat-61000000"), what="age")
    assert [one.ended_at for one in leases.reap(ledger, at(5))] == [at(9)]


def test_a_beat_counts_for_the_holder_only(ledger: Ledger) -> None:
    """A process keeps its own runs alive and nobody else's."""
    mine, theirs = write(ledger, begin), write(ledger, begin)

    def claim(tx: Tx) -> None:
        leases.claim_run(tx, mine.id, leases.holder())
        leases.claim_run(tx, theirs.id, _ELSEWHERE)
        tx.execute("UPDATE run SET beat=1")

    ledger.write(claim, what="claim")
    leases.beat(ledger, [mine.id, theirs.id])
    beats = dict(ledger.query("SELECT id, beat FROM run"))
    assert beats[theirs.id] == 1
    assert beats[mine.id] > 1
    leases.beat(ledger, [])
