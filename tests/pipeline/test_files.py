"""Digests of files, cached by what the file system says, and a project's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trimtab.core.digest import digest_bytes
from trimtab.core.errors import BadSource
from trimtab.pipeline.files import FileDigests, module_of, own_files


def _age(path: Path, seconds: float) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - int(seconds * 1e9)))


def test_old_files_are_read_once(tmp_path: Path) -> None:
    """A file whose size, time and inode did not change is not read again, also by another process."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"one")
    _age(path, 10)
    digests = FileDigests(tmp_path / "cache" / "files")
    first = digests.digest(path)
    digests.save()
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FileDigests(tmp_path / "cache" / "files").digest(path) == first


def test_young_files_are_always_read(tmp_path: Path) -> None:
    """A file that was written in the last two seconds is never taken from the cache."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"one")
    digests = FileDigests(tmp_path / "files")
    digests.digest(path)
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digests.digest(path) == digest_bytes(b"two")


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    """A new time makes the file be read again."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"one")
    _age(path, 10)
    digests = FileDigests(tmp_path / "files")
    digests.digest(path)
    path.write_bytes(b"two")
    _age(path, 5)
    assert digests.digest(path) == digest_bytes(b"two")


def test_broken_cache_is_dropped(tmp_path: Path) -> None:
    """A cache file that makes no sense is as good as none."""
    (tmp_path / "files").write_bytes(b"\xff\xff")
    (tmp_path / "a.csv").write_bytes(b"one")
    assert FileDigests(tmp_path / "files").digest(tmp_path / "a.csv") == digest_bytes(b"one")


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(BadSource, match=r"gone\.csv"):
        FileDigests(tmp_path / "files").digest(tmp_path / "gone.csv")


def test_own_files(tmp_path: Path) -> None:
    """A project's own files are its Python and SQL files outside hidden folders, builds and runtimes."""
    for path in (
        "a.py",
        "pkg/__init__.py",
        "pkg/q.sql",
        "pkg/notes.txt",
        ".hidden/b.py",
        "build/c.py",
        "runtime/pyvenv.cfg",
        "runtime/lib/d.py",
        "store/e.py",
        "__pycache__/f.py",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    assert own_files(tmp_path, store=tmp_path / "store") == ["a.py", "pkg/__init__.py", "pkg/q.sql"]
    (tmp_path / "build" / "__init__.py").write_text("")
    assert "build/c.py" in own_files(tmp_path)


def test_module_names() -> None:
    """A path is imported under its dotted name, a package under its folder's."""
    assert module_of("flights/tables.py") == "flights.tables"
    assert module_of("flights/__init__.py") == "flights"
