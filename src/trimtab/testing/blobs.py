"""What every blob store must do; subclass ``BlobsConformance`` and override ``blobs``."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import digest_bytes
from trimtab.core.errors import NotFound, WrongUse
from trimtab.store.blobs import Blobs


class BlobsConformance:
    """The contract of ``Blobs`` as tests; each test gets a new, empty store."""

    @pytest.fixture
    def blobs(self) -> Blobs:
        """Return a new blob store."""
        raise NotImplementedError("override the fixture blobs")

    @pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5000], ids=["empty", "small", "large"])
    def test_bytes_come_back_by_their_digest(self, blobs: Blobs, content: bytes) -> None:
        """What is put is found by its digest, byte for byte, as bytes and as a file."""
        digest = blobs.put(content)
        assert digest == digest_bytes(content)
        assert blobs.has(digest)
        assert blobs.get(digest) == content
        assert blobs.path(digest).read_bytes() == content

    def test_files_and_bytes_are_the_same(self, blobs: Blobs, tmp_path: Path) -> None:
        """A file with the same bytes is the same blob, and the file stays where it is."""
        path = tmp_path / "file"
        path.write_bytes(b"content" * 1000)
        assert blobs.put_file(path) == blobs.put(path.read_bytes())
        assert path.read_bytes() == b"content" * 1000

    def test_putting_again_changes_nothing(self, blobs: Blobs) -> None:
        """The same bytes again are the same blob."""
        digest = blobs.put(b"x")
        where = blobs.path(digest)
        assert blobs.put(b"x") == digest
        assert blobs.path(digest) == where

    def test_a_missing_blob_is_not_found(self, blobs: Blobs) -> None:
        """A digest that was never put is not there, and asking for it says so."""
        digest = digest_bytes(b"never put")
        assert not blobs.has(digest)
        for ask in (blobs.get, blobs.path):
            with pytest.raises(NotFound, match="not in this store"):
                ask(digest)

    def test_a_range_is_a_part_of_the_bytes(self, blobs: Blobs) -> None:
        """Some bytes come back, fewer where the blob ends before and none after its end."""
        digest = blobs.put(bytes(range(100)))
        for start, length in ((0, 100), (10, 5), (99, 1), (95, 20), (0, 0), (100, 1), (10**9, 1)):
            assert blobs.get_range(digest, start, length) == bytes(range(100))[start : start + length]
        assert blobs.get_range(blobs.put(b""), 0, 10) == b""
        with pytest.raises(NotFound, match="not in this store"):
            blobs.get_range(digest_bytes(b"never put"), 0, 1)
        for wrong in ((-1, 1), (0, -1)):
            with pytest.raises(WrongUse, match="0 or more"):
                blobs.get_range(digest, *wrong)

    def test_what_is_kept_is_listed_and_can_go(self, blobs: Blobs, tmp_path: Path) -> None:
        """A sweep sees every blob once with its size and time, nothing that is none, and removes the ones it names."""
        path = tmp_path / "large"
        path.write_bytes(b"large" * 1_800_000)
        digests = {blobs.put(b""): 0, blobs.put(b"x"): 1, blobs.put_file(path): 9_000_000}
        blobs.put(b"x")
        found = list(blobs.kept())
        assert {one.digest: one.size for one in found} == digests and len(found) == 3
        assert all(abs(one.at - wall_seconds()) < 300 for one in found)
        assert [blobs.size(digest) for digest in digests] == list(digests.values())
        gone = digest_bytes(b"x")
        for _ in range(2):
            blobs.delete(gone)
        assert not blobs.has(gone)
        assert {one.digest for one in blobs.kept()} == digests.keys() - {gone}
        with pytest.raises(NotFound, match="not in this store"):
            blobs.size(gone)
        with pytest.raises(NotFound, match="not in this store"):
            blobs.path(gone)
        assert blobs.put(b"x") == gone and blobs.get(gone) == b"x"

    def test_a_large_file_comes_back(self, blobs: Blobs, tmp_path: Path) -> None:
        """A file of several parts is one blob, and putting it again changes nothing."""
        path = tmp_path / "large"
        path.write_bytes(bytes(range(256)) * 33_000)
        digest = blobs.put_file(path)
        assert blobs.put_file(path) == digest == digest_bytes(path.read_bytes())
        assert blobs.size(digest) == 256 * 33_000
        assert blobs.get(digest) == path.read_bytes() == blobs.path(digest).read_bytes()
        assert blobs.get_range(digest, 8 * 1024 * 1024 - 1, 2) == b"\xff\x00"

    @pytest.mark.parametrize("text", ["", "abc", "../../etc/passwd", "sha256:" + "g" * 64, "sha256:" + "A" * 64])
    def test_only_a_digest_names_a_blob(self, blobs: Blobs, text: str) -> None:
        """Whatever is not a digest is refused before it becomes a path."""
        for ask in (blobs.get, blobs.path, blobs.has, blobs.size, blobs.delete):
            with pytest.raises(WrongUse, match="is not a digest"):
                ask(text)

    def test_many_may_put_the_same_at_once(self, blobs: Blobs) -> None:
        """Threads that put the same and different bytes at once all succeed."""
        failures: list[BaseException] = []

        def run(number: int) -> None:
            try:
                for n in range(10):
                    for content in (b"same%d" % n, b"own%d/%d" % (number, n)):
                        assert blobs.get(blobs.put(content)) == content
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
