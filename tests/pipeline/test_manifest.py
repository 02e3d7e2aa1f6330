"""Reading what a project declares."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.pipeline.conftest import Folder
from trimtab.core.errors import NotFound, ProjectError
from trimtab.pipeline.manifest import load_manifest, read_manifest, snapshot_folder


def test_is_kept_by_the_files(folder: Folder) -> None:
    """The same files give the same manifest, without importing them again; other files another one."""
    folder.write("mark.py", "")
    folder.edit("steps.py", "import trimtab as tt", "import trimtab as tt; open('count', 'a').write('x')")
    first = folder.manifest()
    assert folder.manifest() == first
    assert (folder.root / "count").read_text() == "x"
    folder.edit("helpers.py", "2 * x", "3 * x")
    second = folder.manifest()
    assert second.digest != first.digest and second.steps["sizes"] != first.steps["sizes"]
    assert second.steps["other"] == first.steps["other"]
    assert load_manifest(folder.store, first.digest) == first


def test_snapshot_has_the_files_as_they_were(folder: Folder) -> None:
    """The snapshot's folder holds the project's own files as they were read."""
    manifest = folder.manifest()
    before = (folder.root / "helpers.py").read_text()
    folder.edit("helpers.py", "2 * x", "3 * x")
    kept = snapshot_folder(folder.store, manifest)
    assert (kept / "helpers.py").read_text() == before
    assert not (kept / "data").exists()
    assert snapshot_folder(folder.store, manifest) == kept


def test_problems_come_back(folder: Folder) -> None:
    """What the project worker finds is raised here, with place and fix."""
    folder.edit("steps.py", "import trimtab as tt", "import trimtab as tt\nundefined_name")
    with pytest.raises(ProjectError) as caught:
        folder.manifest()
    assert caught.value.where == "steps.py:3" and "undefined_name" in caught.value.message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "SIGSEGV"),
        ("import os; os._exit(9)", "exit code 9"),
        ("import os; os._exit(0)", "exit code 0"),
        ("import time; time.sleep(30)", "took more than"),
    ],
)
def test_modules_that_end_their_process(folder: Folder, line: str, says: str) -> None:
    """A module that kills, leaves or blocks the project worker is told as such."""
    folder.edit("steps.py", "import trimtab as tt", f"import trimtab as tt\n{line}")
    with pytest.raises(ProjectError, match=says) as caught:
        read_manifest(folder.project, folder.store, timeout_s=3)
    assert caught.value.where == "trimtab.yaml:2"


def test_what_a_module_leaves_behind_holds_nobody_up(folder: Folder) -> None:
    """A process that a module started ends with the worker that imported the module."""
    line = "import subprocess, pathlib\nchild = subprocess.Popen(['sleep', '60'])\n"
    keep = f"pathlib.Path({str(folder.root / 'pid')!r}).write_text(str(child.pid))"
    folder.edit("steps.py", "import trimtab as tt", f"import trimtab as tt\n{line}{keep}")
    assert read_manifest(folder.project, folder.store, timeout_s=30).declarations
    child = Path("/proc") / (folder.root / "pid").read_text()
    assert not child.exists() or " Z " in (child / "stat").read_text()


def test_unknown_manifest(folder: Folder) -> None:
    """A plan whose manifest is gone has to be made again."""
    with pytest.raises(NotFound, match="plan again"):
        load_manifest(folder.store, "sha256:" + "0" * 64)
