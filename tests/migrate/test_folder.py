"""Files in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.core.errors import Unavailable
from trimtab.migrate.folder import Folder, local_path
from trimtab.migrate.source import Broken, File


def test_files_are_listed_and_links_are_not_followed(tmp_path: Path) -> None:
    """Files come by path with their sizes; a link is told of, wherever it leads."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a b").write_text("xyz")
    (tmp_path / "out").symlink_to("/etc")
    found = list(Folder(tmp_path).listed())
    assert File("deep/a b", 3) in found and len(found) == 2
    assert [one.kind for one in found if isinstance(one, Broken)] == ["file"]
    with Folder(tmp_path).local("deep/a b") as path:
        assert path.read_text() == "xyz"
    with pytest.raises(Unavailable), Folder(tmp_path).local("gone"):
        pass
    assert list(Folder(tmp_path / "none").listed()) == []


@pytest.mark.parametrize(
    ("location", "path"),
    [("/a/b", "/a/b"), ("file:///a/b%20c", "/a/b c"), ("file:/a", "/a"), ("s3://b/c", None), ("a/b", None),
     ("file://host/a", None), ("mlflow-artifacts:/1", None)],
)  # fmt: skip
def test_only_places_of_this_machine_are_paths(location: str, path: str | None) -> None:
    """A scheme, a host or a relative path is no place by itself."""
    assert local_path(location) == (Path(path) if path else None)
