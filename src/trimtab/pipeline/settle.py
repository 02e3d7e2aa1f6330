"""What becomes of a stage whose turn has come: reused, taken up again, refused, or run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trimtab.core.declare import Declaration
from trimtab.core.nouns import Data, Version
from trimtab.pipeline.fresh import stale_inputs
from trimtab.pipeline.plan import Stage
from trimtab.pipeline.steps import GATE, Steps


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do with a stage.

    Attributes:
        action: ``reuse`` the version ``hit``; take its content up ``again`` as a new version; ``refuse`` to
            train on stale inputs; or ``run``.
        inputs: what the step gets; a gate also gets ``candidate``.
        stale: why a rule forbids it; with ``run`` the rule was overridden.
        lost: it runs though it is cached, because files of what was made are gone.
    """

    action: Literal["reuse", "again", "refuse", "run"]
    key: str
    inputs: dict[str, Version]
    references: dict[str, Version | None]
    hit: Version | None = None
    stale: list[str] = field(default_factory=list)
    lost: bool = False

    @property
    def used(self) -> list[tuple[Version, str]]:
        """What lineage says the step used: its inputs by name, and the versions that it looked at."""
        found = [(version, name) for name, version in self.inputs.items()]
        for ref, version in self.references.items():
            if version is not None:
                found.append((version, ref.partition("@")[2] or "reference"))
        return found


def decide(steps: Steps, stage: Stage, node: Declaration, versions: Mapping[str, Version], overrides: Data) -> Decision:
    """Return what to do with a stage whose inputs are settled.

    Args:
        steps: keys and what is cached.
        stage: the stage.
        node: its asset's declaration.
        versions: asset -> the version that this execution goes on with.
        overrides: of the plan.
    """
    inputs = {name: versions[name] for name in node.inputs}
    references = steps.references(node, stage.op)
    if stage.op == GATE:
        candidate = versions[node.name]
        inputs["candidate"] = candidate
        key = steps.key(node, stage.op, inputs, references, stage.params, {})
        action: Literal["reuse", "run"] = "reuse" if steps.stands(candidate, key) else "run"
        return Decision(action=action, key=key, inputs=inputs, references=references, hit=candidate)
    key = steps.key(node, stage.op, inputs, references, stage.params, stage.fingerprint)
    hit = None if stage.fingerprint.get("always") else steps.find(key)
    lost = hit is not None and bool(steps.lost(hit))
    hit = None if lost else hit
    if hit is not None:
        again = steps.again(node, hit, inputs, stage.params)
        return Decision(action="again" if again else "reuse", key=key, inputs=inputs, references=references, hit=hit)
    stale = stale_inputs(steps, node, inputs) if node.kind == "model" else []
    return Decision(
        action="refuse" if stale and not overrides else "run",
        key=key,
        inputs=inputs,
        references=references,
        stale=stale,
        lost=lost,
    )
