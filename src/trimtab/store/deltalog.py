"""What a Delta table's log says, read without an engine: which files a version has, and what was dropped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

AFTER, UNTIL = "trimtab.dropped_after", "trimtab.dropped_until"


def log_key(table_id: str, number: int) -> str:
    """Return where the commit of a version lies."""
    return f"{table_id}/_delta_log/{number:020d}.json"


def actions_of(text: str) -> list[dict[str, Any]]:
    """Return the actions of a commit."""
    return [json.loads(line) for line in text.splitlines()]


def dropped_by(text: str) -> tuple[int, int] | None:
    """Return which versions a commit dropped (after the first, up to the second), if it is a rollback."""
    if AFTER in text:
        for action in actions_of(text):
            info = action.get("commitInfo", {})
            if AFTER in info:
                return int(info[AFTER]), int(info[UNTIL])
    return None


def replay(commits: Iterable[str]) -> list[str]:
    """Return the names of the files that a table has after these commits, oldest first."""
    named: dict[str, None] = {}
    for text in commits:
        for action in actions_of(text):
            if "add" in action:
                named[unquote(action["add"]["path"])] = None
            elif "remove" in action:
                named.pop(unquote(action["remove"]["path"]), None)
    return list(named)
