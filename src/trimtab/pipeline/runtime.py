"""What a run is recorded with: the code's version in git, the runtime's lock, interpreter and platform."""

from __future__ import annotations

import os
import platform
import pwd
import subprocess
import sys
from collections.abc import Sequence
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
        ``{snapshot, manifest}``, and what ``git_code`` gives for the project folder without its store and artifacts.
        ``dirty`` counts untracked files, which ``diff`` does not hold; the snapshot has those that are code.
    """
    kept = [project.store, *([Path(project.artifacts)] if project.artifacts and "://" not in project.artifacts else [])]
    code: Data = {"snapshot": manifest.snapshot_digest, "manifest": manifest.digest}
    return code | git_code(project.root, store, without=kept)


def git_code(root: Path, store: Store, *, without: Sequence[Path] = ()) -> Data:
    """Return what git knows of a folder; nothing outside of a checkout.

    Args:
        root: the folder.
        store: keeps the difference to the commit.
        without: paths that do not count.

    Returns:
        ``{repo, commit, branch, dirty}`` and, if dirty, ``diff``: the digest of the blob that holds the difference to
        the commit. ``repo`` is the address of the remote without a password, empty if there is none.
    """
    inside = [path.relative_to(root) for path in without if path.is_relative_to(root)]
    paths = ["--", ".", *(f":(exclude){path}" for path in inside)]
    status = _git(root, "status", "--porcelain=v2", "--branch", *paths)
    if status is None:
        return {}
    head, dirty = _read_status(status.decode("utf-8", "replace"))
    if not head.get("oid") or head["oid"] == "(initial)":
        return {"branch": head.get("head", ""), "dirty": True}
    remote = (_git(root, "remote", "get-url", head.get("upstream", "origin").partition("/")[0]) or b"").decode().strip()
    code: Data = {"repo": _plain_url(remote), "commit": head["oid"], "branch": head.get("head", ""), "dirty": dirty}
    if dirty:
        diff = _git(root, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD", *paths)
        if diff:
            code["diff"] = store.blobs.put(diff)
    return code


def _plain_url(url: str) -> str:
    """Return a remote's address without what may be a secret."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url  # a path, or user@host:path, which has no place for a password
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def actor() -> str:
    """Return who acts when nobody says so: the account that this process runs under."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


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


def _git(root: Path, *args: str) -> bytes | None:
    """Return what git says, or None without git, a checkout or a timely answer."""
    try:
        done = subprocess.run(
            ["git", *args],  # noqa: S607 - the user's own git, wherever it is installed
            cwd=root,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
