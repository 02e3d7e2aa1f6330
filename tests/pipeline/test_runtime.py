"""What a run is recorded with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.conftest import Folder
from trimtab.core.digest import digest_bytes
from trimtab.pipeline.runtime import actor, declared_runtime, installed, run_code, run_runtime


def _git(folder: Path, *args: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t.example"]
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(["git", *identity, *args], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_outer_checkout(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git looks no further up than the project."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.root.parent.resolve()))


def test_without_git_the_snapshot_identifies_the_code(folder: Folder) -> None:
    """Without a checkout, or without git, the code is known by its snapshot."""
    manifest = folder.manifest()
    known = {"snapshot": manifest.snapshot_digest, "manifest": manifest.digest}
    assert run_code(folder.project, manifest, folder.store) == known


def test_git_is_recorded(folder: Folder) -> None:
    """Commit, branch and the difference to the commit are recorded; the store itself does not count."""
    _git(folder.root, "init", "-q", "-b", "main")
    manifest = folder.manifest()
    assert run_code(folder.project, manifest, folder.store)["dirty"] is True
    _git(folder.root, "add", "*.py", "*.yaml", "data")
    _git(folder.root, "commit", "-q", "-m", "first")
    code = run_code(folder.project, manifest, folder.store)
    assert code["commit"] == _git(folder.root, "rev-parse", "HEAD")
    assert code["branch"] == "main" and code["dirty"] is False and "diff" not in code and code["repo"] == ""
    folder.edit("helpers.py", "2 * x", "3 * x")
    code = run_code(folder.project, folder.manifest(), folder.store)
    assert code["dirty"] is True
    assert b"+    return 3 * x" in folder.store.blobs.get(code["diff"])


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://me:secret@git.example/team/project.git", "https://git.example/team/project.git"),
        ("https://secret@git.example/project?token=secret", "https://git.example/project"),
        ("git@git.example:team/project.git", "git@git.example:team/project.git"),
        ("../elsewhere", "../elsewhere"),
    ],
)
def test_the_repository_is_recorded_without_secrets(folder: Folder, url: str, kept: str) -> None:
    """The remote's address says where the code came from and gives no password away."""
    _git(folder.root, "init", "-q", "-b", "main")
    _git(folder.root, "remote", "add", "origin", url)
    _git(folder.root, "add", "*.py")
    _git(folder.root, "commit", "-q", "-m", "first")
    code = run_code(folder.project, folder.manifest(), folder.store)
    assert code["repo"] == kept and "secret" not in str(code)


def test_git_that_is_not_there(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git records what it can."""
    monkeypatch.setenv("PATH", "")
    assert set(run_code(folder.project, folder.manifest(), folder.store)) == {"snapshot", "manifest"}


def test_runtime_with_and_without_a_lock(folder: Folder) -> None:
    """The declared lock is recorded; without one, what is installed."""
    told = run_runtime(folder.project, threads=1)
    assert told["lock_of"] == "installed packages" and told["lock"].startswith("sha256:")
    assert any(name.startswith("msgspec-") for name in installed())
    assert declared_runtime(folder.project)["lock"] == ""
    folder.write("lock.txt", "x==1")
    folder.write("trimtab.yaml", "project: p\nmodules: [steps]\nlock: lock.txt\n")
    told = run_runtime(folder.project, threads=1)
    assert told["lock_of"] == "lock.txt" and told["lock"] == digest_bytes(b"x==1")
    assert declared_runtime(folder.project)["lock"] == digest_bytes(b"x==1")


def test_somebody_always_acts() -> None:
    """The account that runs the process has a name."""
    assert actor()
