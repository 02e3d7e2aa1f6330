"""What commands print: tables for people, one JSON document with ``--json``, errors on both."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from trimtab.core.errors import TrimtabError
from trimtab.core.optional import need

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Env = Annotated[str, typer.Option("--env", help="The environment in which names resolve.")]
Dir = Annotated[Path | None, typer.Option("--dir", help="The store's folder; by default what trimtab.yaml says.")]

_PIPED = 200
_SENTENCE = 16
_DIGEST = len("sha256:") + 12  # enough to tell two apart; --json has all of it


def to_json(data: Any) -> str:
    """Return ``data`` as JSON text; numbers that JSON cannot say come as the texts NaN and Infinity."""
    return msgspec.json.format(msgspec.json.encode(_safe(msgspec.to_builtins(data))), indent=2).decode()


def _safe(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    return value


def emit(data: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print ``data`` as JSON, or let ``show`` print it for a person."""
    if as_json:
        print(to_json(data))
    else:
        show()


def console() -> Any:
    """Return a rich console on standard output; what is piped gets wide lines, so that words stay whole."""
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED
    return need("rich.console").Console(highlight=False, soft_wrap=False, width=wide)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """Print a table for a person."""
    box = need("rich.box")
    text = need("rich.text").Text
    grid = need("rich.table").Table(title=text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD)
    cells = [[_cell(value) for value in row] for row in rows]
    screen = console()
    whole = _unbroken(columns, cells, screen.width)
    for index, column in enumerate(columns):
        grid.add_column(text(column), overflow="fold", no_wrap=index in whole)
    for row in cells:
        grid.add_row(*[text(cell) for cell in row])
    screen.print(grid)


def _unbroken(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> set[int]:
    """Return which columns hold names only and fit as they are, so that only sentences are broken."""
    names = {index for index in range(len(columns)) if not any(" " in row[index] for row in cells)}
    needed = sum(max(len(row[index]) for row in [columns, *cells]) for index in names)
    return names if needed + _SENTENCE * (len(columns) - len(names)) + 2 * len(columns) <= width else set()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text[:_DIGEST] if text.startswith("sha256:") else text


def fail(error: Exception | None, *, as_json: bool) -> int:
    """Print an error and return the exit code that belongs to it; None stands for an interruption."""
    if error is None:
        text = "interrupted; what was finished is kept, run the same command again to go on"
        if as_json:
            print(to_json({"error": {"type": "Interrupted", "message": text, "where": "", "fix": ""}}))
        print(text, file=sys.stderr)
        return 130
    if isinstance(error, TrimtabError):
        code, data, text = error.exit_code, error.as_data(), str(error)
    elif hasattr(error, "exit_code") and hasattr(error, "format_message"):  # typer's usage errors
        text = str(error.format_message())
        code, data = 2, {"type": "WrongUse", "message": text, "where": "", "fix": "see trimtab --help"}
    elif type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    else:
        text = f"{type(error).__name__}: {error}"
        data = {"type": "Fault", "message": text, "where": "", "fix": "TRIMTAB_TRACEBACK=1 shows where"}
        code, text = 3, f"{text}\n  this is a fault in Trimtab; TRIMTAB_TRACEBACK=1 shows where"
    if os.environ.get("TRIMTAB_TRACEBACK"):
        traceback.print_exception(error)
    if as_json:
        print(to_json({"error": data}))
    print(f"error: {text}", file=sys.stderr)
    return code
