"""What a step's key is and what is known about it; plan and executor ask the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trimtab.core.declare import Declaration
from trimtab.core.digest import digest
from trimtab.core.errors import NotFound
from trimtab.core.nouns import Data, Version
from trimtab.pipeline.graph import Graph
from trimtab.pipeline.keys import checks_by_name, key_fields, step_key
from trimtab.pipeline.kinds import StepKind, kind_named
from trimtab.pipeline.manifest import Manifest
from trimtab.pipeline.project import Project
from trimtab.store import facts
from trimtab.store.ledger import Reader
from trimtab.store.present import missing
from trimtab.store.store import Store

GATE = "gate"


class HasDigest(Protocol):
    """Something with a content digest."""

    @property
    def digest(self) -> str:
        """The digest."""
        ...


class Steps:
    """Keys and cached results of a project's steps in one store.

    Args:
        project: the project.
        manifest: what it declares.
        graph: how that hangs together.
        store: where results are recorded.
        runtime: the declared runtime (see ``runtime.declared_runtime``).
    """

    def __init__(self, project: Project, manifest: Manifest, graph: Graph, store: Store, runtime: Data) -> None:
        self.project = project
        self.manifest = manifest
        self.graph = graph
        self.store = store
        self.reader: Reader = store.ledger
        self.runtime = runtime
        self.now = store.now()
        self._runtime_digest = digest(runtime)
        self._kinds: dict[str, StepKind] = {}
        self._whole: dict[str, str] = {}

    def kind(self, node: Declaration) -> StepKind:
        """Return the step kind of an asset."""
        if node.kind not in self._kinds:
            self._kinds[node.kind] = kind_named(node.kind)
        return self._kinds[node.kind]

    def ops(self, node: Declaration) -> tuple[str, ...]:
        """Return the steps of an asset, in order."""
        return self.kind(node).ops

    def judged(self, node: Declaration, op: str) -> bool:
        """Say whether ``op`` judges by the asset's checks: its gate does, or ``make`` when it has none."""
        return op == GATE or GATE not in self.ops(node)

    def references(self, node: Declaration, op: str) -> dict[str, Version | None]:
        """Return what else the step looks at: reference -> version, or None where there is none yet."""
        found: dict[str, Version | None] = {}
        for ref in self.kind(node).references(node, op):
            try:
                found[ref] = facts.resolve(self.reader, ref)
            except NotFound:
                found[ref] = None
        return found

    def key(
        self,
        node: Declaration,
        op: str,
        inputs: Mapping[str, HasDigest],
        references: Mapping[str, Version | None],
        params: Data,
        extra: Data,
    ) -> str:
        """Return the key of a step."""
        return step_key(
            f"{op}:{node.name}",
            node,
            self.manifest,
            inputs={name: item.digest for name, item in inputs.items()},
            references={name: item.digest if item else "" for name, item in references.items()},
            params=params,
            runtime=self._runtime_digest,
            extra=extra,
            judged=self.judged(node, op),
        )

    def fields(
        self,
        node: Declaration,
        op: str,
        inputs: Mapping[str, HasDigest],
        references: Mapping[str, Version | None],
        params: Data,
        extra: Data,
    ) -> Data:
        """Return the fields of a step's key."""
        return key_fields(
            f"{op}:{node.name}",
            node,
            self.manifest,
            inputs={name: item.digest for name, item in inputs.items()},
            references={name: item.digest if item else "" for name, item in references.items()},
            params=params,
            runtime=self.runtime,
            extra=extra,
            judged=self.judged(node, op),
        )

    def find(self, key: str) -> Version | None:
        """Return the version that a step with this key made before, or None."""
        entry = facts.cache_get(self.reader, key)
        if entry is None or not entry.version_ids:
            return None
        return facts.get_version(self.reader, entry.version_ids[0])

    def lost(self, version: Version) -> str:
        """Return why a version cannot be reused though its step is cached: which file is gone; else nothing."""
        if version.id not in self._whole:
            self._whole[version.id] = missing(self.store, version.location)
        return self._whole[version.id]

    def again(self, node: Declaration, hit: Version, inputs: Mapping[str, Version], params: Data) -> bool:
        """Say whether a reused version's content has to become a new version.

        It has when the version is neither the current nor the newest of its asset, when it was refused by a gate
        that now looks at something else (another champion, other checks), and when it was published by other
        checks than those that are declared now.
        """
        if self._is_behind(hit):
            return True
        if GATE not in self.ops(node) or hit.state == "candidate":
            return False
        references = self.references(node, GATE)
        key = self.key(node, GATE, {**inputs, "candidate": hit}, references, params, {})
        return not self.stands(hit, key)

    def _is_behind(self, version: Version) -> bool:
        # The cheap question comes first: a plan asks it of every stage.
        newer = "SELECT 1 FROM version WHERE asset_id=? AND number>? AND environment=? LIMIT 1"
        if not self.reader.query(newer, (version.asset_id, version.number, self.reader.environment)):
            return False
        return self.standing(version) is None

    def standing(self, version: Version) -> Version | None:
        """Return the current version if it is ``version``, or what a gate refitted from it; else None."""
        current = facts.current(self.reader, version.asset)
        if current is None or version.id not in (current.id, current.meta.get("refit_of")):
            return None
        return current

    def stands(self, candidate: Version, key: str) -> bool:
        """Say whether a gate's decision about ``candidate`` stands and need not be made again.

        A refusal stands as long as nothing that the gate looks at has changed. What was published stays so until
        the checks change: another champion alone is no reason to judge it anew, for it is the champion.
        """
        if candidate.state == "refused":
            known = facts.cache_get(self.reader, key)
            return known is not None and candidate.id in known.version_ids
        if candidate.state != "published" and self.standing(candidate) is None:
            return False
        return self._same_checks(candidate)

    def _same_checks(self, candidate: Version) -> bool:
        """Say whether the gate that accepted a candidate had the checks that are declared now."""
        for run in facts.users_of(self.reader, candidate.id):
            if run.kind == GATE and run.state == "done":
                declared = checks_by_name(self.graph.nodes[candidate.asset])
                return digest(run.key_fields["checks"]) == digest(declared)
        return True
