"""`trimtab init`: writes a project, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.core.errors import WrongUse
from trimtab.deliver.init import init_project


def test_init_writes_a_project_once(tmp_path: Path) -> None:
    """A second init in the same folder changes nothing and says what is in the way."""
    written = init_project(tmp_path / "my-project")
    assert {path.name for path in written} >= {
        "trimtab.yaml",
        "workload.py",
        "readings.csv",
        "test_workload.py",
    }
    before = {path: path.read_text() for path in written}
    with pytest.raises(WrongUse, match="is already in"):
        init_project(tmp_path / "my-project")
    assert {path: path.read_text() for path in written} == before
    assert "project: my_project" in before[tmp_path / "my-project" / "trimtab.yaml"]
