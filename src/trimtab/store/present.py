"""Whether what a version stands for is still on the disk; light enough to be asked of every step of a plan."""

from __future__ import annotations

import os
from urllib.parse import unquote

import msgspec

from trimtab.core.errors import WrongUse
from trimtab.core.ids import is_id
from trimtab.core.nouns import Data
from trimtab.store.store import Store


def missing(store: Store, location: Data) -> str:
    """Return the first file of a version that is not there any more, or an empty string.

    Only names are looked at: what is there may still have other content, which whoever reads it finds out.
    """
    digests = [*location.get("files", {}).values(), *([location["blob"]] if "blob" in location else [])]
    for digest in digests:
        try:
            if not store.blobs.has(digest):
                return f"blob {digest}"
        except WrongUse:
            return f"blob {digest}"
    if "delta_version" in location:
        return _missing_part(store, str(location["table"]), int(location["delta_version"]))
    return ""


def _missing_part(store: Store, table_id: str, version: int) -> str:
    """Replay a table's log up to a version and return the first file that is not in the folder."""
    folder = store.home.tables / table_id
    log = folder / "_delta_log"
    if not is_id(table_id) or not (log / f"{version:020d}.json").exists():
        return f"version {version} of table {table_id}"
    there = {entry.name for entry in os.scandir(folder)}
    wanted: dict[str, None] = {}
    for number in range(version + 1):
        commit = log / f"{number:020d}.json"
        if not commit.exists():  # cleaned up behind a checkpoint: what came before it is not told here
            continue
        for line in commit.read_bytes().splitlines():
            action = msgspec.json.decode(line)
            if "add" in action:
                wanted[unquote(action["add"]["path"])] = None
            elif "remove" in action:
                wanted.pop(unquote(action["remove"]["path"]), None)
    return next((f"{table_id}/{name}" for name in wanted if name not in there), "")
