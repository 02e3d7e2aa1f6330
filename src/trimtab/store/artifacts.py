"""Artifacts by path: names in rows, contents in blobs; no path of a client is ever one of the file system."""

from __future__ import annotations

from msgspec import Struct

from trimtab.core.errors import BadInput, NotFound
from trimtab.store.ledger import Reader, Tx

PROXIED = ""
"""The root of what clients put through the artifact proxy."""
_LONGEST = 1000


class Artifact(Struct, frozen=True, kw_only=True):
    """A file, or a folder that exists because files lie below it."""

    path: str
    folder: bool = False
    size: int = 0
    blob: str = ""


def checked_path(path: str) -> str:
    """Return a path as it is kept: relative, with ``/``.

    Raises:
        BadInput: it is empty, absolute, too long, or has a part that a file system would read otherwise.
    """
    parts = path.split("/")
    odd = any(part in ("", ".", "..") for part in parts) or "\\" in path or any(ord(sign) < 32 for sign in path)
    if odd or len(path) > _LONGEST or (len(parts[0]) > 1 and parts[0][1] == ":"):
        raise BadInput("Invalid path", where=path[:200], fix="send a relative path with / between its parts")
    return path


def put_artifact(tx: Tx, root: str, path: str, *, blob: str, size: int, at: int) -> None:
    """Let a path hold a blob; what it held before is replaced.

    Raises:
        BadInput: the path is a folder, or lies below a file.
    """
    parents = [path[:place] for place, sign in enumerate(path) if sign == "/"]
    for parent in parents:
        if tx.query("SELECT 1 FROM artifact WHERE root=? AND path=?", (root, parent)):
            raise BadInput(f"{parent} is a file", where=path)
    if _below(tx, root, path):
        raise BadInput(f"{path} is a folder", where=path)
    tx.execute(
        "INSERT OR REPLACE INTO artifact(root, workspace, environment, path, blob, size, at) VALUES (?,?,?,?,?,?,?)",
        (root, tx.workspace, tx.environment, path, blob, size, at),
    )
    tx.note(path, artifact=blob, size=size)


def get_artifact(reader: Reader, root: str, path: str) -> Artifact:
    """Return the file at a path.

    Raises:
        NotFound: there is none.
    """
    rows = reader.query("SELECT blob, size FROM artifact WHERE root=? AND path=?", (root, path))
    if not rows:
        raise NotFound(f"No such artifact: '{path}'", where=path)
    return Artifact(path=path, blob=rows[0][0], size=rows[0][1])


def list_artifacts(reader: Reader, root: str, folder: str) -> list[Artifact]:
    """Return what lies directly in a folder (or at the top, for an empty path), by name; nothing if it is none."""
    prefix = f"{folder}/" if folder else ""
    found: list[Artifact] = []
    after = prefix
    while True:
        # "0" comes right after "/": what begins with the prefix is smaller than the prefix with its end raised.
        end = f"{folder}0" if folder else "\U0010ffff"
        sql = "SELECT path, size, blob FROM artifact WHERE root=? AND path>? AND path<? ORDER BY path LIMIT 1"
        rows = reader.query(sql, (root, after, end))
        if not rows:
            return found
        path, size, blob = rows[0]
        name, deeper, _ = path[len(prefix) :].partition("/")
        if deeper:
            found.append(Artifact(path=f"{prefix}{name}", folder=True))
            after = f"{prefix}{name}0"
        else:
            found.append(Artifact(path=path, size=size, blob=blob))
            after = path


def drop_artifacts(tx: Tx, root: str, path: str) -> int:
    """Remove a file, or all files of a folder, and return how many; their blobs stay until they are collected."""
    dropped = len(tx.execute("DELETE FROM artifact WHERE root=? AND path=? RETURNING 1", (root, path)))
    sql = "DELETE FROM artifact WHERE root=? AND path>? AND path<? RETURNING 1"
    dropped += len(tx.execute(sql, (root, f"{path}/", f"{path}0")))
    tx.note(path, dropped=dropped)
    return dropped


def _below(reader: Reader, root: str, path: str) -> bool:
    sql = "SELECT 1 FROM artifact WHERE root=? AND path>? AND path<? LIMIT 1"
    return bool(reader.query(sql, (root, f"{path}/", f"{path}0")))
