"""Reading answered requests for monitors: each once, in event time, never ahead of the clock."""

from __future__ import annotations

import random
from datetime import timedelta

from tests.monitor.scene import Scene, usual
from tests.serve.stand import START
from trimtab.monitor.answers import Chunk, read_answers
from trimtab.serve.collect import collect
from trimtab.store.store import open_store

HOUR = timedelta(hours=1)
ROWS = [usual(random.Random(1)) for _ in range(3)]


def _take(scene: Scene, hours: float) -> Chunk:
    """Read up to so many hours after the start, and record that it was read."""
    chunk = read_answers(scene.store, START + hours * HOUR)
    scene.store.ledger.write(chunk.commit, what="read")
    return chunk


def _read(scene: Scene, hours: float) -> list[float]:
    return [(answer.at_us / 1e6 - START.timestamp()) / 3600 for answer in _take(scene, hours).answers]


def test_rows_come_as_columns_with_scores(scene: Scene) -> None:
    """A request's inputs come by column and its scores by row; reading again brings nothing."""
    scene.send(ROWS, START)
    chunk = _take(scene, 1)
    (answer,) = chunk.answers
    assert answer.columns["x"] == [row["x"] for row, _ in ROWS] and answer.scores == [score for _, score in ROWS]
    assert (answer.endpoint_id, answer.version_id) == (scene.endpoint_id, scene.version.id)
    assert chunk.moved and not read_answers(scene.store, START + HOUR).moved


def test_order_is_event_time(scene: Scene) -> None:
    """However they were written, answers come by event time."""
    for hours in (3, 1, 2):
        scene.send(ROWS, START + hours * HOUR)
    assert _read(scene, 5) == [1, 2, 3]


def test_what_has_not_happened_yet_waits(scene: Scene) -> None:
    """A call from ahead of the clock counts when the clock has come there, once."""
    for hours in (1, 5, 2):
        scene.send(ROWS, START + hours * HOUR)
    assert _read(scene, 3) == [1, 2]
    assert _read(scene, 4) == []
    scene.send(ROWS, START + 4.5 * HOUR)
    assert _read(scene, 6) == [4.5, 5]
    assert _read(scene, 9) == []


def test_a_repeated_request_counts_once(scene: Scene) -> None:
    """The answer that the ledger holds counts, in the same part of the log and in a later one."""
    for latency in (900, 901):
        scene.send(ROWS, START, request_id="a" * 32, latency_us=latency)
    assert _read(scene, 1) == [0]
    for latency in (900, 902):
        scene.send(ROWS, START, request_id="a" * 32, latency_us=latency)
    assert _read(scene, 1) == []


def test_what_is_not_taken_in_yet_is_not_lost(scene: Scene) -> None:
    """A call that nobody has collected counts after it was collected."""
    scene.send(ROWS, START)
    scene.send(ROWS, START + HOUR, take=False)
    assert _read(scene, 3) == [0]
    collect(scene.store)
    assert _read(scene, 3) == [1]


def test_only_evidence_is_read(scene: Scene) -> None:
    """Failed calls, calls that named their deployment and calls of another environment are no evidence."""
    scene.send(ROWS, START, status=503)
    scene.send(ROWS, START, status=422)
    scene.send(ROWS, START, named=True)
    assert _read(scene, 1) == []
    scene.send(ROWS, START)
    with open_store(scene.store.home.root, environment="prod") as other:
        collect(other)
        assert read_answers(other, START + HOUR).answers == []


def test_a_long_log_is_read_in_parts(scene: Scene) -> None:
    """A log of more than one part comes in several, all of it once."""
    for number in range(2500):
        scene.send(ROWS[:1], START + number * timedelta(seconds=1), take=False)
    collect(scene.store)
    first = _take(scene, 2)
    assert first.more and len(first.answers) == 2000
    second = _take(scene, 2)
    assert not second.more and len(second.answers) == 500
