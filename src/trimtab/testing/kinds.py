"""Step kinds whose values are JSON in blobs: for tests, benchmarks and as an example of a kind of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from trimtab.core.clock import to_micros
from trimtab.core.declare import Declaration
from trimtab.core.nouns import Data, Verdict, Version, VersionState
from trimtab.pipeline.files import FileDigests
from trimtab.pipeline.kinds import Made, StepContext, StepResult
from trimtab.store.store import Store

JSON_KINDS = {
    "source": "trimtab.testing.kinds:JsonStep",
    "table": "trimtab.testing.kinds:JsonStep",
    "features": "trimtab.testing.kinds:JsonStep",
    "model": "trimtab.testing.kinds:JsonModel",
}
"""All kinds as JSON; give it to ``override_kinds``."""


def read_json(store: Store, version: Version) -> Any:
    """Return the value that a JSON version holds."""
    return msgspec.json.decode(store.blobs.get(version.location["blob"]))


class JsonStep:
    """Makes a JSON value by calling the function; a value ``{"refuse": reason}`` fails its gate.

    A source with ``path`` gets the texts of its files by name instead of calling its function.
    """

    ops: tuple[str, ...] = ("make",)

    def fingerprint(self, declaration: Declaration, project_root: Path, digests: FileDigests) -> Data:
        """Return the digests of a source's files."""
        return {str(path.relative_to(project_root)): digests.digest(path) for path in _files(declaration, project_root)}

    def references(self, declaration: Declaration, op: str) -> list[str]:
        """Return nothing: a JSON step looks at its inputs only."""
        return []

    def run(self, context: StepContext) -> StepResult:
        """Call the function and keep what it returns."""
        value = self.value(context)
        refused = isinstance(value, dict) and "refuse" in value
        made = keep_json(context, value, "refused" if refused else "published")
        verdicts = []
        if refused:
            verdicts.append(_verdict(context, "refuse", "fail", str(value["refuse"])))
        return StepResult(made=[made], verdicts=verdicts, facts={"rows_out": 1})

    def value(self, context: StepContext) -> Any:
        """Return what the function makes of its inputs and params."""
        files = _files(context.declaration, context.project_root)
        if files:
            return {path.name: path.read_text() for path in files}
        inputs = {name: read_json(context.store, version) for name, version in context.inputs.items()}
        return context.function(**inputs, **context.params)


class JsonModel(JsonStep):
    """Makes a JSON value with a ``score``; its gate wants a higher one than the champion's.

    With ``refit=True`` a candidate that passed is made once more, as a refit.
    """

    ops: tuple[str, ...] = ("make", "gate")

    def references(self, declaration: Declaration, op: str) -> list[str]:
        """Return the champion, for the gate."""
        return [f"{declaration.name}@champion"] if op == "gate" else []

    def run(self, context: StepContext) -> StepResult:
        """Make a candidate, or judge one."""
        if context.op == "make":
            return StepResult(made=[keep_json(context, self.value(context), "candidate")], facts={"rows_in": 1})
        candidate = context.inputs["candidate"]
        champion = context.references[f"{context.declaration.name}@champion"]
        score = read_json(context.store, candidate)["score"]
        bar = read_json(context.store, champion)["score"] if champion else float("-inf")
        passed = champion is None or champion.digest == candidate.digest or score > bar
        verdict = _verdict(context, "beats", "pass" if passed else "fail", f"{score} against {bar}")
        decision: VersionState = "published" if passed else "refused"
        refits = [self._refit(context, candidate)] if passed and context.declaration.spec.get("refit") else []
        return StepResult(
            made=refits,
            metrics=[("score", 0, float(score))],
            verdicts=[verdict],
            decisions=[(candidate.id, decision)],
            facts={"bar": None if champion is None else bar},
        )

    def _refit(self, context: StepContext, candidate: Version) -> Made:
        made = keep_json(context, {"refit": True, **read_json(context.store, candidate)}, "published")
        return msgspec.structs.replace(made, meta={**made.meta, "refit_of": candidate.id})


def keep_json(context: StepContext, value: Any, state: VersionState) -> Made:
    """Return ``value`` as a version of the step's asset, kept in a blob."""
    content = msgspec.json.encode(value, order="deterministic")
    blob = context.store.blobs.put(content)
    declaration = context.declaration
    return Made(
        asset=declaration.name,
        kind=declaration.kind,
        digest=blob,
        state=state,
        location={"blob": blob},
        meta={"bytes": len(content), "at": to_micros(context.now)},
    )


def _files(declaration: Declaration, root: Path) -> list[Path]:
    patterns = declaration.spec.get("path") or [] if declaration.kind == "source" else []
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def _verdict(context: StepContext, check: str, status: Any, reason: str) -> Verdict:
    subject = "candidate" if context.op == "gate" else ""
    return Verdict(check=check, status=status, subject=subject, evidence={}, reason=reason, at=context.now, kind=check)
