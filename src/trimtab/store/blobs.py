"""Blobs: bytes addressed by their sha256."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Protocol

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
    """Blobs in a folder: temp, fsync, rename, fsync of the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, content: bytes) -> str:
        """Keep bytes and return their digest."""
        digest = digest_bytes(content)
        if self.has(digest):
            return digest
        temporary = self._temporary()
        with temporary.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        return self._keep(temporary, digest)

    def put_file(self, path: Path) -> str:
        """Keep a file's bytes and return their digest."""
        temporary = self._temporary()
        with path.open("rb") as source, temporary.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        return self._keep(temporary, digest_file(temporary))

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
            raise NotFound(f"blob {digest} is not in this store")
        return path

    def has(self, digest: str) -> bool:
        """Say whether the bytes of a digest are here."""
        return self._place(digest).exists()

    def _place(self, digest: str) -> Path:
        if _DIGEST.fullmatch(digest) is None:
            raise WrongUse(f"{digest[:80]!r} is not a digest")
        name = digest.removeprefix("sha256:")
        return self._root / name[:2] / name

    def _temporary(self) -> Path:
        folder = self._root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / new_hex()

    def _keep(self, temporary: Path, digest: str) -> str:
        place = self._place(digest)
        if place.exists():
            temporary.unlink()
            return digest
        made = not place.parent.exists()
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(place)
        sync_folder(place.parent)
        if made:
            sync_folder(self._root)
        return digest


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
