"""What is watched, of which version, and the labelled answers that performance is told from.

Two signals are kept apart (R63): ``drift`` looks at inputs and predictions and needs no labels, ``performance``
looks at the loss of labelled answers. Both look only at rows that the champion answered: the version whose
training rows or held-back risk they are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from msgspec import Struct

from trimtab.check.declare import MONITOR_KINDS, drift, performance
from trimtab.check.histogram import same_class
from trimtab.core.declare import Action, check_from
from trimtab.core.digest import digest
from trimtab.core.nouns import Automation, Check, Data, Endpoint, Status, Version
from trimtab.store import calls, facts, live
from trimtab.store.ledger import Reader

EVER = 1 << 62


class Rule(Struct, frozen=True, kw_only=True):
    """An automation's condition and what follows it, read from the ledger.

    Attributes:
        endpoint: the endpoint that its check watches, or an empty string where it watches none.
    """

    automation: Automation
    check: Check
    status: Status
    actions: tuple[Action, ...]
    cooldown: str
    limit: str
    endpoint: str


class Watch(Struct, frozen=True, kw_only=True):
    """One check that watches one endpoint.

    Attributes:
        by_default: nobody declared it; it is on because a model is deployed, and only raises alarms.
    """

    endpoint: Endpoint
    check: Check
    by_default: bool

    @property
    def key(self) -> str:
        """Where the ledger keeps this watch's state; another declaration of the check starts anew."""
        mark = digest({"kind": self.check.kind, "params": self.check.params}).removeprefix("sha256:")[:16]
        return f"monitor/{self.endpoint.id}/{self.check.kind}/{mark}"


class Labelled(Struct, frozen=True, kw_only=True):
    """One answer and what turned out to be true.

    Attributes:
        at: event time of the call in microseconds.
        score: probability of the positive class (binary) or the predicted number (regression), else None.
        truth: 1.0 or 0.0 (binary), the number (regression); None for other tasks and for a label that the
            model cannot know.
        correct: the predicted class is the true one; None for regression and unknown labels.
    """

    prediction_id: str
    at: int
    arrived_at: int
    version_id: str
    task: str
    score: float | None
    truth: float | None
    correct: bool | None


def rules(reader: Reader) -> list[Rule]:
    """Return the rules of all automations, disabled ones included, by name."""
    return [rule_of(automation) for automation in live.list_automations(reader)]


def rule_of(automation: Automation) -> Rule:
    """Return an automation's rule from its spec."""
    spec = automation.spec
    check = check_from(spec["when"]["check"])
    return Rule(
        automation=automation,
        check=check,
        status=spec["when"]["status"],
        actions=tuple(Action(do=action["do"], target=action["target"]) for action in spec["actions"]),
        cooldown=spec.get("cooldown") or "0s",
        limit=spec.get("limit") or "",
        endpoint=watched_endpoint(check),
    )


def watched_endpoint(check: Check) -> str:
    """Return the name of the endpoint that a monitor check watches, or an empty string for another check."""
    if check.kind == "drift":
        return str(check.params["calls"]).removesuffix(".calls")
    return str(check.params["endpoint"]) if check.kind == "performance" else ""


def watches(reader: Reader) -> list[Watch]:
    """Return what is watched: the checks that automations wait for, and defaults for the rest.

    A model's endpoint is watched for drift and for performance also where nobody asked for it.
    """
    declared: dict[tuple[str, str], Watch] = {}
    endpoints = {endpoint.name: endpoint for endpoint in live.list_endpoints(reader)}
    for rule in rules(reader):
        endpoint = endpoints.get(rule.endpoint)
        if endpoint is not None and rule.check.kind in MONITOR_KINDS:
            watch = Watch(endpoint=endpoint, check=rule.check, by_default=False)
            declared.setdefault((endpoint.name, watch.key), watch)
    found = list(declared.values())
    for endpoint in endpoints.values():
        version = champion(reader, endpoint)
        if version is None or version.kind != "model":
            continue
        have = {watch.check.kind for watch in declared.values() if watch.endpoint.name == endpoint.name}
        found += [
            Watch(endpoint=endpoint, check=check, by_default=True)
            for check in default_checks(endpoint, version)
            if check.kind not in have
        ]
    return sorted(found, key=lambda watch: (watch.endpoint.name, watch.check.kind, watch.key))


def default_checks(endpoint: Endpoint, version: Version) -> list[Check]:
    """Return the checks with which a deployed model is watched when nothing is declared.

    Rows of one day are taken to be alike, so that the budget holds for streams with daily moods too.
    """
    checks = [drift(f"{endpoint.name}.calls", block="1d")] if version.meta.get("reference") else []
    risk = version.meta.get("risk") or {}
    if "brier" in risk:
        checks.append(performance(endpoint.name, on="brier", block="1d"))
    elif "error_rate" in risk:
        checks.append(performance(endpoint.name, on="error_rate", block="1d"))
    return checks


def champion(reader: Reader, endpoint: Endpoint) -> Version | None:
    """Return the version that an endpoint stands on: the stable one of a rollout, else that of most traffic."""
    active = live.active_rollout(reader, endpoint.id)
    shares = sorted(endpoint.traffic.items(), key=lambda item: (-item[1], item[0]))
    if not shares:
        return None
    chosen = shares[0][0]
    if active is not None and shares[0][1] < 100 and active.stable_id:
        chosen = active.stable_id
    return facts.get_version(reader, live.get_deployment(reader, chosen).version_id)


def labelled_rows(
    reader: Reader, endpoint_id: str, *, since: int | None = None, until: int | None = None
) -> Iterator[Labelled]:
    """Yield an endpoint's labelled answers by event time and id.

    Args:
        reader: the ledger.
        endpoint_id: whose answers.
        since: the first call time (microseconds) that counts.
        until: the call time before which a call must lie.
    """
    for row in calls.labelled(reader, endpoint_id, -EVER, EVER):
        if (since is None or row.call.at >= since) and (until is None or row.call.at < until):
            yield judge_row(reader, row)


def judge_row(reader: Reader, row: calls.LabelledCall) -> Labelled:
    """Return one answer with its truth in the terms of the version that gave it."""
    task, classes, positive = _terms(reader, row.call.version_id)
    score, truth, correct = row.call.score, None, None
    if task == "binary":
        if same_class(row.label, positive):
            truth = 1.0
        elif any(same_class(row.label, one) for one in classes):
            truth = 0.0
        if truth is not None and score is not None:
            correct = (score >= 0.5) == (truth > 0.5)
    elif task == "regression":
        value = row.call.prediction if score is None else score
        score = float(value) if isinstance(value, int | float) else None
        truth = float(row.label) if isinstance(row.label, int | float) else None
    elif any(same_class(row.label, one) for one in classes):
        correct = same_class(row.label, row.call.prediction)
    return Labelled(
        prediction_id=row.call.prediction_id,
        at=row.call.at,
        arrived_at=row.arrived_at,
        version_id=row.call.version_id,
        task=task,
        score=score,
        truth=truth,
        correct=correct,
    )


def _terms(reader: Reader, version_id: str) -> tuple[str, Sequence[object], object]:
    # A version never changes, so what was read of it once holds for as long as the process lives.
    known = _known_terms()
    if version_id not in known:
        meta: Data = facts.get_version(reader, version_id).meta
        known[version_id] = (meta.get("task", ""), tuple(meta.get("classes") or ()), meta.get("positive"))
    return known[version_id]


@lru_cache(maxsize=1)
def _known_terms() -> dict[str, tuple[str, Sequence[object], object]]:
    return {}
