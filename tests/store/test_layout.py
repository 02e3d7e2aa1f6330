"""Where things lie."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from trimtab.core.errors import Unavailable
from trimtab.store.layout import Home


def test_everything_is_for_the_owner_only(tmp_path: Path) -> None:
    """A new store's folders are closed to others, and opening it again changes nothing."""
    home = Home(tmp_path / "deep" / "store")
    Home(tmp_path / "deep" / "store")
    for path in (home.root, home.blobs, home.tables, home.intake, home.routes, home.run, home.logs):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert path.is_relative_to(home.root)
    assert {home.ledger.parent, home.token.parent, home.snapshots.parent, home.cache.parent} == {home.root}


def test_socket_paths_are_short_wherever_the_store_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path fits a unix socket, however deep the store or the temporary folder is."""
    home = Home(tmp_path.joinpath(*["deep"] * 20))
    long = tmp_path.joinpath(*["temporary"] * 12)
    long.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = home.sockets
    try:
        assert len(str(folder / ("x" * 40))) < 100
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert home.sockets == folder
        assert Home(tmp_path / "other").sockets != folder
    finally:
        folder.rmdir()
        Home(tmp_path / "other").sockets.rmdir()


def test_a_socket_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    """A folder that is open to others, or is a link, is not used for sockets."""
    home = Home(tmp_path)
    folder = home.sockets
    folder.chmod(0o755)
    with pytest.raises(Unavailable, match="open to others"):
        _ = home.sockets
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    try:
        with pytest.raises(Unavailable, match="open to others"):
            _ = home.sockets
    finally:
        folder.unlink()
