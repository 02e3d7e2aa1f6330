"""Which roots lead to files that can be read from here."""

from __future__ import annotations

from pathlib import Path

from trimtab.migrate.roots import Roots
from trimtab.migrate.source import File


def test_a_servers_folder_is_read_where_it_is_known(tmp_path: Path) -> None:
    """What a server keeps for its clients is found below its folder, never above it; other storages are not read."""
    (tmp_path / "1" / "x").mkdir(parents=True)
    (tmp_path / "1" / "x" / "f").write_text("1")
    for root in ("mlflow-artifacts:/1/x", "mlflow-artifacts://host:5000/1/x"):
        files = Roots(tmp_path).files(root)
        assert files is not None and list(files.listed()) == [File("f", 1)]
    assert Roots(tmp_path).files("mlflow-artifacts:/../x") is None and Roots().files("mlflow-artifacts:/1") is None
    assert Roots(tmp_path).files("s3://bucket/x") is None
    relative = Roots(None, tmp_path).files("1/x")
    assert relative is not None and list(relative.listed()) == [File("f", 1)]
