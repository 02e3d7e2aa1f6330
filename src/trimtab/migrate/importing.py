"""The whole move: experiments, runs, models, the registry and traces, in this order, and a count at the end."""

from __future__ import annotations

from pathlib import Path

from trimtab.migrate.asking import Server
from trimtab.migrate.database import DatabaseSource
from trimtab.migrate.files import FilesSource
from trimtab.migrate.models import move_models, move_registry
from trimtab.migrate.move import Move, Watch
from trimtab.migrate.report import Report
from trimtab.migrate.roots import Roots
from trimtab.migrate.runs import move_experiments, move_runs
from trimtab.migrate.server import ServerSource
from trimtab.migrate.source import Source
from trimtab.migrate.tables import Tables, open_rows
from trimtab.migrate.traces import move_traces
from trimtab.store.store import Store


def open_source(location: str, *, artifacts: str = "") -> Source:
    """Open what is left: a database, a folder or a server of MLflow.

    Args:
        location: ``sqlite:///mlflow.db``, ``postgresql://..``, ``./mlruns``, or ``http://..``.
        artifacts: the folder behind ``mlflow-artifacts:``, for a database or folder.

    Raises:
        NotFound: there is nothing.
        Unavailable: it does not answer.
        WrongUse: it is something else.
    """
    roots = Roots(Path(artifacts).resolve() if artifacts else None, Path.cwd())
    if location.startswith(("http://", "https://")):
        return ServerSource(Server(location), roots)
    path = Path(location.removeprefix("file://").removeprefix("file:"))
    if path.is_dir():
        return FilesSource(path, roots)
    return DatabaseSource(Tables(open_rows(location)), roots)


def bring_over(
    store: Store, source: Source, *, names: frozenset[str] = frozenset(), dry: bool = False, watch: Watch | None = None
) -> Report:
    """Copy what a source has into a store, and return what came over and what did not.

    It can be stopped at any point and begun again: each run, model, version and trace is one transaction, and what is
    here already is compared and not written again.

    Args:
        store: where it comes to.
        source: where it comes from.
        names: of the experiments that are meant; empty for everything.
        dry: only say what would be done.
        watch: is told how far it is.

    Raises:
        NotFound: the source has no experiment of a name that is wanted.
        Unavailable: the source or the store stopped answering; what is finished is kept.
    """
    move = Move(store, source, names=names, dry=dry, watch=watch or (lambda kind, done, whole: None))
    move_experiments(move)
    move.expected = source.counts(list(move.homes), not names)
    move_runs(move)
    move_models(move)
    move_registry(move)
    move_traces(move)
    move.tell_left()
    _compare(move)
    return move.report


def _compare(move: Move) -> None:
    """Hold what was counted there against what is here."""
    report = move.report
    for kind, count in move.expected.items():
        report.seen[kind] = count
    for kind, there in report.seen.items():
        here = report.copied[kind] + report.already[kind]
        if here != there:
            report.tell("difference", kind, "", f"{there} there, {here} here")
