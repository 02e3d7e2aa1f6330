"""``trimtab list`` and ``trimtab runs``: what there is and what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.app import open_app
from trimtab.cli.output import Dir, Env, Json, emit, table
from trimtab.core.errors import NotFound, closest
from trimtab.store import facts
from trimtab.store.ledger import Reader

_KINDS = {"source", "table", "features", "model"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @app.command("list")
    def list_assets(
        kind: Annotated[str, typer.Argument(metavar="[KIND]", help="Only assets of this kind.")] = "",
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """List the project's assets with their current versions."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            ledger = opened.store.ledger
            kinds = sorted({one.kind for one in facts.list_assets(ledger)} | _KINDS)
            if kind and kind not in kinds:
                raise NotFound(f"there is no kind {kind!r}{closest(kind, kinds)}", fix=f"one of {', '.join(kinds)}")
            rows = []
            for asset in facts.list_assets(ledger, kind):
                current = facts.current(ledger, asset.name)
                newest = facts.newest(ledger, asset.name)
                rows.append(
                    {
                        "name": asset.name,
                        "kind": asset.kind,
                        "layer": asset.spec.get("layer"),
                        "current": current.number if current else None,
                        "newest": newest.number if newest else None,
                        "state": newest.state if newest else "never made",
                        "rows": current.meta.get("rows") if current else None,
                    }
                )
        columns = ("name", "kind", "layer", "current", "newest", "state", "rows")
        emit(
            {"assets": rows},
            as_json,
            lambda: table(columns, [[row[name] for name in columns] for row in rows]),
        )
        return 0

    @app.command("runs")
    def list_runs(
        name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only runs about this asset.")] = "",
        kind: Annotated[str, typer.Option(help="Only runs of this kind, such as make or gate.")] = "",
        state: Annotated[str, typer.Option(help="Only runs in this state.")] = "",
        limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 30,
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """List runs, newest first."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            ledger = opened.store.ledger
            runs = facts.list_runs(ledger, kind=kind, name=name, state=state, limit=limit)
            if name and not runs:
                _check_name(ledger, name)
        rows = [
            (run.id, run.kind, run.name, run.state, run.started_at.isoformat(timespec="seconds"), run.actor)
            for run in runs
        ]
        emit({"runs": runs}, as_json, lambda: table(("id", "kind", "name", "state", "started", "by"), rows))
        return 0


def _check_name(ledger: Reader, name: str) -> None:
    """Refuse a name that neither an asset nor a run has."""
    names = [one.name for one in facts.list_assets(ledger)]
    if name not in names and not facts.list_runs(ledger, name=name, limit=1):
        raise NotFound(f"nothing is called {name!r}{closest(name, names)}", fix="see `trimtab list`")
