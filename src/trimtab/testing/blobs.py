"""What every blob store must do; subclass ``BlobsConformance`` and override ``blobs``."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

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

    @pytest.mark.parametrize("text", ["", "abc", "../../etc/passwd", "sha256:" + "g" * 64, "sha256:" + "A" * 64])
    def test_only_a_digest_names_a_blob(self, blobs: Blobs, text: str) -> None:
        """Whatever is not a digest is refused before it becomes a path."""
        for ask in (blobs.get, blobs.path, blobs.has):
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
