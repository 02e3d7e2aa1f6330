"""Is each production model collected, watched and retrained? What is missing fails the audit (R71)."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from trimtab.core.nouns import Check, Endpoint, Verdict
from trimtab.monitor.signals import Rule, champion, default_checks, rules
from trimtab.store import live
from trimtab.store.ledger import Reader

CHECK = Check(name="production readiness", kind="readiness", params={})


class Readiness(Struct, frozen=True, kw_only=True):
    """Which of the three rules a deployed model has.

    Attributes:
        collection: its calls are recorded.
        alert: a check of its inputs or of its live loss can raise an alarm.
        retrain: an enabled automation runs what the endpoint serves when such a check fails.
        missing: the names of those that are not there, each with what to do.
    """

    endpoint: str
    version: str
    collection: bool
    alert: bool
    retrain: bool
    missing: list[str]


def readiness(reader: Reader) -> list[Readiness]:
    """Return what each endpoint with a deployed model has and lacks, by name."""
    known = rules(reader)
    found = []
    for endpoint in live.list_endpoints(reader):
        version = champion(reader, endpoint)
        if version is None or version.kind != "model":
            continue
        watching = [rule for rule in known if rule.endpoint == endpoint.name and rule.status == "fail"]
        collection = bool(endpoint.spec.get("collect", True))
        alert = bool(watching or default_checks(endpoint, version))
        retrain = any(_retrains(rule, endpoint) for rule in watching)
        lacks = {
            "collection: let the endpoint collect its calls": collection,
            "alert: train with held-back rows, so that there is something to compare with": alert,
            f"retrain: declare tt.when(ck.drift('{endpoint.name}.calls').fails, run=...)": retrain,
        }
        found.append(
            Readiness(
                endpoint=endpoint.name,
                version=version.ref,
                collection=collection,
                alert=alert and collection,
                retrain=retrain and collection,
                missing=[text for text, there in lacks.items() if not there],
            )
        )
    return found


def judge_readiness(reader: Reader, at: datetime) -> list[Verdict]:
    """Return one verdict for each endpoint with a deployed model; the audit fails where a rule is missing."""
    subjects = {endpoint.name: endpoint.id for endpoint in live.list_endpoints(reader)}
    return [
        Verdict(
            check=CHECK.name,
            kind=CHECK.kind,
            status="fail" if one.missing else "pass",
            subject=subjects[one.endpoint],
            evidence={"collection": one.collection, "alert": one.alert, "retrain": one.retrain, "version": one.version},
            reason=f"missing: {'; '.join(one.missing)}" if one.missing else "collected, watched and retrained",
            at=at,
        )
        for one in readiness(reader)
    ]


def _retrains(rule: Rule, endpoint: Endpoint) -> bool:
    serves = endpoint.spec.get("serves")
    return rule.automation.enabled and any(action.do == "run" and action.target == serves for action in rule.actions)
