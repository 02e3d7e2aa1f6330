"""Append-only logs in segments: buffered for calls, durable for labels; a frame is whole or not there."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from trimtab.core.errors import WrongUse
from trimtab.store.blobs import sync_folder

_HEAD = struct.Struct("<II")
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


class Buffered:
    """Appends frames to memory-mapped segments; one process writes a log at a time.

    Contract: ``append`` never waits; what it returned True for survives the death of the process (a power cut
    may lose the last second); False means that the frame was dropped, and ``dropped`` counts it. A new writer
    starts a new segment, so that what a killed one left is never overwritten.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.dropped = 0
        self._folder = folder
        self._size = segment_bytes
        self._lock = threading.Lock()
        self._number = (_segments(folder) or [0])[-1]
        self._map: mmap.mmap | None = None
        self._at = 0

    def append(self, payload: bytes) -> bool:
        """Append one frame; False when it was dropped."""
        need = _padded(len(payload))
        with self._lock:
            try:
                if self._map is None or self._at + need > self._size:
                    if need > self._size:
                        self.dropped += 1
                        return False
                    self._next()
                buffer = self._map
                assert buffer is not None
                start = self._at + _HEAD.size
                buffer[start : start + len(payload)] = payload
                buffer[self._at + 4 : start] = zlib.crc32(payload).to_bytes(4, "little")
                buffer[self._at : self._at + 4] = len(payload).to_bytes(4, "little")
            except OSError:
                self.dropped += 1
                return False
            self._at += need
            return True

    def flush(self) -> None:
        """Write what is mapped to disk."""
        with self._lock:
            if self._map is not None:
                self._map.flush()

    def close(self) -> None:
        """Flush and let go of the segment."""
        with self._lock:
            if self._map is not None:
                self._map.flush()
                self._map.close()
                self._map = None

    def _next(self) -> None:
        if self._map is not None:
            self._map.close()
        self._number += 1
        path = _path(self._folder, self._number)
        with path.open("xb+") as out:
            out.truncate(self._size)
            self._map = mmap.mmap(out.fileno(), self._size)
        self._at = 0


class Durable:
    """Appends frames and returns when they are on disk; concurrent appends share an fsync.

    Contract: all frames of a call are there after ``append_all`` returns, whatever dies then; several threads of
    one process may append; several processes may too, each in segments of its own.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._size = segment_bytes
        self._lock = threading.Lock()
        self._file: int | None = None
        self._at = 0

    def append_all(self, payloads: Sequence[bytes]) -> None:
        """Append frames durably.

        Raises:
            WrongUse: a frame is larger than a segment.
        """
        parts = []
        for payload in payloads:
            if _padded(len(payload)) > self._size:
                raise WrongUse(f"a frame of {len(payload)} bytes does not fit a segment of {self._size}")
            frame = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
            parts.append(frame.ljust(_padded(len(payload)), b"\0"))
        content = b"".join(parts)
        if not content:
            return
        with self._lock:
            if self._file is None or self._at + len(content) > self._size:
                self._next()
            assert self._file is not None
            os.pwrite(self._file, content, self._at)
            os.fsync(self._file)
            self._at += len(content)

    def close(self) -> None:
        """Let go of the segment."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _next(self) -> None:
        if self._file is not None:
            os.close(self._file)
        number = (_segments(self._folder) or [0])[-1]
        while True:
            number += 1
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                self._file = os.open(_path(self._folder, number), flags, 0o600)
                break
            except FileExistsError:
                continue
        self._at = 0
        sync_folder(self._folder)


def read(folder: Path, offset: Offset, limit: int = 10_000) -> tuple[list[bytes], Offset]:
    """Return up to ``limit`` whole frames behind ``offset``, and the offset behind them.

    A frame whose writer died half way ends its segment: what follows is in a later segment.
    """
    frames: list[bytes] = []
    segment, byte = offset
    numbers = _segments(folder)
    for number in [one for one in numbers if one >= segment]:
        if number > segment:
            segment, byte = number, 0
        with _path(folder, number).open("rb") as source:
            source.seek(byte)
            while len(frames) < limit:
                head = source.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    break
                length, check = _HEAD.unpack(head)
                if length == 0:
                    break
                payload = source.read(_padded(length) - _HEAD.size)[:length]
                if len(payload) < length or zlib.crc32(payload) != check:
                    break
                frames.append(payload)
                byte += _padded(length)
        if len(frames) >= limit:
            break
    return frames, Offset(segment, byte)


def sweep(folder: Path, before: Offset) -> int:
    """Delete segments that lie wholly before an offset and return how many."""
    old = [number for number in _segments(folder) if number < before.segment]
    for number in old:
        _path(folder, number).unlink()
    return len(old)
