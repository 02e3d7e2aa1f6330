"""The frozen plan: the stages that ``execute`` will run, and why; a dry run cannot lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from trimtab.core.declare import Declaration
from trimtab.core.errors import NotFound, WrongUse, closest
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Version
from trimtab.pipeline.files import FileDigests
from trimtab.pipeline.fresh import stale_inputs
from trimtab.pipeline.graph import Graph, check_live
from trimtab.pipeline.keys import changes, in_words
from trimtab.pipeline.manifest import Manifest
from trimtab.pipeline.project import Project
from trimtab.pipeline.runtime import declared_runtime
from trimtab.pipeline.steps import Steps
from trimtab.store import facts
from trimtab.store.store import Store

Action = Literal["run", "reuse", "blocked"]


class Stage(Struct, frozen=True, kw_only=True):
    """One step of a plan.

    Attributes:
        id: ``op:asset``, such as ``make:flights`` or ``gate:delays``.
        action: ``run``, ``reuse``, or ``blocked`` by an input that is stale or failed its gate.
        reason: why, for a person.
        changed: the fields of the key that differ from the newest cached one.
        key: the step's key, or empty while it depends on a stage that runs first.
        after: the stages that come before it.
        version: the version that is reused, such as ``flights:3``, or empty.
        again: the reused content becomes a new version, so that it is current again or judged anew.
        params: the step's params, overrides included.
        fingerprint: what the step depends on outside the project's code and inputs.
    """

    id: str
    op: str
    asset: str
    action: Action
    reason: str
    changed: list[str] = field(default_factory=list)
    key: str = ""
    after: list[str] = field(default_factory=list)
    version: str = ""
    again: bool = False
    params: Data = field(default_factory=dict)
    fingerprint: Data = field(default_factory=dict)


class Plan(Struct, frozen=True, kw_only=True):
    """A frozen list of stages over one snapshot of the code.

    Attributes:
        at: event time.
        targets: what was asked for; empty means everything.
        snapshot: digest of the code that will run.
        manifest: digest of the manifest that the plan was made from.
        runtime: the declared runtime that keys contain.
        overrides: such as ``{"reason": text}``: train on a stale input all the same.
    """

    id: str
    at: datetime
    environment: str
    targets: list[str]
    stages: list[Stage]
    snapshot: str
    manifest: str
    runtime: Data
    overrides: Data


def make_plan(
    project: Project,
    manifest: Manifest,
    store: Store,
    targets: Sequence[str] = (),
    params: Mapping[str, Mapping[str, Any]] | None = None,
    overrides: Data | None = None,
) -> Plan:
    """Return what has to run so that ``targets`` are up to date, and why; nothing is changed.

    Args:
        project: the project.
        manifest: what it declares.
        store: where versions and cached steps are recorded.
        targets: asset names; by default all.
        params: asset -> param -> another value than its default.
        overrides: ``{"reason": text}`` lets models train on inputs that are stale or failed their gate.

    Raises:
        ProjectError: the declarations do not hang together, or the project file names others.
        NotFound: a target or an overridden param's asset does not exist.
        WrongUse: a param does not exist or its value is of another type than its default.
    """
    graph = Graph.build(manifest)
    check_live(project, manifest)
    chosen = graph.needed(targets)
    runtime = declared_runtime(project)
    values = _params(graph, params or {})
    steps = Steps(project, manifest, graph, store, runtime)
    digests = FileDigests(store.home.cache / "files.msgpack")
    planner = _Planner(steps, digests, values, overrides or {})
    stages = [stage for name in chosen for stage in planner.stages(graph.nodes[name])]
    digests.save()
    return Plan(
        id=new_id("pln"),
        at=steps.now,
        environment=store.ledger.environment,
        targets=list(targets),
        stages=stages,
        snapshot=manifest.snapshot_digest,
        manifest=manifest.digest,
        runtime=runtime,
        overrides=dict(overrides or {}),
    )


class _Planner:
    """Plans assets one by one, inputs first."""

    def __init__(self, steps: Steps, digests: FileDigests, params: Mapping[str, Data], overrides: Data) -> None:
        self._steps = steps
        self._digests = digests
        self._params = params
        self._overrides = overrides
        self._settled: dict[str, Version | None] = {}
        self._last: dict[str, str] = {}

    def stages(self, node: Declaration) -> list[Stage]:
        """Return the stages of one asset."""
        ops = self._steps.ops(node)
        made = self._make(node, ops[0])
        found = [made]
        for op in ops[1:]:
            found.append(self._gate(node, op, found[-1]))
        if found[-1].action != "reuse":
            self._settled[node.name] = None
        self._last[node.name] = found[-1].id
        return found

    def _make(self, node: Declaration, op: str) -> Stage:
        steps = self._steps
        extra = steps.kind(node).fingerprint(node, steps.project.root, self._digests)
        params = self._params.get(node.name, node.params)
        unmade = [name for name in node.inputs if self._settled[name] is None]
        inputs = {name: version for name in node.inputs if (version := self._settled[name]) is not None}
        references = steps.references(node, op)
        always = bool(extra.get("always"))
        key = "" if unmade else steps.key(node, op, inputs, references, params, extra)
        hit = steps.find(key) if key and not always else None
        lost = steps.lost(hit) if hit else ""
        hit = None if lost else hit
        self._settled[node.name] = hit
        action: Action = "reuse" if hit else "run"
        again = False
        changed: list[str] = []
        if hit is not None:
            again = steps.again(node, hit, inputs, params)
            reason = f"nothing changed since {hit.ref}" + (", which is taken up again" if again else "")
        else:
            fields = steps.fields(node, op, inputs, references, params, extra)
            changed, reason = self._why(node, op, fields, unmade, always)
            reason = f"its data is gone: {lost}" if lost else reason
            stale = [] if unmade or node.kind != "model" else stale_inputs(steps, node, inputs)
            if stale and not self._overrides:
                action, reason = "blocked", "; ".join(stale)
        return Stage(
            id=f"{op}:{node.name}",
            op=op,
            asset=node.name,
            action=action,
            reason=reason,
            changed=changed,
            key=key,
            after=list(dict.fromkeys(self._last[name] for name in node.inputs)),
            version=hit.ref if hit else "",
            again=again,
            params=params,
            fingerprint=extra,
        )

    def _gate(self, node: Declaration, op: str, before: Stage) -> Stage:
        """Return the stage that judges what the stage before it left; a standing decision is reused."""
        steps = self._steps
        candidate = self._settled[node.name]
        action: Action = "run" if before.action != "blocked" else "blocked"
        reason = f"{node.name} will be made anew" if before.action == "run" else before.reason
        key, version = "", ""
        changed: list[str] = []
        if candidate is not None:
            inputs = {name: found for name in node.inputs if (found := self._settled[name]) is not None}
            references = steps.references(node, op)
            key = steps.key(node, op, {**inputs, "candidate": candidate}, references, before.params, {})
            if steps.stands(candidate, key) and not before.again:
                refused = candidate.state == "refused"
                version = (candidate if refused else steps.standing(candidate) or candidate).ref
                action = "reuse"
                reason = f"{candidate.ref} {'was refused by' if refused else 'passed'} its gate"
            elif not before.again:
                reason = f"{candidate.ref} waits for its gate"
            else:
                judged = {**inputs, "candidate": candidate}
                fields = steps.fields(node, op, judged, references, before.params, {})
                changed, why = self._why(node, op, fields, [], False)
                reason = f"{candidate.ref} is judged anew: {why}" if changed else "it is judged anew"
        return Stage(
            id=f"{op}:{node.name}",
            op=op,
            asset=node.name,
            action=action,
            reason=reason,
            changed=changed,
            key=key,
            after=[before.id],
            version=version,
            params=before.params,
        )

    def _why(self, node: Declaration, op: str, fields: Data, unmade: list[str], always: bool) -> tuple[list[str], str]:
        """Return the fields that changed since the step last ran, and the reason in words."""
        last = facts.last_cache(self._steps.reader, node.name, op)
        waiting = [f"input {name} will be made anew" for name in unmade]
        if last is None:
            runs = facts.list_runs(self._steps.reader, kind=op, name=node.name, limit=1)
            first = f"not done yet: its last run is {runs[0].state}" if runs else "never run"
            return [], "; ".join([first, *waiting])
        # An input that is yet to be made is told as that, not as a change.
        pending = {f"inputs.{name}" for name in unmade}
        found = [change for change in changes(last.fields, fields) if change[0] not in pending]
        words = [in_words(found)] if found else []
        if always:
            words.append("it runs each time")
        return [name for name, _ in found], "; ".join([*words, *waiting]) or "its cached result is gone"


def _params(graph: Graph, overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Data]:
    """Return the params of the assets for which other values than the defaults were given."""
    found: dict[str, Data] = {}
    for asset, values in overrides.items():
        node = graph.node(asset)
        params = dict(node.params)
        for name, value in values.items():
            if name not in params:
                raise NotFound(
                    f"{asset} has no param {name!r}{closest(name, params)}",
                    where=node.where,
                    fix=f"its params are {', '.join(params) or '(none)'}",
                )
            params[name] = _agree(asset, name, params[name], value)
        found[asset] = params
    return found


def _agree(asset: str, name: str, default: Any, value: Any) -> Any:
    """Return ``value`` as a value of the default's type."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (
        default is None
        or type(default) is type(value)
        or (isinstance(default, tuple | list) and isinstance(value, tuple | list))
    ):
        return value
    raise WrongUse(
        f"param {name} of {asset} is {type(default).__name__} (default {default!r}), not {value!r}",
        fix=f"such as --param {asset}.{name}={default!r}",
    )
