"""What a run is recorded with: the code's version in git, the runtime's lock, interpreter and platform."""

from __future__ import annotations

import os
import platform
import pwd
import subprocess
import sys
from pathlib import Path

from trimtab.core.digest import digest, digest_file
from trimtab.core.nouns import Data
from trimtab.pipeline.manifest import Manifest
from trimtab.pipeline.project import Project
from trimtab.store.store import Store

_TIMEOUT_S = 20.0


def declared_runtime(project: Project) -> Data:
    """Return the runtime that keys contain: the lock file's digest (or empty) and Python's minor version."""
    lock = digest_file(project.lock) if project.lock else ""
    return {"lock": lock, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def run_runtime(project: Project, *, threads: int) -> Data:
    """Return the runtime that a run records.

    ``lock`` is the digest of the declared lock file, or, without one, of the names and versions of all
    packages that are installed; ``lock_of`` says which of the two.
    """
    declared = project.lock is not None
    return {
        "lock": digest_file(project.lock) if project.lock else digest(installed()),
        "lock_of": project.lock.name if project.lock and declared else "installed packages",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": threads,
    }


def installed() -> list[str]:
    """Return ``name-version`` of every package that this interpreter finds, sorted."""
    found: set[str] = set()
    for entry in sys.path:
        folder = Path(entry or ".")
        if folder.is_dir():
            found |= {path.stem.lower() for path in folder.glob("*.dist-info")}
    return sorted(found)


def run_code(project: Project, manifest: Manifest, store: Store) -> Data:
    """Return what identifies the project's code: always the snapshot, and what git knows.

    Returns:
        ``{snapshot, manifest}``, and within a git checkout ``commit``, ``branch``, ``dirty`` and, if dirty, ``diff``:
        the digest of the blob that holds the difference to the commit. ``dirty`` counts untracked files below
        the project folder, which ``diff`` does not hold; the snapshot has those that are code.
    """
    code: Data = {"snapshot": manifest.snapshot_digest, "manifest": manifest.digest}
    status = _git(project, "status", "--porcelain=v2", "--branch", *_paths(project))
    if status is None:
        return code
    head, dirty = _read_status(status.decode("utf-8", "replace"))
    if not head.get("oid") or head["oid"] == "(initial)":
        return {**code, "branch": head.get("head", ""), "dirty": True}
    code |= {"commit": head["oid"], "branch": head.get("head", ""), "dirty": dirty}
    if dirty:
        diff = _git(project, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD", *_paths(project))
        if diff:
            code["diff"] = store.blobs.put(diff)
    return code


def actor() -> str:
    """Return who acts when nobody says so: the account that this process runs under."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _paths(project: Project) -> list[str]:
    """Return the paths that count: the project folder without its store and artifacts."""
    kept = [project.store, *([Path(project.artifacts)] if project.artifacts and "://" not in project.artifacts else [])]
    inside = [path.relative_to(project.root) for path in kept if path.is_relative_to(project.root)]
    return ["--", ".", *(f":(exclude){path}" for path in inside)]


def _read_status(text: str) -> tuple[dict[str, str], bool]:
    head: dict[str, str] = {}
    dirty = False
    for line in text.splitlines():
        if line.startswith("# branch."):
            name, _, value = line.removeprefix("# branch.").partition(" ")
            head[name] = value
        elif line and not line.startswith("#"):
            dirty = True
    return head, dirty


def _git(project: Project, *args: str) -> bytes | None:
    """Return what git says, or None without git, a checkout or a timely answer."""
    try:
        done = subprocess.run(
            ["git", *args],  # noqa: S607 - the user's own git, wherever it is installed
            cwd=project.root,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
