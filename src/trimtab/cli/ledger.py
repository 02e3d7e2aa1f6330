"""``trimtab ledger``: look after the database that holds the records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.output import Dir, Json, emit, table
from trimtab.cli.server import project_here
from trimtab.core.errors import NotFound
from trimtab.pipeline.project import Project
from trimtab.store.catalogue import open_ledger
from trimtab.store.layout import Home
from trimtab.store.ledgercheck import Report, as_data, check_ledger
from trimtab.store.roots import choose
from trimtab.store.store import Store
from trimtab.store.transfer import Copied, copy_ledger, export_ledger, import_ledger, need_still

Url = Annotated[
    str, typer.Option("--ledger", metavar="URL|FILE", help="The ledger; by default the store's own, wherever it lies.")
]

File = Annotated[Path, typer.Argument(metavar="FILE", help="Holds the rows; made by export.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Check, copy, move and clean the ledger.")
    app.add_typer(group, name="ledger")

    @group.command("check")
    def check(
        deep: Annotated[bool, typer.Option("--deep", help="Read every blob and compare it with its digest.")] = False,
        as_json: Json = False,
        ledger: Url = "",
        store: Dir = None,
    ) -> int:
        """Say what in the ledger does not fit together, or is named and not there; 1 when there is something."""
        with _opened(store, ledger) as opened:
            report = check_ledger(opened.ledger, opened.blobs, deep=deep)
        emit(as_data(report), as_json, lambda: _checked(report))
        return 1 if report.found else 0

    @group.command("export")
    def export(file: File, as_json: Json = False, ledger: Url = "", store: Dir = None) -> int:
        """Write every row of the ledger, as it stands at one moment, to a file."""
        with _opened(store, ledger) as opened:
            copied = export_ledger(opened.ledger, file)
        _tell(copied, f"{copied.total} rows are in {file}; blobs and tables are not in it", as_json)
        return 0

    @group.command("import")
    def import_(file: File, as_json: Json = False, ledger: Url = "", store: Dir = None) -> int:
        """Put every row of a file into a new ledger: all of them, exactly, or nothing."""
        with _opened(store, ledger, new=True) as opened:
            copied = import_ledger(opened.ledger, file)
            where = opened.ledger.where
        _tell(copied, f"{copied.total} rows of {file} are in {where}", as_json)
        return 0

    @group.command("migrate")
    def migrate(
        target: Annotated[str, typer.Argument(metavar="URL|FILE", help="Empty: postgresql://..., or a file.")],
        as_json: Json = False,
        ledger: Url = "",
        store: Dir = None,
    ) -> int:
        """Copy every row of the ledger into another database: all of them, exactly, or nothing."""
        with _opened(store, ledger) as opened:
            need_still(opened.ledger)
            with open_ledger(target, actor="ledger") as other:
                copied = copy_ledger(opened.ledger, other)
                where = other.where
            text = (
                f"{copied.total} rows are in {where}; the ledger at {opened.ledger.where} is as it was.\n"
                f"Say `ledger: {where}` in trimtab.yaml, or start with `trimtab up --ledger {where}`"
            )
        _tell(copied, text, as_json)
        return 0


def _tell(copied: Copied, text: str, as_json: bool) -> None:
    emit({"rows": dict(copied.rows), "count": copied.total}, as_json, lambda: print(text))


@contextmanager
def _opened(store: Path | None, ledger: str, *, new: bool = False) -> Iterator[Store]:
    """Open a store as it stands: nothing is registered in it, and its folder remembers nothing new.

    Raises:
        NotFound: there is no store, or no ledger in it, and ``new`` ones are not wanted.
    """
    project = project_here()
    root = store or (project.store if project else Path.cwd() / ".trimtab")
    if not (new or root.is_dir()):
        raise NotFound(f"there is no store at {root}", where="--dir", fix="name its folder with --dir")
    home = Home(root)
    location = ledger or _location(home, project)
    if not (new or "://" in location or Path(location).is_file()):
        raise NotFound(f"there is no ledger at {location}", where="--ledger", fix="name its URL or file with --ledger")
    known = project if project and root == project.store else None
    roots, _ = choose(home, known.artifacts if known else "", known.options if known else {})
    with Store(home, open_ledger(location, actor="ledger"), roots) as opened:
        yield opened


def _location(home: Home, project: Project | None) -> str:
    """Return where the ledger of a store lies."""
    if home.ledger_url.exists():
        return home.ledger_url.read_text().strip()
    if home.ledger.exists() or project is None:
        return str(home.ledger)
    return project.ledger or str(home.ledger)


def _checked(report: Report) -> None:
    if report.problems:
        table(("check", "about", "what is wrong"), [(one.check, one.subject, one.message) for one in report.problems])
    for remark in report.remarks:
        print(remark)
    looked = f"{sum(report.rows.values())} rows of {sum(1 for rows in report.rows.values() if rows)} tables"
    named = "" if report.blobs is None else f", {report.blobs} blobs"
    verdict = f"{report.found} problems" if report.found else "all is well"
    print(f"{report.where}: {looked}{named}: {verdict}")
