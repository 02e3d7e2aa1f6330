"""The steps that make sources, tables and feature sets.

Light to import: the planner asks for fingerprints here, and engines are imported only when a step runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.check import declare as ck
from trimtab.core.clock import monotonic
from trimtab.core.declare import SQL, Declaration
from trimtab.core.errors import BadInput, BadSource, ProjectError, closest
from trimtab.core.nouns import Check, Data
from trimtab.data.bronze import build_source
from trimtab.data.duck import run_step
from trimtab.data.frames import to_arrow
from trimtab.data.publish import inputs_size, publish, quarantine_of, sets_aside
from trimtab.pipeline.files import FileDigests
from trimtab.pipeline.kinds import ALWAYS, StepContext, StepResult


class SourceStep:
    """Appends new and changed files, as received, to a bronze table.

    A source without ``path`` runs each time; the rows that its function returns replace those before when
    they have changed.
    """

    ops: tuple[str, ...] = ("make",)

    def fingerprint(self, declaration: Declaration, project_root: Path, digests: FileDigests) -> Data:
        """Return the digest of each file of the source, by its path relative to the project folder.

        Hidden files and folders are left out.

        Raises:
            BadSource: a glob matches no file.
            ProjectError: a glob leaves the project folder.
        """
        patterns: Sequence[str] = declaration.spec["path"]
        if not patterns:
            return ALWAYS
        files = {path for pattern in patterns for path in _matches(declaration, project_root, pattern)}
        return {path: digests.digest(project_root / path) for path in sorted(files)}

    def references(self, declaration: Declaration, op: str) -> list[str]:
        """Return nothing: a source looks at its files only."""
        return []

    def makes(self, declaration: Declaration) -> dict[str, str]:
        """Return the quarantine table, if checks may set rows aside."""
        return _quarantine(declaration, declaration.checks)

    def run(self, context: StepContext) -> StepResult:
        """Receive what is new and publish the next bronze version, or refuse it."""
        return build_source(context)


class TableStep:
    """Makes a silver or gold table from frames or SQL and publishes it if its gate passes."""

    ops: tuple[str, ...] = ("make",)

    def fingerprint(self, declaration: Declaration, project_root: Path, digests: FileDigests) -> Data:
        """Return nothing: a table depends on its code and inputs only."""
        return {}

    def references(self, declaration: Declaration, op: str) -> list[str]:
        """Return nothing: a table looks at its inputs only."""
        return []

    def makes(self, declaration: Declaration) -> dict[str, str]:
        """Return the quarantine table, if checks may set rows aside."""
        return _quarantine(declaration, self.checks(declaration))

    def run(self, context: StepContext) -> StepResult:
        """Call the function, judge what it returns in one pass, and publish or refuse it.

        Raises:
            BadInput: the function returned no frame, or a column cannot be kept or judged.
        """
        began = monotonic()
        declaration = context.declaration
        what = f"what {declaration.name}() returned"
        inputs = {name: context.load(name) for name in declaration.inputs}
        made: Any = context.function(**inputs, **context.params)
        if isinstance(made, SQL):
            table = run_step(made, inputs, what=f"{declaration.name}()", where=declaration.where)
        else:
            table = to_arrow(made, what=what, where=declaration.where)
        self.look(declaration, table.schema.names)
        rows, size = inputs_size(context.inputs)
        checks = self.checks(declaration)
        return publish(context, table, checks, rows_in=rows, bytes_in=size, began=began)

    def checks(self, declaration: Declaration) -> Sequence[Check]:
        """Return what a version is judged by."""
        return declaration.checks

    def look(self, declaration: Declaration, columns: Sequence[str]) -> None:
        """Raise if the table lacks what its kind needs."""


class FeaturesStep(TableStep):
    """Makes a feature set: a table with one row for each entity and time, none of them missing."""

    def checks(self, declaration: Declaration) -> Sequence[Check]:
        """Return the declared checks behind those that make a point-in-time join well-defined."""
        key: Sequence[str] = declaration.spec["key"]
        own = [ck.unique(*key), *[ck.missing(name) for name in key]]
        names = {check.name for check in own}
        return [*own, *[check for check in declaration.checks if check.name not in names]]

    def look(self, declaration: Declaration, columns: Sequence[str]) -> None:
        """Check that entity and time are there.

        Raises:
            BadInput: one is not; the closest column is named.
        """
        for name in declaration.spec["key"]:
            if name not in columns:
                raise BadInput(
                    f"feature set {declaration.name} returned no column {name!r}{closest(name, columns)}",
                    where=declaration.where,
                    fix=f"it returned {', '.join(columns)}",
                )


def _quarantine(declaration: Declaration, checks: Sequence[Check]) -> dict[str, str]:
    return {quarantine_of(declaration.name): "table"} if sets_aside(checks) else {}


def _matches(declaration: Declaration, root: Path, pattern: str) -> list[str]:
    """Return the files that a glob below ``root`` matches, as relative paths with ``/``."""
    parts = Path(pattern).parts
    if not pattern or Path(pattern).is_absolute() or ".." in parts:
        raise ProjectError(
            f"path={pattern!r} is not a glob below the project folder",
            where=declaration.where,
            fix="such as 'data/flights-*.csv'; link files that lie elsewhere into the folder",
        )
    hidden = any(part.startswith(".") for part in parts)
    found = [path.relative_to(root) for path in root.glob(pattern) if path.is_file()]
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            raise BadSource("the name of this file is not UTF-8", where=shown, fix="rename it") from error
    names = [path.as_posix() for path in found if hidden or not any(part.startswith(".") for part in path.parts)]
    if not names:
        raise BadSource(
            f"source {declaration.name}: no file matches {pattern!r}",
            where=declaration.where,
            fix=f"put files there, below {root}, or mend path=",
        )
    return names
