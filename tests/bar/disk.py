"""A disk that loses its power: an SQLite file system that writes down what was written and what was synced.

Until a file is synced, any part of what was written to it may be lost, in 512-byte sectors and in any order; what was
synced stays. A file's removal is certain once its folder was synced, which SQLite does when it first syncs a new log.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512
Event = tuple[str, str, int, bytes]
"""What happened (``write``, ``truncate``, ``sync``, ``delete`` or ``told``), to which file, where, and what."""


class Disk(apsw.VFS):
    """A file system on top of the machine's own that keeps a record of everything.

    Args:
        name: what SQLite knows it by.

    Attributes:
        trouble: called before each ``write``, ``truncate`` and ``sync``; what it raises is what the disk does.
    """

    def __init__(self, name: str) -> None:
        self.events: list[Event] = []
        self.trouble: Callable[[str], None] = lambda what: None
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        """Open a file, recorded if it has a name."""
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Remove a file."""
        super().xDelete(filename, syncdir)
        self.events.append(("delete", Path(filename).name, int(syncdir), b""))

    def record(self, what: str, name: str, number: int, data: bytes = b"") -> None:
        """Write down what happened to a file, unless there is trouble, which raises."""
        if name:
            self.trouble(what)
            self.events.append((what, name, number, data))

    def tell(self, name: str) -> None:
        """Write down that an act was acknowledged."""
        self.events.append(("told", name, 0, b""))


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(path).name if path else ""
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.record("write", self._name, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.record("truncate", self._name, size)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        self._disk.record("sync", self._name, 0)


class _Kept:
    """What the disk holds of a file for certain, and what it may or may not hold."""

    def __init__(self) -> None:
        self.certain = bytearray()
        self.open: list[Event] = []
        self.new = True

    def sync(self) -> None:
        for event in self.open:
            _apply(self.certain, event)
        self.open.clear()

    def after(self, dice: random.Random) -> bytes:
        """Return one of the contents that may be found after the power came back."""
        found = bytearray(self.certain)
        for event in _survivors(self.open, dice):
            _apply(found, event)
        return bytes(found)


def _apply(content: bytearray, event: Event) -> None:
    what, _, offset, data = event
    if what == "truncate":
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _sectors(event: Event) -> Iterator[Event]:
    what, name, offset, data = event
    if what != "write":
        yield event
        return
    at = 0
    while at < len(data):
        size = SECTOR - (offset + at) % SECTOR
        yield what, name, offset + at, data[at : at + size]
        at += size


def _survivors(events: list[Event], dice: random.Random) -> list[Event]:
    """Return what of the unsynced writes reached the disk, by one of the ways in which disks fail."""
    way = dice.choice(["none", "all", "front", "some", "torn", "torn"])
    if way == "none":
        return []
    if way == "all":
        return events
    if way == "front":
        count = dice.randint(0, len(events))
        torn = list(_sectors(events[count]))[: dice.randint(0, 8)] if count < len(events) else []
        return events[:count] + torn
    share = dice.random()
    parts = events if way == "some" else [part for event in events for part in _sectors(event)]
    return [part for part in parts if dice.random() < share]


def cuts(events: list[Event], moments: list[int], dice: random.Random) -> Iterator[tuple[dict[str, bytes], set[str]]]:
    """Yield for each moment what may be found on the disk when the power goes then, and what was told until then."""
    files: dict[str, _Kept] = {}
    removed: dict[str, _Kept] = {}
    told: set[str] = set()
    at = 0
    for moment in sorted(moments):
        for event in events[at:moment]:
            _happen(event, files, removed, told)
        at = max(at, moment)
        found = {name: kept.after(dice) for name, kept in files.items()}
        for name, kept in removed.items():
            if dice.random() < 0.5:
                found.setdefault(name, kept.after(dice))
        yield found, set(told)


def _happen(event: Event, files: dict[str, _Kept], removed: dict[str, _Kept], told: set[str]) -> None:
    what, name, number, _ = event
    if what == "told":
        told.add(name)
    elif what == "delete":
        gone = files.pop(name, None)
        if number:
            removed.clear()
        elif gone is not None:
            removed[name] = gone
    else:
        kept = files.setdefault(name, _Kept())
        if what != "sync":
            kept.open.append(event)
            return
        kept.sync()
        if kept.new:
            kept.new = False
            removed.clear()
