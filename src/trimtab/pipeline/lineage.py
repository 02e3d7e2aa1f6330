"""Both directions of the lineage graph, from a production answer to the source files and back."""

from __future__ import annotations

import re
from collections.abc import Iterable

from trimtab.core.errors import NotFound, closest
from trimtab.core.ids import is_id
from trimtab.core.nouns import Data, Deployment, Endpoint, Run, Version
from trimtab.store import calls, facts, live
from trimtab.store.calls import CallRow
from trimtab.store.ledger import Reader
from trimtab.store.store import Store

_PREDICTION = re.compile(r"[0-9a-f]{32}\.[0-9]+")


def lineage(store: Store, ref: str) -> Data:
    """Return what something was made from and what was made from it.

    Args:
        store: the store.
        ref: an asset, version, run, deployment, endpoint, or a prediction id (``<32 hex>.<row>``).

    Returns:
        ``{"subject", "upstream", "downstream"}``. Items are ``{"kind", "id", "version", "role", "run_id",
        "depth"}``, nearest first: versions by the kind of their asset, ``deployment``, ``endpoint``, and, for
        a version of a source, its ``batch`` files (their id is the file's digest). ``version`` is a reference
        that a person can read.

    Raises:
        NotFound: there is no such thing; the message names the closest.
        WrongUse: ``ref`` is neither a reference nor an id.
    """
    reader = store.ledger
    if is_prediction(ref):
        return _of_prediction(reader, find_call(reader, ref))
    if is_id(ref) and ref.startswith("run_"):
        return _of_run(reader, find_run(reader, ref))
    if is_id(ref) and ref.startswith("dep_"):
        return _of_deployments(reader, None, [live.get_deployment(reader, ref)])
    endpoint = endpoint_of(reader, ref)
    if endpoint is not None:
        return _of_deployments(reader, endpoint, live.list_deployments(reader, endpoint.id))
    return _of_version(reader, version_of(reader, ref))


def is_prediction(ref: str) -> bool:
    """Say whether ``ref`` has the form of a prediction id."""
    return _PREDICTION.fullmatch(ref) is not None


def find_call(reader: Reader, prediction_id: str) -> CallRow:
    """Return the recorded call of a prediction.

    Raises:
        NotFound: no such prediction is recorded (yet).
    """
    found = calls.calls_of(reader, [prediction_id])
    if not found:
        raise NotFound(f"there is no prediction {prediction_id}", fix="calls are recorded within seconds; check the id")
    return found[0]


def find_run(reader: Reader, run_id: str) -> Run:
    """Return a run.

    Raises:
        NotFound: there is none with this id.
    """
    found = facts.get_run(reader, run_id)
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    return found


def endpoint_of(reader: Reader, ref: str) -> Endpoint | None:
    """Return the endpoint that a name or id means, if it means one."""
    if is_id(ref):
        return live.get_endpoint(reader, ref) if ref.startswith("end_") else None
    return live.find_endpoint(reader, ref)


def version_of(reader: Reader, ref: str) -> Version:
    """Return the version that a reference means.

    Raises:
        NotFound: there is none; the closest asset or endpoint is named.
    """
    try:
        return facts.resolve(reader, ref)
    except NotFound as error:
        known = [asset.name for asset in facts.list_assets(reader)]
        known += [endpoint.name for endpoint in live.list_endpoints(reader)]
        near = closest(ref, known)
        if not near or near in error.message or ref in known:
            raise
        raise NotFound(f"there is no asset or endpoint {ref!r}{near}", fix=error.fix) from error


def _item(kind: str, ident: str, version: str, *, role: str = "", run_id: str = "", depth: int) -> Data:
    return {"kind": kind, "id": ident, "version": version, "role": role, "run_id": run_id, "depth": depth}


def _version_item(version: Version, role: str, run_id: str, depth: int) -> Data:
    return _item(version.kind, version.id, version.ref, role=role, run_id=run_id, depth=depth)


def deployment_ref(reader: Reader, deployment: Deployment) -> str:
    """Return what people call a deployment: ``ENDPOINT#NUMBER``."""
    return f"{live.get_endpoint(reader, deployment.endpoint_id).name}#{deployment.number}"


def _deployment_item(reader: Reader, deployment: Deployment, depth: int) -> Data:
    name = deployment_ref(reader, deployment)
    return _item("deployment", deployment.id, name, role=deployment.state, depth=depth)


def _of_prediction(reader: Reader, call: CallRow) -> Data:
    deployment = live.get_deployment(reader, call.deployment_id)
    version = facts.get_version(reader, call.version_id)
    subject = _item("prediction", call.prediction_id, version.ref, depth=0)
    first = [_deployment_item(reader, deployment, 1), _version_item(version, "answered", version.run_id, 2)]
    return {"subject": subject, "upstream": [*first, *_upstream(reader, version, 2)], "downstream": []}


def _of_run(reader: Reader, run: Run) -> Data:
    up: list[Data] = []
    for version, role in facts.used_by(reader, run.id):
        up += [_version_item(version, role, run.id, 1), *_upstream(reader, version, 1)]
    down: list[Data] = []
    for version in facts.made_by(reader, run.id):
        down += [_version_item(version, "made", run.id, 1), *_downstream(reader, version, 1)]
    subject = _item("run", run.id, f"{run.kind}:{run.name}", role=run.state, run_id=run.id, depth=0)
    return {"subject": subject, "upstream": _nearest(up), "downstream": _nearest(down)}


def _of_version(reader: Reader, version: Version) -> Data:
    return {
        "subject": _version_item(version, version.state, version.run_id, 0),
        "upstream": _nearest([*_batches(version, 1), *_upstream(reader, version, 0)]),
        "downstream": _nearest(_downstream(reader, version, 0)),
    }


def _of_deployments(reader: Reader, endpoint: Endpoint | None, deployments: list[Deployment]) -> Data:
    up: list[Data] = []
    depth = 1 if endpoint else 0
    for deployment in deployments:
        version = facts.get_version(reader, deployment.version_id)
        if endpoint is not None:
            up.append(_deployment_item(reader, deployment, 1))
        up += [
            _version_item(version, "served", version.run_id, depth + 1),
            *_upstream(reader, version, depth + 1),
        ]
    if endpoint is not None:
        subject = _item("endpoint", endpoint.id, endpoint.name, depth=0)
        return {"subject": subject, "upstream": _nearest(up), "downstream": []}
    subject = _deployment_item(reader, deployments[0], 0)
    return {"subject": subject, "upstream": _nearest(up), "downstream": _endpoints(reader, deployments, 1)}


def _upstream(reader: Reader, version: Version, depth: int) -> list[Data]:
    """Return what ``version``, which stands at ``depth``, was made from, down to the files of sources."""
    found: list[Data] = []
    for edge in facts.ancestors(reader, version.id):
        found.append(_version_item(edge.version, edge.role, edge.run.id, depth + edge.depth))
        found += _batches(edge.version, depth + edge.depth + 1)
    return found


def _batches(version: Version, depth: int) -> list[Data]:
    batches = version.meta.get("batches") or {}
    return [
        _item(
            "batch",
            str(batch.get("digest", path)),
            path,
            role=f"batch {batch.get('batch', '')}".strip(),
            run_id=version.run_id,
            depth=depth,
        )
        for path, batch in batches.items()
    ]


def _downstream(reader: Reader, version: Version, depth: int) -> list[Data]:
    """Return what was made from ``version``, and the deployments and live endpoints that it reaches."""
    edges = facts.descendants(reader, version.id)
    found = [_version_item(edge.version, edge.role, edge.run.id, depth + edge.depth) for edge in edges]
    depths = {version.id: depth, **{edge.version.id: depth + edge.depth for edge in reversed(edges)}}
    for deployment in live.list_deployments(reader):
        if deployment.version_id in depths:
            below = depths[deployment.version_id] + 1
            found.append(_deployment_item(reader, deployment, below))
            found += _endpoints(reader, [deployment], below + 1)
    return found


def _endpoints(reader: Reader, deployments: Iterable[Deployment], depth: int) -> list[Data]:
    """Return the endpoints that send traffic to deployments, with its share."""
    found: list[Data] = []
    for deployment in deployments:
        endpoint = live.get_endpoint(reader, deployment.endpoint_id)
        share = endpoint.traffic.get(deployment.id, 0.0)
        if share:
            found.append(_item("endpoint", endpoint.id, endpoint.name, role=f"{share:g} %", depth=depth))
    return found


def _nearest(items: list[Data]) -> list[Data]:
    """Return items by depth; of one thing met twice in one role by one run, the nearer is kept."""
    kept: dict[tuple[str, str, str], Data] = {}
    for item in sorted(items, key=lambda item: int(item["depth"])):
        kept.setdefault((item["id"] + item["version"], item["role"], item["run_id"]), item)
    return list(kept.values())
