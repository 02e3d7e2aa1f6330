"""Lineage in both directions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pipeline.conftest import Folder
from trimtab.core.clock import to_micros
from trimtab.core.errors import NotFound, WrongUse
from trimtab.core.nouns import Data
from trimtab.pipeline.lineage import lineage
from trimtab.store import calls, facts, live
from trimtab.store.calls import CallRow
from trimtab.store.ledger import Tx

PREDICTION = "ab" * 16 + ".0"


@pytest.fixture
def served(folder: Folder) -> Folder:
    """A project that ran, whose model answers all requests of an endpoint, and one answered request."""
    folder.run()
    version = facts.resolve(folder.store.ledger, "best")
    raw = facts.resolve(folder.store.ledger, "raw")
    at = folder.store.now()

    def write(tx: Tx) -> None:
        batches = {"data/a.txt": {"digest": "sha256:aa", "rows": 3, "batch": 1}}
        meta = facts.pack({**raw.meta, "batches": batches})
        tx.execute("UPDATE version SET meta=? WHERE id=?", (meta, raw.id))
        endpoint = live.put_endpoint(tx, name="api", spec={}, at=at)
        deployment = live.add_deployment(tx, endpoint_id=endpoint.id, version_id=version.id, runtime={}, at=at)
        live.set_deployment_state(tx, deployment.id, "ready", "")
        live.set_traffic(tx, endpoint.id, {deployment.id: 100.0}, expect_epoch=endpoint.epoch)
        row = CallRow(
            prediction_id=PREDICTION,
            request_id="ab" * 16,
            row=0,
            endpoint_id=endpoint.id,
            deployment_id=deployment.id,
            version_id=version.id,
            at=to_micros(at),
            candidate=False,
            weight=1.0,
            candidate_weight=0.0,
            status=200,
            latency_us=900,
            prediction=6,
        )
        calls.record_calls(tx, [row])

    folder.store.ledger.write(write, what="test")
    return folder


def _steps(items: list[Data]) -> list[tuple[Any, ...]]:
    return [(item["kind"], item["version"], item["role"], item["depth"]) for item in items]


def test_from_an_answer_to_the_source_file(served: Folder) -> None:
    """A prediction leads to its deployment, version, tables, source version and the file behind it."""
    found = lineage(served.store, PREDICTION)
    assert found["subject"]["kind"] == "prediction" and found["subject"]["id"] == PREDICTION
    assert _steps(found["upstream"]) == [
        ("deployment", "api#1", "ready", 1),
        ("model", "best:1", "answered", 2),
        ("table", "total:1", "total", 3),
        ("table", "sizes:1", "sizes", 4),
        ("source", "raw:1", "raw", 5),
        ("batch", "data/a.txt", "batch 1", 6),
    ]
    assert found["upstream"][-1]["id"] == "sha256:aa"


def test_from_a_source_to_the_live_endpoint(served: Folder) -> None:
    """A source version leads to every version, deployment and endpoint that it reaches."""
    found = lineage(served.store, "raw:1")
    assert _steps(found["downstream"]) == [
        ("table", "sizes:1", "raw", 1),
        ("table", "total:1", "sizes", 2),
        ("model", "best:1", "total", 3),
        ("deployment", "api#1", "ready", 4),
        ("endpoint", "api", "100 %", 5),
    ]
    assert _steps(found["upstream"]) == [("batch", "data/a.txt", "batch 1", 1)]
    assert all(item["run_id"] for item in found["downstream"][:3])


def test_runs_deployments_and_endpoints(served: Folder) -> None:
    """A run, a deployment and an endpoint have a lineage too."""
    reader = served.store.ledger
    run = facts.list_runs(reader, kind="make", name="total")[0]
    found = lineage(served.store, run.id)
    assert [item["version"] for item in found["upstream"]] == ["sizes:1", "raw:1", "data/a.txt"]
    assert found["downstream"][0]["version"] == "total:1" and found["downstream"][-1]["version"] == "api"
    deployment = live.list_deployments(reader)[0]
    found = lineage(served.store, deployment.id)
    assert found["upstream"][0]["version"] == "best:1" and found["downstream"][0]["version"] == "api"
    found = lineage(served.store, "api")
    assert found["upstream"][0]["version"] == "api#1" and found["downstream"] == []


def test_what_is_not_there(served: Folder) -> None:
    """An unknown name gets the closest one; an unknown prediction is named."""
    with pytest.raises(NotFound, match="did you mean 'total'"):
        lineage(served.store, "totl")
    with pytest.raises(NotFound, match="no prediction"):
        lineage(served.store, "cd" * 16 + ".3")
    with pytest.raises(WrongUse, match="not a reference"):
        lineage(served.store, "../../etc")
