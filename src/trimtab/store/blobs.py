"""Where bytes lie, in a folder or in an object store by URL: blobs by their sha256, and the files of tables by name.

A folder is kept here; object stores come from the entry point groups ``trimtab.blobs`` and ``trimtab.tables``, one
entry for each scheme of a URL.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from msgspec import Struct

from trimtab.core.digest import digest_bytes, digest_file
from trimtab.core.errors import Corrupt, NotFound, WrongUse, closest
from trimtab.core.ids import new_hex

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Kept(Struct, frozen=True):
    """A blob that is kept.

    Attributes:
        digest: of its bytes.
        size: in bytes.
        at: when it was kept, in seconds since the epoch by the clock of where it lies.
    """

    digest: str
    size: int
    at: float


class Blobs(Protocol):
    """Keeps bytes by their digest.

    Contract: what ``put`` and ``put_file`` return is durable; putting the same bytes again changes nothing; any
    number of threads and processes may put and get at once; a reader never sees half a blob, nor does ``kept`` list
    one; ``get`` returns exactly the bytes that were put, or raises. ``get_range`` and ``path`` of a folder cannot
    compare with the digest. ``delete`` is for sweeps: whoever calls it knows that nobody is about to name the blob.
    A store that does not answer raises Unavailable, and no message holds a secret.
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

    def get_range(self, digest: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on; fewer where the blob ends before."""
        ...

    def size(self, digest: str) -> int:
        """Return how many bytes a digest has."""
        ...

    def kept(self) -> Iterator[Kept]:
        """Yield all blobs, in no order."""
        ...

    def delete(self, digest: str) -> None:
        """Remove a blob; if it is not here, nothing happens."""
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

    def get_range(self, digest: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on (for errors see ``path``; they are not compared)."""
        check_range(start, length)
        with self.path(digest).open("rb") as source:
            source.seek(start)
            return source.read(length)

    def size(self, digest: str) -> int:
        """Return how many bytes a digest has (for errors see ``path``)."""
        return self.path(digest).stat().st_size

    def kept(self) -> Iterator[Kept]:
        """Yield all blobs, in no order."""
        for path in self._root.glob("??/*"):
            digest = f"sha256:{path.name}"
            if _DIGEST.fullmatch(digest):
                found = path.stat()
                yield Kept(digest, found.st_size, found.st_mtime)

    def delete(self, digest: str) -> None:
        """Remove a blob; if it is not here, nothing happens."""
        self._place(digest).unlink(missing_ok=True)

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
        return os.path.exists(f"{self._root}/{key_of(digest)}")  # noqa: PTH110

    def _place(self, digest: str) -> Path:
        return self._root / key_of(digest)

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


def key_of(digest: str) -> str:
    """Return where the bytes of a digest lie below a root: ``ab/abcdef...``.

    Raises:
        WrongUse: it is no digest.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise WrongUse(f"{digest[:80]!r} is not a digest", fix="it looks like sha256: and 64 hex digits")
    name = digest.removeprefix("sha256:")
    return f"{name[:2]}/{name}"


def check_range(start: int, length: int) -> None:
    """Refuse a range that begins before the first byte or has fewer than no bytes."""
    if start < 0 or length < 0:
        raise WrongUse(f"there are no {length} bytes from {start} on", fix="give a start and a length of 0 or more")


class Files(Protocol):
    """Files that are written once and have a name, in groups: what tables are made of.

    A key is ``group/name``. Contract: ``add`` is atomic and durable, and nobody sees half a file; any number of
    threads and processes may act at once.

    Attributes:
        options: what an engine needs to open ``uri`` itself; it may hold secrets and is never printed.
    """

    options: Mapping[str, str]

    def uri(self, key: str) -> str:
        """Return where a file or group lies, as an engine opens it and people may read it."""
        ...

    def add(self, group: str, write: Callable[[BinaryIO], None], name: Callable[[str], str]) -> tuple[str, int, str]:
        """Keep what ``write`` writes under the name that ``name`` makes of its digest; return name, size and digest."""
        ...

    def has(self, key: str) -> bool:
        """Say whether a file is here."""
        ...

    def read(self, key: str) -> bytes | None:
        """Return a file's bytes, or None if it is not here."""
        ...

    def names(self, group: str) -> dict[str, float]:
        """Return a group's files with the time when they were kept, in seconds since the epoch."""
        ...

    def missing(self, group: str, names: list[str]) -> str | None:
        """Return the first of some files that is not in a group."""
        ...

    def path(self, key: str, digest: str) -> Path:
        """Return a local file with the bytes of a file; a copy is compared with the digest when it is made."""
        ...

    def digest(self, key: str) -> str:
        """Read every byte of a file where it lies and return its digest."""
        ...

    def delete(self, key: str) -> None:
        """Remove a file; if it is not here, nothing happens."""
        ...

    def remove(self, group: str) -> None:
        """Remove all files of a group, an engine's log and local copies too; if it is not here, nothing happens."""
        ...

    def settle(self, group: str, first: int) -> None:
        """Make durable what an engine wrote into the log of a group from commit ``first`` on."""
        ...

    def told(self, where: str) -> AbstractContextManager[None]:
        """Turn the faults of a store that does not answer into Unavailable, without its secrets."""
        ...

    def clean(self, text: str) -> str:
        """Return a message without secrets."""
        ...


class LocalFiles:
    """Files in folders below a root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.options: Mapping[str, str] = {}

    def uri(self, key: str) -> str:
        """Return the path."""
        return str(self._root / key)

    def add(self, group: str, write: Callable[[BinaryIO], None], name: Callable[[str], str]) -> tuple[str, int, str]:
        """Keep a file: temp, fsync, rename, fsync of the folder; see ``Files``."""
        folder = self._root / group
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"tmp-{new_hex()}"
        try:
            with temporary.open("xb") as out:
                write(out)
                out.flush()
                os.fsync(out.fileno())
            digest = digest_file(temporary)
            path = temporary.rename(folder / name(digest))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(folder)
        return path.name, path.stat().st_size, digest

    def has(self, key: str) -> bool:
        """Say whether a file is here."""
        return (self._root / key).exists()

    def read(self, key: str) -> bytes | None:
        """Return a file's bytes, or None if it is not here."""
        path = self._root / key
        return path.read_bytes() if path.exists() else None

    def names(self, group: str) -> dict[str, float]:
        """Return a group's files with the time when they were changed."""
        folder = self._root / group
        if not folder.is_dir():
            return {}
        found = {}
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # a temporary file that got its name just now
                found[path.name] = path.stat().st_mtime
        return found

    def missing(self, group: str, names: list[str]) -> str | None:
        """Return the first of some files that is not in a group."""
        folder = self._root / group
        return next((name for name in names if not (folder / name).exists()), None)

    def path(self, key: str, digest: str) -> Path:
        """Return the file itself."""
        return self._root / key

    def digest(self, key: str) -> str:
        """Read every byte of a file and return its digest."""
        return digest_file(self._root / key)

    def delete(self, key: str) -> None:
        """Remove a file; if it is not here, nothing happens."""
        (self._root / key).unlink(missing_ok=True)

    def remove(self, group: str) -> None:
        """Remove the folder of a group; if it is not here, nothing happens."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._root / group)

    def settle(self, group: str, first: int) -> None:
        """Make the log durable from commit ``first`` on: the engine itself does not sync."""
        folder = self._root / group
        log = folder / "_delta_log"
        for path in log.iterdir():
            number = path.name[:20]
            if not number.isdigit() or int(number) >= first - 1:
                with path.open("rb") as source:
                    os.fsync(source.fileno())
        for place in (log, folder, folder.parent):
            sync_folder(place)

    def told(self, where: str) -> AbstractContextManager[None]:
        """Nothing: a folder's faults are told as they are."""
        return nullcontext()

    def clean(self, text: str) -> str:
        """Return the message: a folder has no secrets."""
        return text


def open_blobs(location: str | Path, options: Mapping[str, str] | None = None, *, cache: Path | None = None) -> Blobs:
    """Open the blobs of a folder, or of a URL such as ``s3://bucket/prefix``, ``az://container/prefix``, ``gs://...``.

    Args:
        location: the folder or URL; a URL holds no credentials.
        options: what the store needs (``aws_region``, ``azure_storage_account_name``, a key ...); what is not given
            comes from the environment and the default chain of the cloud.
        cache: the folder for local copies of a URL's blobs (``~/.cache/trimtab`` by default).

    Raises:
        MissingExtra: the package for object stores is not installed.
        NotFound: no back end knows the URL's scheme.
        WrongUse: the URL or an option cannot be used.
    """
    found: Blobs | None = _remote("trimtab.blobs", location, options, cache)
    return found or LocalBlobs(Path(location))


def open_files(location: str | Path, options: Mapping[str, str] | None = None, *, cache: Path | None = None) -> Files:
    """Open the files of tables in a folder or at a URL (for arguments and errors see ``open_blobs``)."""
    found: Files | None = _remote("trimtab.tables", location, options, cache)
    return found or LocalFiles(Path(location))


def trim_cache(cache: Path, before: float) -> int:
    """Remove local copies that nobody asked for since ``before`` (seconds since the epoch); return how many."""
    old = [path for path in cache.glob("*/*/*") if path.is_file() and path.stat().st_mtime < before]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _remote(group: str, location: str | Path, options: Mapping[str, str] | None, cache: Path | None) -> Any:
    """Return what an entry point makes of a URL, or None for a folder."""
    scheme, found, _ = str(location).partition("://")
    if isinstance(location, Path) or not found:
        return None
    known = {one.name: one for one in entry_points(group=group)}
    if scheme not in known:
        raise NotFound(
            f"nothing is known that keeps {group.partition('.')[2]} at {scheme}://{closest(scheme, known)}",
            where=group,
            fix=f"a folder, or one of {', '.join(sorted(known))}",
        )
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return known[scheme].load()(str(location), options or {}, cache or base / "trimtab")
