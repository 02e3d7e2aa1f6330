"""The append-only logs: the conformance suite, torn frames, full disks, several writers, kill -9."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.store.crash import kill_loop
from tests.store.victim import payload
from trimtab.core.errors import Corrupt, Fault, WrongUse
from trimtab.store import intake
from trimtab.store.intake import Buffered, Durable, Offset, read, sweep
from trimtab.testing.intake import START, IntakeConformance, Log


class _Log:
    """A writer and a reader of one folder."""

    def __init__(self, folder: Path, kind: type[Buffered] | type[Durable]) -> None:
        self.folder, self.kind = folder, kind
        self.writer = kind(folder, 4096)

    def append(self, payloads: Sequence[bytes]) -> None:
        if isinstance(self.writer, Durable):
            self.writer.append_all(payloads)
        else:
            assert all([self.writer.append(one) for one in payloads])

    def read(self, offset: Offset, limit: int = 10_000) -> tuple[list[bytes], Offset]:
        return read(self.folder, offset, limit)

    def reopen(self) -> None:
        self.writer.close()
        self.writer = self.kind(self.folder, 4096)

    def sweep(self, before: Offset) -> int:
        return sweep(self.folder, before)


@pytest.fixture
def buffered(tmp_path: Path) -> Iterator[Buffered]:
    """Return a buffered log with small segments."""
    log = Buffered(tmp_path, 4096)
    yield log
    log.close()


class TestBuffered(IntakeConformance):
    """Mapped segments keep the contract."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[Log]:
        """Return a buffered log."""
        log = _Log(tmp_path, Buffered)
        yield log
        log.writer.close()


class TestDurable(IntakeConformance):
    """Synced segments keep the contract."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[Log]:
        """Return a durable log."""
        log = _Log(tmp_path, Durable)
        yield log
        log.writer.close()


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def test_a_frame_too_large_is_dropped_and_counted(buffered: Buffered, tmp_path: Path) -> None:
    """A call that no segment can hold is dropped and counted, and the next one is kept."""
    assert not buffered.append(b"x" * 4089)
    assert buffered.append(b"x" * 4088)
    assert buffered.dropped == 1
    assert len(read(tmp_path, START)[0]) == 1


def test_a_durable_frame_too_large_is_refused_with_its_call(tmp_path: Path) -> None:
    """A label that no segment can hold is an error, and nothing of its call is appended."""
    log = Durable(tmp_path, 4096)
    with pytest.raises(WrongUse, match="does not fit"):
        log.append_all([b"small", b"x" * 4089])
    assert read(tmp_path, START)[0] == []


def test_nothing_is_appended_after_the_close(tmp_path: Path) -> None:
    """A closed log refuses to append, and closing again is harmless."""
    buffered, durable = Buffered(tmp_path / "b", 4096), Durable(tmp_path / "d", 4096)
    buffered.append(b"x")
    for log in (buffered, durable):
        log.close()
        log.close()
    with pytest.raises(Fault, match="closed"):
        buffered.append(b"x")
    with pytest.raises(Fault, match="closed"):
        durable.append_all([b"x"])
    assert _segments(tmp_path / "b")[0].stat().st_size == 16


def test_a_full_backlog_drops_and_recovers(tmp_path: Path) -> None:
    """When too much lies unread, frames are dropped and counted until a sweep makes room."""
    log = Buffered(tmp_path, 4096, backlog_bytes=3 * 4096)
    kept = sum(log.append(b"x" * 1000) for _ in range(20))
    assert (kept, log.dropped) == (12, 8)
    frames, at = read(tmp_path, START, 9)
    sweep(tmp_path, at)
    time.sleep(0.15)
    assert log.append(b"y" * 1000)
    assert len(frames) + len(read(tmp_path, at)[0]) == 13
    log.close()


def test_a_full_disk_drops_and_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is reserved before a segment is mapped, so that a full disk drops frames and kills nothing."""
    log = Buffered(tmp_path, 4096)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert not log.append(b"x")
        assert _segments(tmp_path) == []
    time.sleep(0.15)
    assert log.append(b"y")
    assert (log.dropped, read(tmp_path, START)[0]) == (1, [b"y"])
    log.close()


def test_a_nearly_full_disk_gets_a_smaller_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a whole segment does not fit a smaller one does, and frames of any size go on being kept or counted."""
    reserve = os.posix_fallocate

    def nearly_full(file: int, start: int, size: int) -> None:
        if size > 4096:
            raise OSError(28, "No space left on device")
        reserve(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", nearly_full)
    log = Buffered(tmp_path, 1 << 20)
    assert log.append(b"x" * 4000) and not log.append(b"y" * 5000)
    time.sleep(0.15)
    assert all(log.append(bytes([number]) * 3000) for number in range(5))
    assert len(read(tmp_path, START)[0]) == 6 and log.dropped == 1
    log.close()


def test_an_append_does_not_wait_for_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a flush waits for a slow disk, appends go on, over the end of a segment too."""
    waiting, go = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        waiting.set()
        assert go.wait(20)

    log = Buffered(tmp_path, 4096, flush_every=0.01)
    log.append(b"x")
    monkeypatch.setattr(os, "fdatasync", slow)
    assert log.append(b"y")
    assert waiting.wait(20)
    assert all([log.append(b"z" * 1000) for _ in range(20)])
    go.set()
    log.close()
    assert len(read(tmp_path, START)[0]) == 22


def test_the_next_segment_is_ready_before_it_is_needed(tmp_path: Path) -> None:
    """When a segment is half full the next one is made, and closing leaves it empty."""
    log = Buffered(tmp_path, 4096, flush_every=0.01)
    for _ in range(3):
        log.append(b"x" * 1000)
    until = time.monotonic() + 20
    while len(_segments(tmp_path)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    first, second = _segments(tmp_path)
    assert all([log.append(b"y" * 1000) for _ in range(3)])
    assert _segments(tmp_path)[:2] == [first, second]
    log.close()
    assert len(read(tmp_path, START)[0]) == 6


def test_a_late_spare_never_goes_before_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spare segment that was made while an append made its own is thrown away: order stays."""
    log = Buffered(tmp_path, 4096, flush_every=0)
    log.append(b"1" * 4000)
    make = log._allocate

    def late() -> Any:
        made = make()
        monkeypatch.setattr(log, "_allocate", make)
        log.append(b"2" * 4000)
        return made

    monkeypatch.setattr(log, "_allocate", late)
    log._prepare()
    assert log._spare is None
    log.append(b"3" * 4000)
    assert [frame[:1] for frame in read(tmp_path, START)[0]] == [b"1", b"2", b"3"]
    log.close()


def test_readers_finish_one_writer_before_the_next(tmp_path: Path) -> None:
    """During a takeover the new writer's frames are read when the old one has let go, and none is lost."""
    old = Buffered(tmp_path, 4096)
    old.append(b"old 1")
    new = Buffered(tmp_path, 4096)
    new.append(b"new 1")
    frames, at = read(tmp_path, START)
    assert frames == [b"old 1"]
    old.append(b"old 2")
    frames, at = read(tmp_path, at)
    assert frames == [b"old 2"]
    old.close()
    assert read(tmp_path, at)[0] == [b"new 1"]
    new.close()


def test_a_torn_frame_ends_its_segment(tmp_path: Path) -> None:
    """A frame with a wrong checksum is never returned; what a later writer appends is."""
    log = Buffered(tmp_path, 4096)
    for name in (b"one", b"two"):
        log.append(name)
    log.close()
    path = _segments(tmp_path)[0]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"two", b"tWo"))
    frames, at = read(tmp_path, START)
    assert frames == [b"one"]
    log = Buffered(tmp_path, 4096)
    log.append(b"three")
    assert read(tmp_path, at)[0] == [b"three"]
    log.close()


def test_an_unfinished_tail_is_not_continued(tmp_path: Path) -> None:
    """After a writer that died half way, the next one begins a new segment and everything acknowledged is read."""
    Durable(tmp_path).append_all([b"one"])
    with _segments(tmp_path)[0].open("ab") as tail:
        tail.write(b"\x10\0\0\0half")
    Durable(tmp_path).append_all([b"two"])
    assert len(_segments(tmp_path)) == 2
    assert read(tmp_path, START)[0] == [b"one", b"two"]


def test_what_is_not_on_disk_yet_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A durable log shows no frame before its fsync, so that no reader is ahead of what survives."""
    log = Durable(tmp_path)
    log.append_all([b"one"])

    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="Input/output"):
            log.append_all([b"two"])
    frames, at = read(tmp_path, START)
    assert frames == [b"one"]
    log.append_all([b"three"])
    assert read(tmp_path, at)[0][-1] == b"three"


def test_an_outdated_mark_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut the mark may be old: all whole frames are read, and writing goes on elsewhere."""
    log = Durable(tmp_path)
    log.append_all([b"one"])
    outdated = (tmp_path / "writer.lock").read_bytes()
    log.append_all([b"two"])
    (tmp_path / "writer.lock").write_bytes(outdated)
    monkeypatch.setattr(intake, "_boot", lambda: b"another run of it")
    frames, at = read(tmp_path, START)
    assert frames == [b"one", b"two"]
    log.append_all([b"three"])
    assert read(tmp_path, at)[0] == [b"three"]


def test_a_lost_log_is_told(tmp_path: Path) -> None:
    """When the log ends before the offset, the reader is told and does not wait for ever."""
    Durable(tmp_path).append_all([b"one"])
    _, at = read(tmp_path, START)
    _segments(tmp_path)[0].write_bytes(b"")
    with pytest.raises(Corrupt, match=re.escape(f"read up to byte {at.byte} of segment {at.segment}")):
        read(tmp_path, at)
    _segments(tmp_path)[0].unlink()
    with pytest.raises(Corrupt, match="ends at segment 0"):
        read(tmp_path, at)


def test_reading_stops_at_so_many_bytes(tmp_path: Path) -> None:
    """A reader can bound what it takes into memory, and always gets at least one frame."""
    Durable(tmp_path).append_all([b"x" * 1000] * 10)
    frames, at = read(tmp_path, START, max_bytes=2500)
    assert len(frames) == 3
    assert len(read(tmp_path, at, max_bytes=1)[0]) == 1


def test_concurrent_appends_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that wait for another's fsync are written together; each call's frames stay together."""
    log = Durable(tmp_path)
    log.append_all([b"first"])
    syncs: list[int] = []
    started, go = threading.Event(), threading.Event()
    real = os.fsync

    def slow(descriptor: int) -> None:
        syncs.append(descriptor)
        started.set()
        assert go.wait(20)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    threads = [threading.Thread(target=log.append_all, args=([b"%d" % n, b"%d" % n],)) for n in range(9)]
    threads[0].start()
    assert started.wait(20)
    for thread in threads[1:]:
        thread.start()
    while len(log._waiting.parts) < 8:
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join()
    assert len(syncs) == 2
    frames = read(tmp_path, START)[0][1:]
    assert frames[::2] == frames[1::2]
    assert len(set(frames)) == 9


def test_several_processes_append_to_one_durable_log(tmp_path: Path) -> None:
    """Two writers that take turns lose nothing, and a reader in between misses nothing."""
    one, two = Durable(tmp_path, 4096), Durable(tmp_path, 4096)
    got: list[bytes] = []
    at = START
    for number in range(60):
        (one, two)[number % 3 == 0].append_all([b"%d" % number * 50])
        if number % 7 == 0:
            more, at = read(tmp_path, at)
            got += more
    got += read(tmp_path, at)[0]
    assert got == [b"%d" % number * 50 for number in range(60)]


@pytest.mark.parametrize("kind", ["durable", "buffered"])
def test_kill_9_loses_no_acknowledged_frame(tmp_path: Path, kind: str) -> None:
    """After kill -9 at any moment every acknowledged frame is there, whole, and once."""
    acknowledged = kill_loop(kind, tmp_path)
    frames: list[bytes] = []
    at = START
    while more := read(tmp_path, at, 1000):
        if not more[0]:
            break
        frames += more[0]
        at = more[1]
    assert len(acknowledged) > 20
    assert len(set(frames)) == len(frames)
    parts = (b"1", b"2") if kind == "durable" else (b"",)
    wanted = {part + payload(name) for name in acknowledged for part in parts}
    assert not wanted - set(frames)
    names = [frame.removeprefix(frame[:1] if kind == "durable" else b"").partition(b":")[0] for frame in frames]
    assert all(frame.endswith(payload(name.decode())) for frame, name in zip(frames, names, strict=True))
    if kind == "durable":
        assert frames[::2] == [b"1" + frame[1:] for frame in frames[1::2]]


def test_the_backlog_of_a_killed_writer_is_trimmed(tmp_path: Path) -> None:
    """What a dead writer reserved and did not use is given back when the next one starts."""
    dead = Buffered(tmp_path, 1 << 20, flush_every=0)
    dead.append(b"x" * 5000)
    assert dead._now is not None
    intake._let_go(dead._now)
    assert _segments(tmp_path)[0].stat().st_size == 1 << 20
    log = Buffered(tmp_path, 1 << 20)
    assert _segments(tmp_path)[0].stat().st_size == 5008
    log.append(b"y")
    assert [len(frame) for frame in read(tmp_path, START)[0]] == [5000, 1]
    log.close()
