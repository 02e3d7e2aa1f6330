"""Writes the pages in docs/reference from the code; ``--check`` says whether they are up to date."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer

import trimtab
from trimtab import check
from trimtab.cli.main import app
from trimtab.core import errors

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py; edit the docstrings instead. -->\n\n"


def cli() -> str:
    """Return the command reference as Markdown."""
    root: Any = typer.main.get_command(app)
    parts = [NOTE + "# Command line\n\n" + inspect.getdoc(inspect.getmodule(app_package())) + "\n"]
    context = root.make_context("trimtab", [], resilient_parsing=True)
    for name in sorted(root.list_commands(context)):
        command = root.get_command(context, name)
        inner = command.make_context(f"trimtab {name}", [], resilient_parsing=True, parent=None)
        usage = " ".join(command.collect_usage_pieces(inner))
        parts.append(f"## `trimtab {name}`\n\n```\ntrimtab {name} {usage}\n```\n\n{command.help or ''}\n")
        rows = []
        for parameter in command.params:
            names = ", ".join([*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "option" and not parameter.is_flag:
                names += f" {parameter.metavar or (parameter.name or '').upper()}"
            if parameter.param_type_name == "argument":
                names = (parameter.metavar or parameter.name or "").upper()
            rows.append(f"| `{names}` | {getattr(parameter, 'help', '') or ''} |")
        if rows:
            parts.append("| argument or option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def app_package() -> Any:
    """Return something that lives in ``trimtab.cli``, whose docstring states the exit codes."""
    return trimtab.cli.main


def describe(name: str, thing: Any) -> str:
    """Return one function or class as Markdown."""
    signature = f"{name}{inspect.signature(thing)}" if callable(thing) else name
    return f"### `{name}`\n\n```python\n{signature}\n```\n\n{inspect.getdoc(thing) or ''}\n"


def python() -> str:
    """Return the reference of the front door as Markdown."""
    parts = [NOTE + "# `import trimtab as tt`\n"]
    for name in trimtab.__all__:
        if name != "check":
            parts.append(describe(f"tt.{name}", getattr(trimtab, name)))
    parts.append("# Errors\n\n```\n" + (inspect.getdoc(errors) or "") + "\n```\n")
    return "\n".join(parts)


def checks() -> str:
    """Return the reference of the checks as Markdown."""
    parts = [NOTE + "# `from trimtab import check as ck`\n\n" + (inspect.getdoc(check.declare) or "") + "\n"]
    parts.extend(describe(f"ck.{name}", getattr(check, name)) for name in check.__all__)
    return "\n".join(parts)


def main() -> int:
    """Write the pages, or with ``--check`` compare them; return the exit code."""
    stale = []
    for name, text in (("cli", cli()), ("python", python()), ("checks", checks())):
        path = REFERENCE / f"{name}.md"
        text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(text)
    if stale and "--check" in sys.argv:
        print(f"out of date: {', '.join(stale)}; run: .venv/bin/python docs/generate.py")
        return 1
    print("reference pages are what the code says" if not stale else f"wrote {', '.join(stale)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
