"""How models are made and gated. Light to import: engines and frameworks are imported when a step runs."""

from __future__ import annotations

from pathlib import Path

from trimtab.core.declare import Declaration
from trimtab.core.nouns import Data
from trimtab.pipeline.files import FileDigests
from trimtab.pipeline.kinds import StepContext, StepResult
from trimtab.train.candidate import make_model
from trimtab.train.judge import champion_of, gate_model


class ModelStep:
    """``make`` fits and packages a candidate; ``gate`` judges it on rows that it never saw, and may refit it."""

    ops: tuple[str, ...] = ("make", "gate")

    def fingerprint(self, declaration: Declaration, project_root: Path, digests: FileDigests) -> Data:
        """Return nothing: a model depends on its code, inputs, params and seed only."""
        return {}

    def references(self, declaration: Declaration, op: str) -> list[str]:
        """Return the champions that the gate compares with."""
        if op != "gate":
            return []
        checks = [check for check in declaration.checks if check.kind == "beats"]
        return list(dict.fromkeys(champion_of(declaration, check) for check in checks))

    def run(self, context: StepContext) -> StepResult:
        """Fit, or judge."""
        return gate_model(context) if context.op == "gate" else make_model(context)
