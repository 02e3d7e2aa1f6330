"""The command line's front door: commands, and what errors look like to a shell."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from trimtab.cli import asset, endpoint, graph, imports, init, ledger, run, server, sql
from trimtab.cli.output import fail

app = typer.Typer(
    name="trimtab",
    help="Operates AI workloads end to end: data, models, endpoints, monitoring and retraining.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room in (init, run, endpoint, asset, graph, sql, ledger, server, imports):
    room.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"trimtab {version('trimtab')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the release and exit.")
    ] = False,
) -> None:
    """Trimtab operates AI workloads end to end."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=words, standalone_mode=False, prog_name="trimtab")
    except Exception as error:
        code = fail(error, as_json="--json" in words)
    except KeyboardInterrupt:
        code = fail(None, as_json="--json" in words)
    sys.exit(code if isinstance(code, int) else 0)
