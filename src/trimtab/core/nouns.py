"""The eight nouns: what should be is an Asset, what happened is a Run, what is is a Version.

Times are aware UTC event times unless a field says otherwise. Free-form fields hold plain data (what JSON
can say), so that every noun has canonical bytes and can be stored, sent and compared.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

Status = Literal["pass", "warn", "fail", "inconclusive"]
RunState = Literal["running", "done", "failed", "cancelled", "lost"]
VersionState = Literal["candidate", "published", "refused"]
Data = dict[str, Any]


class Asset(Struct, frozen=True, kw_only=True):
    """A named, declared thing that someone relies on.

    Attributes:
        kind: source, table, features, model, check, report ... (open, by entry point).
        spec: the declaration's options as data.
    """

    id: str
    name: str
    kind: str
    spec: Data
    created_at: datetime
    workspace: str = "default"


class Version(Struct, frozen=True, kw_only=True):
    """One immutable, content-addressed value of an asset, made by one run.

    Attributes:
        number: 1, 2, 3 ... within its asset.
        digest: of the content; many versions may share one.
        state: ``candidate`` until its gate has spoken, then ``published`` or ``refused``.
        location: where the content lies; the keys depend on the kind (see ``store.tables``, ``store.blobs``).
        meta: facts about the content that later steps need (rows, schema, time range, signature ...).
    """

    id: str
    asset_id: str
    asset: str
    kind: str
    number: int
    digest: str
    run_id: str
    state: VersionState
    location: Data
    meta: Data
    created_at: datetime
    environment: str = "dev"

    @property
    def ref(self) -> str:
        """The reference of exactly this version, such as ``flights:3``."""
        return f"{self.asset}:{self.number}"


class Run(Struct, frozen=True, kw_only=True):
    """One recorded act: who, what, when, with which code, data, parameters and runtime, and what came of it.

    Attributes:
        kind: make, gate, apply, rollout, label, fold, automation, override, grant ...
        name: what it was about, usually an asset or endpoint.
        key: the cache key of a step, or an empty string.
        code: ``{digest, snapshot, commit, dirty, diff, branch}`` as far as they are known.
        runtime: ``{lock, python, platform, threads}``.
        started_at: real start, event time; ``ended_at`` is None while it runs.
        error: ``{type, message, where, fix, traceback}`` of what ended it, or empty.
        facts: whatever else the act has to say (rows in and out, seconds, decisions).
    """

    id: str
    kind: str
    name: str
    state: RunState
    started_at: datetime
    ended_at: datetime | None = None
    actor: str = ""
    parent_id: str = ""
    attempt: int = 1
    key: str = ""
    key_fields: Data = field(default_factory=dict)
    seed: int = 0
    params: Data = field(default_factory=dict)
    code: Data = field(default_factory=dict)
    runtime: Data = field(default_factory=dict)
    error: Data = field(default_factory=dict)
    facts: Data = field(default_factory=dict)
    log: str = ""
    environment: str = "dev"
    workspace: str = "default"


class Check(Struct, frozen=True, kw_only=True):
    """A predicate over versions or over a window, as data; rooms resolve what it measures.

    Attributes:
        name: unique within what it is attached to, such as ``unique(flight_id)``.
        kind: which judgement it is (``unique``, ``missing``, ``metric``, ``beats``, ``drift`` ...).
        params: the arguments, as data.
        severity: what a broken check means: ``fail`` refuses, ``warn`` only tells.
    """

    name: str
    kind: str
    params: Data
    severity: Literal["fail", "warn"] = "fail"

    @property
    def fails(self) -> Condition:
        """The condition that this check's verdict is ``fail``; for ``tt.when``."""
        return Condition(check=self, status="fail")

    @property
    def passes(self) -> Condition:
        """The condition that this check's verdict is ``pass``; for ``tt.when``."""
        return Condition(check=self, status="pass")


class Condition(Struct, frozen=True, kw_only=True):
    """A check together with the verdict that is waited for."""

    check: Check
    status: Status


class Verdict(Struct, frozen=True, kw_only=True):
    """What a check said about something, with the evidence.

    Attributes:
        subject: the id (or reference) of the version, endpoint or run that was judged.
        evidence: numbers and their meaning: observed, limit, rows, interval, e-value ...
        reason: one sentence for a person.
    """

    check: str
    status: Status
    subject: str
    evidence: Data
    reason: str
    at: datetime
    id: str = ""
    run_id: str = ""
    kind: str = ""


class Endpoint(Struct, frozen=True, kw_only=True):
    """A stable address whose traffic is split over deployments.

    Attributes:
        spec: serves, rollout plan, sticky key, limits: the declaration as data.
        traffic: deployment id -> share in percent; sums to 0 or 100.
        epoch: counts the changes of traffic; compare-and-set uses it.
    """

    id: str
    name: str
    spec: Data
    traffic: dict[str, float]
    epoch: int
    created_at: datetime
    environment: str = "dev"
    workspace: str = "default"


DeploymentState = Literal["starting", "ready", "draining", "stopped", "failed"]


class Deployment(Struct, frozen=True, kw_only=True):
    """One immutable revision that an endpoint can send traffic to: a version, its runtime and resources.

    Attributes:
        desired: ``up`` or ``down``: what the supervisor should make true.
        state: what is true.
        reason: why it is in that state, for a person.
    """

    id: str
    endpoint_id: str
    number: int
    version_id: str
    runtime: Data
    desired: Literal["up", "down"]
    state: DeploymentState
    reason: str
    created_at: datetime


class Automation(Struct, frozen=True, kw_only=True):
    """When an event, verdict or clock says so, then run, roll out, roll back or notify."""

    id: str
    name: str
    spec: Data
    enabled: bool
    created_at: datetime
    environment: str = "dev"
    workspace: str = "default"


class Environment(Struct, frozen=True, kw_only=True):
    """dev, test or prod: where names resolve, things are kept and run."""

    name: str
    spec: Data
    workspace: str = "default"


class Case(Struct, frozen=True, kw_only=True):
    """An open matter that waits for people; closed only by a deciding run."""

    id: str
    kind: str
    title: str
    state: Literal["open", "closed"]
    opened_at: datetime
    subject: str = ""
    owner: str = ""
    closed_by: str = ""
    facts: Data = field(default_factory=dict)
