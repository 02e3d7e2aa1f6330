"""``trimtab sql``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from trimtab.app import open_app
from trimtab.cli.output import Dir, Env, Json, emit, table
from trimtab.core.nouns import Data
from trimtab.data.sql import query
from trimtab.serve.fold import fold


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @app.command("sql")
    def sql(
        text: Annotated[str, typer.Argument(metavar="QUERY", help="DuckDB SQL; reading only.")],
        limit: Annotated[int, typer.Option(help="Rows to print at most; 0 for all. --json prints all.")] = 100,
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Query tables, quarantine (NAME.quarantine), calls, labels (ENDPOINT.calls) and records."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            if {"calls", "labels"} & set(re.findall(r"[a-z_]+", text.lower())):
                fold(opened.store)
            answer = query(opened.store, text, limit=None if as_json or limit <= 0 else limit)
        emit(answer, as_json, lambda: _show(answer))
        return 0


def _show(answer: Data) -> None:
    table(answer["columns"], answer["rows"])
    if answer["more"]:
        print(f"the first {len(answer['rows'])} rows; --limit 0 prints all")
