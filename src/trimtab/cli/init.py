"""``trimtab init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trimtab.cli.output import Json, emit
from trimtab.deliver.ci import write_workflow
from trimtab.deliver.init import init_project


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @app.command("init")
    def init(
        folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path(),
        ci: Annotated[
            Literal["github", "azure"] | None,
            typer.Option("--ci", help="Write a workflow that plans, runs and gates pull requests."),
        ] = None,
        as_json: Json = False,
    ) -> int:
        """Write a small working project, or with --ci a workflow into an existing one."""
        written = [] if ci and (folder / "trimtab.yaml").exists() else init_project(folder)
        if ci:
            written.append(write_workflow(folder, ci))
        names = [str(path) for path in written]
        emit({"written": names}, as_json, lambda: print("\n".join(f"wrote {name}" for name in names)))
        if not as_json:
            print(f"\nnext: cd {folder} && trimtab run && trimtab apply && trimtab up")
        return 0
