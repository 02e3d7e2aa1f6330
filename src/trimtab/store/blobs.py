"""Blobs: bytes addressed by their sha256."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from trimtab.core.digest import digest_bytes, digest_file
from trimtab.core.errors import Corrupt, NotFound, WrongUse
from trimtab.core.ids import new_hex

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Blobs(Protocol):
    """Keeps bytes by their digest.

    Contract: what ``put`` and ``put_file`` return is durable; putting the same bytes again changes nothing; any
    number of threads and processes may put and get at once; a reader never sees half a blob; ``get`` returns
    exactly the bytes that were put, or raises.
    """

    def put(self, content: bytes) -> str:
        """Keep bytes and return their digest."""
        ...

    def put_file(self, path: Path) -> str:
        """Keep a file's bytes and return their digest."""
        ...

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest."""
        ...

    def path(self, digest: str) -> Path:
        """Return a local file that holds the bytes of a digest."""
        ...

    def has(self, digest: str) -> bool:
        """Say whether the bytes of a digest are here."""
        ...


class LocalBlobs:
    """Blobs in a folder: temp, fsync, rename, fsync of the folders; kept files are read-only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, content: bytes) -> str:
        """Keep bytes and return their digest."""
        digest = digest_bytes(content)
        if self.has(digest):
            self._settle(digest)
            return digest
        with self._new() as (path, out):
            out.write(content)
        return self._keep(path, digest)

    def put_file(self, path: Path) -> str:
        """Keep a file's bytes and return their digest; what counts is what was read, should the file change."""
        with path.open("rb") as source, self._new() as (copy, out):
            shutil.copyfileobj(source, out, 1 << 20)
        return self._keep(copy, digest_file(copy))

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest.

        Raises:
            NotFound: they are not here.
            Corrupt: what lies there has another digest.
        """
        content = self.path(digest).read_bytes()
        if digest_bytes(content) != digest:
            raise Corrupt(f"blob {digest} has other content", fix="restore it from a copy, or run the step again")
        return content

    def path(self, digest: str) -> Path:
        """Return the file of a digest.

        Raises:
            NotFound: it is not here.
        """
        path = self._place(digest)
        if not path.exists():
            raise NotFound(f"blob {digest} is not in this store", where=digest)
        return path

    def has(self, digest: str) -> bool:
        """Say whether the bytes of a digest are here."""
        # A plan asks this of every step: paths as text take a fourth of the time.
        name = _name_of(digest)
        return os.path.exists(f"{self._root}/{name[:2]}/{name}")  # noqa: PTH110

    def _place(self, digest: str) -> Path:
        name = _name_of(digest)
        return self._root / name[:2] / name

    def sweep(self, before: float) -> int:
        """Remove what writers that died left half-written, if it is older than ``before`` (seconds since the epoch)."""
        old = [path for path in (self._root / "tmp").glob("*") if path.stat().st_mtime < before]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    @contextmanager
    def _new(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Open a temporary file whose bytes are durable when the block ends; it is removed if that raises."""
        folder = self._root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / new_hex()
        try:
            with path.open("xb") as out:
                yield path, out
                out.flush()
                os.fchmod(out.fileno(), 0o400)
                os.fsync(out.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _keep(self, temporary: Path, digest: str) -> str:
        place = self._place(digest)
        if place.exists():
            temporary.unlink()
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(place)
        self._settle(digest)
        return digest

    def _settle(self, digest: str) -> None:
        # Also for a blob that was there: whoever renamed it may not have come to its fsync yet.
        sync_folder(self._place(digest).parent)
        sync_folder(self._root)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_of(digest: str) -> str:
    if _DIGEST.fullmatch(digest) is None:
        raise WrongUse(f"{digest[:80]!r} is not a digest", fix="it looks like sha256: and 64 hex digits")
    return digest.removeprefix("sha256:")
