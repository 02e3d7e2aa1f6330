"""Points of one run on their way: kept beside memory until the run is written, and told apart by a digest."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from types import TracebackType

import msgspec

from trimtab.core.metric import split_value
from trimtab.store.points import Point

_IN_MEMORY = 4 << 20
_SPACE = 1 << 128
_LENGTH = struct.Struct(">Q")


class Digest:
    """A digest of points that does not depend on their order.

    Each point's own digest is added to the sum (AdHash; Bellare and Micciancio 1997). It tells accidents apart, not
    attacks.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, points: Iterable[Point]) -> None:
        """Take points in."""
        for point in points:
            value, kind = split_value(point.value)
            text = f"{point.name}\0{point.at}\0{point.step}\0{kind or repr(value)}"
            self._sum += int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
            self.count += 1

    def __str__(self) -> str:
        return f"{self._sum % _SPACE:032x}"


class Spool:
    """Pages of points in a temporary file, which goes when the block ends."""

    def __init__(self) -> None:
        self.digest = Digest()
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, prefix="trimtab-")  # noqa: SIM115

    def add(self, points: Sequence[Point]) -> None:
        """Put a page at the end."""
        self.digest.add(points)
        content = msgspec.msgpack.encode([(one.name, one.value, one.step, one.at) for one in points])
        self._file.write(_LENGTH.pack(len(content)) + content)

    def pages(self) -> Iterator[list[Point]]:
        """Yield all pages from the first on; it can be asked for more than once."""
        self._file.seek(0)
        while head := self._file.read(_LENGTH.size):
            rows = msgspec.msgpack.decode(self._file.read(_LENGTH.unpack(head)[0]))
            yield [Point(*row) for row in rows]

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
