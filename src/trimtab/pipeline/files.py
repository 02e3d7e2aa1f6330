"""Digests of files that are cached by what the file system says about them, and a project's own files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import digest_file
from trimtab.core.errors import BadSource

# A file that was written so lately could be written again within the resolution of its time stamp.
_SETTLE_NS = 2_000_000_000
_SKIPPED = frozenset({"__pycache__", "node_modules", "build", "dist", "site-packages"})
SUFFIXES = (".py", ".sql")


class FileDigests:
    """Digests of files by path; a file is read again only when its size, time or inode has changed.

    What is cached is trusted only if the file was at least two seconds old when it was read. Not shared by
    threads; several processes may keep the same cache file, and the last to save wins.

    Args:
        cache: where the digests are kept between processes.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, tuple[int, int, int, str]] = {}
        self._dirty = False
        try:
            self._known = msgspec.msgpack.decode(cache.read_bytes(), type=dict[str, tuple[int, int, int, str]])
        except FileNotFoundError:
            pass
        except msgspec.DecodeError:
            self._dirty = True

    def digest(self, path: Path) -> str:
        """Return the digest of the file at ``path``.

        Raises:
            BadSource: it is not there or cannot be read.
        """
        key = str(path)
        try:
            stat = path.stat()
            mark = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
            known = self._known.get(key)
            if known is not None and known[:3] == mark:
                return known[3]
            found = digest_file(path)
        except OSError as error:
            raise BadSource(
                f"cannot read the file: {error.strerror}",
                where=key,
                fix="put it back, or mend its permissions",
            ) from error
        if wall_seconds() * 1e9 - stat.st_mtime_ns > _SETTLE_NS:
            self._known[key] = (*mark, found)
            self._dirty = True
        return found

    def save(self) -> None:
        """Keep the digests for later processes."""
        if not self._dirty:
            return
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._cache.with_name(f"{self._cache.name}.{os.getpid()}")
        temporary.write_bytes(msgspec.msgpack.encode(self._known))
        temporary.replace(self._cache)
        self._dirty = False


def own_files(root: Path, *, store: Path | None = None) -> list[str]:
    """Return the project's own source files as sorted paths relative to ``root``, with ``/``.

    These are the ``.py`` and ``.sql`` files below it, but none in hidden folders, virtual environments, the
    store, or build outputs (a ``build`` that is a package counts). Links to folders are not followed.
    """
    return sorted(_walk(str(root), "", str(store) if store else ""))


def _walk(folder: str, prefix: str, store: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        found = list(entries)
    names = {entry.name for entry in found}
    skipped = Path(folder).name in _SKIPPED and "__init__.py" not in names
    if prefix and (skipped or "pyvenv.cfg" in names):
        return
    for entry in found:
        name = entry.name
        if name.endswith(SUFFIXES) and entry.is_file():
            yield prefix + name
        elif not name.startswith(".") and entry.path != store and entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{name}/", store)


def module_of(path: str) -> str:
    """Return the dotted name under which the ``.py`` file at a relative path is imported."""
    parts = path.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
