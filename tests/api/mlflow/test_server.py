"""What the server says of itself, its pages' questions, and addresses that are not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.mlflow.test_searches import send, start

QUERY = """query GetRun($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { apiError { code message } run {
  info { runName } experiment { name } modelVersions { name } inputs { datasetInputs { dataset { name } } }
  outputs { modelOutputs { modelId } } data { params { key } } } } }"""


def test_what_the_server_is(api: Any) -> None:
    """Clients learn the version and what they need not ask for."""
    assert api.get("/version").text == "3.12.0"
    told = api.get("/api/3.0/mlflow/server-info").json()
    assert (told["store_type"], told["workspaces_enabled"]) == ("SqlStore", False)


def test_a_run_as_the_pages_ask_for_it(api: Any) -> None:
    """Its experiment and registered versions come with it, and lists are never null."""
    ident = start(api, run_name="one")
    send(api, "POST", "registered-models/create", name="fraud")
    send(api, "POST", "model-versions/create", name="fraud", source=f"runs:/{ident}/model", run_id=ident)
    asked = {"operationName": "GetRun", "query": QUERY, "variables": {"data": {"runId": ident}}}
    run = api.post("/graphql", json=asked).json()["data"]["mlflowGetRun"]["run"]
    assert run["info"] == {"runName": "one"} and run["experiment"] == {"name": "Default"}
    assert run["modelVersions"] == [{"name": "fraud"}] and run["data"] == {"params": []}
    assert run["inputs"] == {"datasetInputs": []} and run["outputs"] == {"modelOutputs": []}
    asked["variables"] = {"data": {"runId": "none"}}
    told = api.post("/graphql", json=asked).json()["data"]["mlflowGetRun"]
    assert told["apiError"]["code"] == "RESOURCE_DOES_NOT_EXIST" and told["run"] is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/2.0/mlflow/gateway/endpoints"),
        ("GET", "/ajax-api/3.0/mlflow/assistant/config"),
        ("GET", "/api/2.0/mlflow/runs/search"),
        ("DELETE", "/api/2.0/mlflow/runs/create"),
        ("GET", "/ajax-api/4.0/mlflow/anything"),
    ],
)
def test_addresses_that_are_not_there(api: Any, method: str, path: str) -> None:
    """They answer with an error that clients do not try again."""
    answer = api.request(method, path)
    assert answer.status_code == 404 and answer.json()["error_code"] == "ENDPOINT_NOT_FOUND"


def test_what_is_too_large_is_told_in_the_same_form(api: Any) -> None:
    """Clients read error_code and message of every answer of these addresses."""
    answer = api.post("/api/2.0/mlflow/runs/log-batch", content=b"x" * 3_000_000)
    assert answer.status_code == 413 and answer.json()["error_code"] == "BAD_REQUEST"
    assert api.post("/clock", content=b"x" * 3_000_000).json()["error"]["type"] == "BadInput"


def test_what_may_be_long(api: Any) -> None:
    """A profile of data and the records of a dataset are taken up to sixteen megabytes."""
    data = {"name": "d", "digest": "x", "source_type": "local", "source": "s", "profile": "p" * 9_000_000}
    send(api, "POST", "runs/log-inputs", run_id=start(api), datasets=[{"dataset": data}])
    made = api.post("/api/3.0/mlflow/datasets/create", json={"name": "long"}).json()["dataset"]["dataset_id"]
    records = json.dumps([{"inputs": {"q": f"{place} {'x' * 900_000}"}} for place in range(8)])
    answer = api.post(f"/api/3.0/mlflow/datasets/{made}/records", json={"records": records})
    assert answer.json() == {"inserted_count": 8, "updated_count": 0}


def test_other_addresses_keep_their_form(api: Any) -> None:
    """What was never MLflow's tells its errors as the native API does."""
    assert api.get("/api/v1/nothing").json()["error"]["type"] == "NotFound"
