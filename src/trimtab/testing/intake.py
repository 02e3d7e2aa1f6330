"""What every append-only log must do; subclass ``IntakeConformance`` and override ``log``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pytest

from trimtab.core.errors import WrongUse
from trimtab.store.intake import Offset

START = Offset(0, 0)


class Log(Protocol):
    """A log under test: its writer and its reader together."""

    def append(self, payloads: Sequence[bytes]) -> None:
        """Append frames."""
        ...

    def read(self, offset: Offset, limit: int = 10_000) -> tuple[list[bytes], Offset]:
        """Return frames behind an offset and the offset behind them."""
        ...

    def reopen(self) -> None:
        """Close the writer and open a new one on the same log."""
        ...

    def sweep(self, before: Offset) -> int:
        """Delete what lies wholly before an offset and return how many pieces that were."""
        ...


class IntakeConformance:
    """The contract of a log as tests; each test gets a new, empty one whose segments hold 4,096 bytes."""

    @pytest.fixture
    def log(self) -> Log:
        """Return a new log with small segments."""
        raise NotImplementedError("override the fixture log")

    def test_an_empty_log_has_nothing(self, log: Log) -> None:
        """Reading an empty log returns nothing and stays at its beginning."""
        assert log.read(START)[0] == []

    def test_frames_come_back_in_order(self, log: Log) -> None:
        """Frames come back as they were and in their order, whatever bytes they hold."""
        frames = [b"a", b"\0" * 9, bytes(range(256)), b"\xff" * 7, b"x" * 8]
        log.append(frames)
        assert log.read(START)[0] == frames

    def test_reading_goes_on_where_it_stopped(self, log: Log) -> None:
        """By offsets every frame is read once, in pieces of any size, while the log grows."""
        frames = [b"%d" % number * (number % 90 + 1) for number in range(300)]
        got: list[bytes] = []
        at = START
        for start in range(0, 300, 60):
            log.append(frames[start : start + 60])
            for limit in (7, 1, 1000):
                more, at = log.read(at, limit)
                assert len(more) <= limit
                got += more
        assert got == frames
        assert log.read(at) == ([], at)

    def test_a_new_writer_goes_on(self, log: Log) -> None:
        """A log that is opened again keeps what it has and appends behind it."""
        at = START
        for number in range(5):
            log.append([b"before %d" % number])
            log.reopen()
            log.append([b"after %d" % number])
            frames, at = log.read(at)
            assert frames == [b"before %d" % number, b"after %d" % number]

    def test_an_empty_frame_is_refused(self, log: Log) -> None:
        """A frame without bytes is refused and nothing else is disturbed."""
        with pytest.raises(WrongUse, match="empty frame"):
            log.append([b""])
        log.append([b"x"])
        assert log.read(START)[0] == [b"x"]

    def test_the_largest_frame_fits(self, log: Log) -> None:
        """A frame that fills a segment is kept."""
        log.append([b"x" * 4088])
        log.append([b"y"])
        assert log.read(START)[0] == [b"x" * 4088, b"y"]

    def test_what_was_read_can_be_swept(self, log: Log) -> None:
        """After a sweep what lies behind the offset is all there, and appending goes on."""
        frames = [b"%04d" % number * 100 for number in range(40)]
        for frame in frames[:30]:
            log.append([frame])
        got, at = log.read(START, 25)
        assert log.sweep(at) >= 1
        log.append(frames[30:])
        rest, end = log.read(at)
        assert got + rest == frames
        assert log.read(end) == ([], end)
