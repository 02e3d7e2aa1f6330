"""How sources, tables and feature sets are made: stage, judge in one pass, quarantine, commit.

Light to import: the planner asks for fingerprints; the engines are imported when a step runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.check import declare as ck
from trimtab.core.declare import SQL, Declaration
from trimtab.core.errors import BadInput, BadSource
from trimtab.core.nouns import Check, Data
from trimtab.data.build import build_source, build_table
from trimtab.data.frames import to_arrow
from trimtab.data.sql import run_step
from trimtab.pipeline.files import FileDigests
from trimtab.pipeline.kinds import ALWAYS, StepContext, StepResult


class SourceStep:
    """Appends what is new to a bronze table, as received."""

    ops = ("make",)

    def fingerprint(self, declaration: Declaration, project_root: Path, digests: FileDigests) -> Data:
        """Return the digest of every file that the source's globs match.

        Raises:
            BadSource: a glob matches nothing, or leaves the project folder.
        """
        patterns = declaration.spec["path"]
        if not patterns:
            return ALWAYS
        found: dict[str, str] = {}
        for pattern in patterns:
            for path in _matches(declaration, project_root, pattern):
                found[path.relative_to(project_root).as_posix()] = digests.digest(path)
        return {"files": found}

    def references(self, declaration: Declaration, op: str) -> list[str]:
        """Return nothing: a source looks at no other version."""
        return []

    def run(self, context: StepContext) -> StepResult:
        """Read new and changed files and publish the next bronze version."""
        return build_source(context)


class TableStep:
    """Makes a silver or gold table from frames or SQL."""

    ops = ("make",)

    def fingerprint(self, declaration: Declaration, project_root: Path, digests: FileDigests) -> Data:
        """Return nothing: a table depends on its code and inputs only."""
        return {}

    def references(self, declaration: Declaration, op: str) -> list[str]:
        """Return nothing: a table looks at no other version."""
        return []

    def makes(self, declaration: Declaration) -> dict[str, str]:
        """Return the quarantine table beside the table."""
        return {f"{declaration.name}.quarantine": "table"}

    def run(self, context: StepContext) -> StepResult:
        """Call the function, judge what it returns, and publish it or keep the old version."""
        return build_table(context, self.table(context), self.checks(context))

    def table(self, context: StepContext) -> Any:
        """Return what the function makes, as an Arrow table."""
        declaration = context.declaration
        inputs = {name: context.load(name) for name in declaration.inputs}
        made = context.function(**inputs, **context.params)
        if isinstance(made, SQL):
            frames = {name: context.load(name, "pa.Table") for name in declaration.inputs}
            return run_step(made, frames, where=declaration.where)
        return to_arrow(made, what=f"what {declaration.name} returned")

    def checks(self, context: StepContext) -> Sequence[Check]:
        """Return the checks that the version is judged by."""
        return context.declaration.checks


class FeaturesStep(TableStep):
    """Makes a feature set: a table with one row for each entity and time."""

    def table(self, context: StepContext) -> Any:
        """Return what the function makes.

        Raises:
            BadInput: an entity or time column is not there.
        """
        made = super().table(context)
        for name in context.declaration.spec["key"]:
            if name not in made.schema.names:
                raise BadInput(
                    f"feature set {context.declaration.name} has no column {name!r}",
                    where=context.declaration.where,
                    fix=f"it has {', '.join(made.schema.names[:12])}",
                )
        return made

    def checks(self, context: StepContext) -> Sequence[Check]:
        """Return the declared checks and those that make a point-in-time join right."""
        key = context.declaration.spec["key"]
        own = [ck.unique(*key), *[ck.missing(name) for name in key]]
        return [*own, *context.declaration.checks]


def _matches(declaration: Declaration, root: Path, pattern: str) -> list[Path]:
    parts = Path(pattern).parts
    if Path(pattern).is_absolute() or ".." in parts:
        raise BadSource(
            f"path {pattern!r} leaves the project folder", where=declaration.where, fix="put or link the data below it"
        )
    found = sorted(path for path in root.glob(pattern) if path.is_file())
    if not found:
        raise BadSource(
            f"source {declaration.name}: no file matches {pattern!r}",
            where=declaration.where,
            fix=f"put files there (below {root})",
        )
    return found
