"""Files that lie in a folder of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trimtab.core.errors import Unavailable
from trimtab.migrate.source import Broken, File


def local_path(location: str) -> Path | None:
    """Return the folder that a location names, or None where it is no place on this machine's file system."""
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if parts.scheme == "" and location.startswith("/"):
        return Path(location)
    return None


class Folder:
    """The files below a folder; links are told of and not followed, since they may lead anywhere."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def listed(self) -> Iterator[File | Broken]:
        """Yield the files by path; nothing where there is no folder."""
        for folder, names, files in os.walk(self._root):
            names.sort()
            at = Path(folder)
            links = [name for name in [*names, *files] if (at / name).is_symlink()]
            for name in links:
                yield Broken("file", str(at / name), "it is a link, which is not followed")
            names[:] = [name for name in names if name not in links]
            for name in sorted(set(files) - set(links)):
                path = at / name
                yield File(path.relative_to(self._root).as_posix(), path.stat().st_size)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """Return a file's own place.

        Raises:
            Unavailable: it is gone.
        """
        place = self._root / path
        if not place.is_file():
            raise Unavailable("a file that was listed is gone", where=str(place), fix="run the import again")
        yield place
