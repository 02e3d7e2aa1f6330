"""Blobs in a folder: the conformance suite, rot, leftovers and kill -9."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.store.crash import kill_loop
from tests.store.victim import payload
from trimtab.core.digest import digest_bytes
from trimtab.core.errors import Corrupt
from trimtab.store.blobs import Blobs, LocalBlobs
from trimtab.testing.blobs import BlobsConformance


class TestLocalBlobs(BlobsConformance):
    """Blobs in a folder keep the contract."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        """Return blobs in a new folder."""
        return LocalBlobs(tmp_path / "blobs")


def test_a_changed_blob_is_told(tmp_path: Path) -> None:
    """Bytes that are no longer what their digest says are never returned."""
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"content")
    path = blobs.path(digest)
    assert path.stat().st_mode & 0o222 == 0
    path.chmod(0o600)
    path.write_bytes(b"kontent")
    with pytest.raises(Corrupt, match="has other content"):
        blobs.get(digest)


def test_a_failed_put_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, the error comes out, nothing is kept and nothing lies around."""
    blobs = LocalBlobs(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            blobs.put(b"content")
    assert not blobs.has(digest_bytes(b"content"))
    assert list((tmp_path / "tmp").iterdir()) == []
    blobs.put(b"content")


def test_leftovers_are_swept_by_age(tmp_path: Path) -> None:
    """What dead writers left goes when it is old enough; kept blobs stay."""
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"content")
    for name, age in (("old", 100.0), ("new", 300.0)):
        (tmp_path / "tmp" / name).write_bytes(b"half")
        os.utime(tmp_path / "tmp" / name, (age, age))
    assert blobs.sweep(200.0) == 1
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["new"]
    assert blobs.get(digest) == b"content"
    assert LocalBlobs(tmp_path / "none").sweep(200.0) == 0


def test_kill_9_loses_no_blob_and_shows_no_half(tmp_path: Path) -> None:
    """After kill -9 at any moment, every acknowledged blob is there, and every blob is whole."""
    acknowledged = kill_loop("blobs", tmp_path)
    blobs = LocalBlobs(tmp_path)
    assert len(acknowledged) > 20
    for name in acknowledged:
        assert blobs.get(digest_bytes(payload(name))) == payload(name)
    for path in tmp_path.glob("??/*"):
        assert digest_bytes(path.read_bytes()) == f"sha256:{path.name}"
