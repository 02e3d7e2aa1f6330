"""Append-only logs in segments: buffered for calls, durable for labels; a frame is whole or not there.

A frame is the length of its payload (4 bytes, little-endian, written last), the payload's CRC-32, the payload, and
zeros up to a multiple of 8. A length of zero is the end of what was written. A reader leaves a segment when a later
one exists, so a writer never goes back to an earlier one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trimtab.core.errors import Corrupt, Fault, WrongUse
from trimtab.store.blobs import sync_folder

_HEAD = struct.Struct("<II")
_MARK = struct.Struct("<QQ16s")
_ALIGN = 8
SEGMENT_BYTES = 64 * 1024 * 1024


class Offset(NamedTuple):
    """A place in a log: the number of a segment and a byte in it."""

    segment: int
    byte: int


def _padded(length: int) -> int:
    return (_HEAD.size + length + _ALIGN - 1) // _ALIGN * _ALIGN


def _segments(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.seg"))


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.seg"


class _Segment(NamedTuple):
    """A mapped file that frames are written to."""

    path: Path
    file: int
    map: mmap.mmap


class Buffered:
    """Appends frames to memory-mapped segments.

    Contract: ``append`` never waits for a disk; what it returned True for survives the death of the process, and a
    power cut may lose what came after the last ``flush`` (a thread flushes every ``flush_every`` seconds). False
    means that the frame was dropped because it is too large or there is no room, and ``dropped`` counts it. A new
    writer starts a segment of its own, so that what a killed one left is never overwritten. Readers finish one
    writer's segments before they begin the next one's: a log has one writer at a time, but for a takeover.

    Args:
        folder: where the segments lie.
        segment_bytes: the size of a segment.
        backlog_bytes: how much may lie there (see ``sweep``) before frames are dropped.
        flush_every: seconds between two flushes; 0 for none.
    """

    def __init__(
        self,
        folder: Path,
        segment_bytes: int = SEGMENT_BYTES,
        *,
        backlog_bytes: int = 64 * SEGMENT_BYTES,
        flush_every: float = 1.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.dropped = 0
        self.failed_flushes = 0
        self._folder = folder
        self._size = segment_bytes
        self._backlog = backlog_bytes
        self._lock = threading.Lock()
        self._now: _Segment | None = None
        self._spare: _Segment | None = None
        self._retired: list[_Segment] = []
        self._at = 0
        self._limit = 0
        self._retry = 0.0
        self._stop = threading.Event()
        for number in _segments(folder)[-1:]:
            _trim(_path(folder, number))
        self._helper = threading.Thread(target=self._help, args=(flush_every,), daemon=True)
        if flush_every:
            self._helper.start()

    def append(self, payload: bytes) -> bool:
        """Append one frame; False when it was dropped.

        Raises:
            WrongUse: the payload is empty.
            Fault: the log was closed.
        """
        length = len(payload)
        need = (length + 15) & ~7
        with self._lock:
            at = self._at
            if at + need > self._limit or not length:
                if not self._make_room(length):
                    self.dropped += 1
                    return False
                at = 0
            assert self._now is not None
            segment = self._now.map
            segment[at + 8 : at + 8 + length] = payload
            segment[at + 4 : at + 8] = zlib.crc32(payload).to_bytes(4, "little")
            segment[at : at + 4] = length.to_bytes(4, "little")
            self._at = at + need
            return True

    def flush(self) -> None:
        """Put on disk what was appended before the call; appends go on meanwhile."""
        with self._lock:
            retired, self._retired = self._retired, []
            # A descriptor of our own: the segment may be retired and closed while this thread waits.
            file = os.dup(self._now.file) if self._now else -1
        try:
            for descriptor in (*(segment.file for segment in retired), *([file] if file >= 0 else [])):
                os.fdatasync(descriptor)
        finally:
            for segment in retired:
                _let_go(segment)
            if file >= 0:
                os.close(file)

    def close(self) -> None:
        """Flush and let go of the segments; nothing can be appended afterwards."""
        self._stop.set()
        if self._helper.is_alive():
            self._helper.join()
        self.flush()
        with self._lock:
            for segment, used in ((self._now, self._at), (self._spare, 0)):
                if segment is not None:
                    os.ftruncate(segment.file, used)
                    _let_go(segment)
            self._now = self._spare = None
            self._limit = 0

    def _help(self, every: float) -> None:
        """Flush, and have the next segment ready before it is needed."""
        before = -1
        while not self._stop.wait(every):
            if (at := self._at) == before and not self._retired:
                continue
            before = at
            try:
                self.flush()
            except OSError:  # frames stay mapped, and appending must go on
                self.failed_flushes += 1
            if self._spare is None and at > self._size // 2:
                self._prepare()

    def _prepare(self) -> None:
        spare = self._allocate()
        if spare is None:
            return
        with self._lock:
            if self._now is not None and self._now.path < spare.path:
                self._spare = spare
                return
        # An append made itself a later segment meanwhile, and segments are read in their order.
        spare.path.unlink()
        _let_go(spare)

    def _make_room(self, length: int) -> bool:
        """Go on to another segment; False when that would not help."""
        if self._stop.is_set():
            raise Fault("the log is closed", where=str(self._folder))
        if not length:
            raise WrongUse("an empty frame cannot be told from the end of a log", fix="append at least one byte")
        if _padded(length) > self._size or time.monotonic() < self._retry:
            return False
        segment, self._spare = self._spare or self._allocate(_padded(length)), None
        if segment is None or len(segment.map) < _padded(length):
            self._spare = segment
            self._retry = time.monotonic() + 0.1
            return False
        if self._now is not None:
            fcntl.flock(self._now.file, fcntl.LOCK_UN)
            if self._helper.is_alive():
                self._retired.append(self._now)
            else:
                _let_go(self._now)
        self._now, self._at, self._limit = segment, 0, len(segment.map)
        return True

    def _allocate(self, least: int = 0) -> _Segment | None:
        """Make a new last segment, a smaller one on a disk that is nearly full; None when there is no room.

        It is locked for as long as its writer needs it.
        """
        for size in (self._size, self._size // 16, self._size // 256):
            if size >= max(least, 1) and (made := self._reserve(size)) is not None:
                return made
        return None

    def _reserve(self, size: int) -> _Segment | None:
        numbers = _segments(self._folder)
        if sum(_size(_path(self._folder, number)) for number in numbers) + size > self._backlog:
            return None
        number = numbers[-1] if numbers else 0
        while True:
            number += 1
            path = _path(self._folder, number)
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
            except FileExistsError:
                continue
            except OSError:
                return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Blocks are reserved now: a mapped write to a full disk would kill the process.
            os.posix_fallocate(file, 0, size)
            return _Segment(path, file, mmap.mmap(file, size))
        except OSError:
            path.unlink(missing_ok=True)
            os.close(file)
            return None


def _let_go(segment: _Segment) -> None:
    segment.map.close()
    os.close(segment.file)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # swept meanwhile
        return 0


def _trim(path: Path) -> None:
    """Give back what a dead writer reserved and did not write."""
    with path.open("r+b") as segment:
        if not _finished(segment):
            return
        end = 0
        while (payload := _read_frame(segment)) is not None:
            end += _padded(len(payload))
        segment.seek(end)
        while rest := segment.read(1 << 20):
            if rest.strip(b"\0"):  # something that nobody can read, yet not nothing
                return
        segment.truncate(end)


class _Batch:
    """Frames of some callers that share an fsync."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.done = False
        self.error: BaseException | None = None


class Durable:
    """Appends frames and returns when they are on disk; concurrent appends share an fsync.

    Contract: all frames of a call are there, in their order and next to each other, after ``append_all`` returned,
    whatever dies then; after an error, none, some or all of them may be there. Threads of one process may append at
    once, and so may several processes.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._size = segment_bytes
        self._state = threading.Condition()
        self._waiting = _Batch()
        self._writing = False
        self._closed = False

    def append_all(self, payloads: Sequence[bytes]) -> None:
        """Append frames durably.

        Raises:
            WrongUse: a frame is empty or larger than a segment; then none of the frames is appended.
            Fault: the log was closed.
            OSError: the disk refused.
        """
        for payload in payloads:
            if not payload:
                raise WrongUse("an empty frame cannot be told from the end of a log", fix="append at least one byte")
            if _padded(len(payload)) > self._size:
                raise WrongUse(f"a frame of {len(payload)} bytes does not fit a segment of {self._size}")
        frames = b"".join(
            (_HEAD.pack(len(one), zlib.crc32(one)) + one).ljust(_padded(len(one)), b"\0") for one in payloads
        )
        if not frames:
            return
        with self._state:
            if self._closed:
                raise Fault("the log is closed", where=str(self._folder))
            batch = self._waiting
            batch.parts.append(frames)
            while self._writing and not batch.done:
                self._state.wait()
            mine = not batch.done
            if mine:
                self._writing = True
                self._waiting = _Batch()
        if mine:
            self._lead(batch)
        if batch.error is not None:
            raise batch.error

    def close(self) -> None:
        """Finish what is being appended; nothing can be appended afterwards."""
        with self._state:
            self._closed = True
            while self._writing:
                self._state.wait()
            batch, self._waiting = self._waiting, _Batch()
            self._writing = True
        self._lead(batch)

    def _lead(self, batch: _Batch) -> None:
        try:
            if batch.parts:
                self._write(b"".join(batch.parts))
        except BaseException as error:  # everybody who shares the fsync must hear
            batch.error = error
        with self._state:
            batch.done = True
            self._writing = False
            self._state.notify_all()

    def _write(self, content: bytes) -> None:
        with self._turn() as mark:
            numbers = _segments(self._folder)
            known = _marked(mark) or (0, 0)
            number = numbers[-1] if numbers else 0
            end = _path(self._folder, number).stat().st_size if numbers else -1
            # Only a tail that its writer finished may be continued; after anything else a new segment begins.
            if (number, end) != known or end + len(content) > max(self._size, len(content)):
                number, end = number + 1, 0
            file = os.open(_path(self._folder, number), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _write_all(file, content, end)
                os.fsync(file)
            finally:
                os.close(file)
            if end == 0:
                sync_folder(self._folder)
            mark.seek(0)
            mark.write(_MARK.pack(number, end + len(content), _boot()))
            mark.flush()

    @contextmanager
    def _turn(self) -> Iterator[BinaryIO]:
        """Hold the log's lock, which says where the last writer finished."""
        descriptor = os.open(self._folder / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            yield lock


def _write_all(file: int, content: bytes, start: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written


def read(
    folder: Path, offset: Offset, limit: int = 10_000, *, max_bytes: int = SEGMENT_BYTES
) -> tuple[list[bytes], Offset]:
    """Return whole frames behind ``offset`` in the order of the log, and the offset behind them.

    A frame whose writer died half way ends its segment: what follows is in a later segment. Of a durable log only
    what its writers have on disk is returned.

    Args:
        folder: where the segments lie.
        offset: where to begin; ``Offset(0, 0)`` is the log's beginning.
        limit: return at most so many frames.
        max_bytes: return no more after so many bytes of payload.

    Raises:
        Corrupt: the log ends before ``offset``, as after a loss of its files.
    """
    frames: list[bytes] = []
    segment, byte = offset
    mark = _mark_of(folder)
    numbers = _segments(folder)
    if segment and (not numbers or numbers[-1] < segment):
        raise _lost(folder, f"ends at segment {numbers[-1] if numbers else 0}", offset)
    for number in numbers:
        if number < segment:
            continue
        if number > segment:
            segment, byte = number, 0
        last = number == numbers[-1]
        with _path(folder, number).open("rb") as source:
            # Asked before reading: what a finished writer wrote is all there.
            finished = not last and _finished(source)
            end = os.fstat(source.fileno()).st_size
            if last and byte > end:
                raise _lost(folder, f"ends at byte {end} of segment {number}", offset)
            if last and mark is not None:
                end = mark.byte if mark.segment == number else 0
            source.seek(byte)
            while byte < end and len(frames) < limit and max_bytes > 0:
                payload = _read_frame(source)
                if payload is None:
                    break
                frames.append(payload)
                byte += _padded(len(payload))
                max_bytes -= len(payload)
        if not finished or len(frames) >= limit or max_bytes <= 0:
            break
    return frames, Offset(segment, byte)


def _lost(folder: Path, end: str, offset: Offset) -> Corrupt:
    return Corrupt(
        f"the log {end} and was read up to byte {offset.byte} of segment {offset.segment}",
        where=str(folder),
        fix="restore the folder together with the ledger",
    )


@lru_cache(maxsize=1)
def _boot() -> bytes:
    """Return what tells this run of the machine from others; a power cut lies between two runs."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return bytes.fromhex(path.read_text().strip().replace("-", "")) if path.exists() else bytes(16)


def _marked(mark: BinaryIO) -> Offset | None:
    """Return where the last durable append ended; None when that is not known."""
    content = mark.read()
    if len(content) != _MARK.size:
        return None
    segment, byte, boot = _MARK.unpack(content)
    # The mark itself is not synced: what it says of an earlier run may be outdated.
    return Offset(segment, byte) if boot == _boot() else None


def _mark_of(folder: Path) -> Offset | None:
    """Return the end of what may be read of a durable log's last segment; None for all of it."""
    try:
        with (folder / "writer.lock").open("rb") as mark:
            return _marked(mark)
    except FileNotFoundError:
        return None


def _read_frame(source: BinaryIO) -> bytes | None:
    head = source.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, check = _HEAD.unpack(head)
    if length == 0:
        return None
    payload = source.read(_padded(length) - _HEAD.size)[:length]
    return payload if len(payload) == length and zlib.crc32(payload) == check else None


def _finished(source: BinaryIO) -> bool:
    """Say whether a segment's writer is done with it or dead."""
    try:
        fcntl.flock(source.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep(folder: Path, before: Offset) -> int:
    """Delete segments that lie wholly before an offset and return how many."""
    old = [number for number in _segments(folder) if number < before.segment]
    for number in old:
        _path(folder, number).unlink(missing_ok=True)
    return len(old)
