"""Where in the user's code something was declared."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

_HERE = str(Path(__file__).parents[1])


def place_of(function: Any) -> str:
    """Return ``file:line`` of a function, or of the caller when it is not one."""
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else caller()


def caller_place() -> tuple[str, int]:
    """Return file and line of the nearest frame outside this package."""
    for frame in inspect.stack(context=0)[1:]:
        if not frame.filename.startswith(_HERE):
            return frame.filename, frame.lineno
    return "<unknown>", 0


def caller() -> str:
    """Return ``file:line`` of the nearest frame outside this package."""
    file, line = caller_place()
    return f"{file}:{line}"
