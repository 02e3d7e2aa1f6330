"""``trimtab import``: what another system recorded comes over into this project's store."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from trimtab.app import open_app
from trimtab.cli.output import Dir, Env, Json, emit, table
from trimtab.migrate.importing import bring_over, open_source
from trimtab.migrate.move import Watch
from trimtab.migrate.report import Report

_EVERY_S = 0.2
_SHOWN = 40


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Bring over what another system recorded.")
    app.add_typer(group, name="import")

    @group.callback()
    def root() -> None:
        """Bring over what another system recorded."""

    @group.command("mlflow")
    def from_mlflow(
        source: Annotated[
            str,
            typer.Argument(
                metavar="SOURCE", help="sqlite:///mlflow.db, postgresql://.., a folder such as ./mlruns, or http://.."
            ),
        ],
        experiment: Annotated[list[str] | None, typer.Option(help="Only this experiment; may be repeated.")] = None,
        artifacts: Annotated[
            str, typer.Option(help="The folder behind mlflow-artifacts:, where SOURCE is no server.")
        ] = "",
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be copied.")] = False,
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Copy the experiments, runs, models, registry and traces of MLflow; run it again to go on or to compare."""
        with (
            open_app(Path.cwd(), environment=env, store=store, actor="import") as opened,
            closing(open_source(source, artifacts=artifacts)) as found,
            _progress(quiet=as_json) as watch,
        ):
            report = bring_over(opened.store, found, names=frozenset(experiment or ()), dry=dry_run, watch=watch)
        emit(report.as_data(), as_json, lambda: _show(report, dry_run))
        return 0 if report.ok else 1


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Watch]:
    """Yield a callback that shows how far an import is, in one line of a terminal; a pipe is told nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda kind, done, whole: None
        return
    shown = 0.0

    def watch(kind: str, done: int, whole: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > _EVERY_S:
            shown = now
            print(f"\r\x1b[K{kind} {done}{f' of {whole}' if whole else ''}", end="", file=sys.stderr, flush=True)

    try:
        yield watch
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _show(report: Report, dry_run: bool) -> None:
    data = report.as_data()
    rows = [(kind, one["there"], one["copied"], one["already"]) for kind, one in data["counts"].items()]
    table(("", "there", "would be copied" if dry_run else "copied", "here before"), rows)
    for old, new in data["renumbered"].items():
        print(f"experiment {old} there is {new} here")
    for one in report.problems[:_SHOWN]:
        print(f"{one.why}: {' '.join(filter(None, (one.what, one.ident)))}: {one.reason}")
    more = len(report.problems) - _SHOWN + report.more
    if more > 0:
        print(f"and {more} more; --json names them")
