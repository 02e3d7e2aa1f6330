"""What a script is recorded with: its files by content, what git knows, and what is installed."""

from __future__ import annotations

import platform
from pathlib import Path

from trimtab.core.digest import digest
from trimtab.core.nouns import Data
from trimtab.pipeline.runtime import git_code, installed
from trimtab.store.store import Store

MOST = 2000
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist", "mlruns"})


def code_of(script: Path, store: Store) -> Data:
    """Return what identifies a script's code.

    Args:
        script: the file; Python files beside and below it count as well, those of environments and hidden ones not.
        store: keeps the contents.

    Returns:
        ``{"script", "files", "complete", "snapshot"}`` and what git knows: ``files`` maps a path to the digest of the
        blob with its content, ``snapshot`` is the digest of all of them, and ``complete`` is false where there are
        more than ``MOST`` files, of which the others are not kept.
    """
    root = script.resolve().parent
    found = _files(root, script.resolve())
    files = {path.relative_to(root).as_posix(): store.blobs.put_file(path) for path in found[:MOST]}
    code: Data = {"script": script.name, "files": files, "complete": len(found) <= MOST, "snapshot": digest(files)}
    return code | git_code(root, store, without=[store.home.root])


def _files(root: Path, script: Path) -> list[Path]:
    found, folders = [script], [root]
    while folders and len(found) <= MOST:
        for path in sorted(folders.pop().iterdir()):
            if path.is_symlink() or path.name.startswith(".") or path.name in _PASSED_OVER:
                continue
            if path.is_dir() and not (path / "pyvenv.cfg").exists():
                folders.append(path)
            elif path.suffix == ".py" and path != script and path.is_file():
                found.append(path)
    return found


def runtime_of(store: Store) -> Data:
    """Return the interpreter, the platform, and the digest of the blob that lists what is installed."""
    packages = store.blobs.put("\n".join(installed()).encode())
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": packages}
