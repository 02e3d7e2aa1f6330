"""Experiments, runs, searches and histories as MLflow's clients write and read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

V2, AJAX = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow"


def send(api: Any, method: str, path: str, **fields: Any) -> dict[str, Any]:
    """Ask, with fields in the query for GET, and return what must be a good answer."""
    given = {"params": fields} if method == "GET" else {"json": fields}
    answer = api.request(method, f"{V2}/{path}", **given)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(api: Any, method: str, path: str, code: str = "INVALID_PARAMETER_VALUE", **fields: Any) -> str:
    """Ask and return the message of the error that must come."""
    given = {"params": fields} if method == "GET" else {"json": fields}
    answer = api.request(method, f"{V2}/{path}", **given)
    found = answer.json()
    assert found["error_code"] == code, found
    message: str = found["message"]
    return message


def start(api: Any, **fields: Any) -> str:
    """Begin a run in the default experiment and return its id."""
    ident: str = send(api, "POST", "runs/create", **fields)["run"]["info"]["run_id"]
    return ident


def test_answers_have_what_clients_read(api: Any) -> None:
    """Whole numbers are numbers, NaN is a text, zero is kept, what is not set is left out, and so is a last token."""
    ident = start(api, run_name="one", start_time=1_700_000_000_000)
    send(api, "POST", "runs/log-metric", run_id=ident, key="m", value="NaN", timestamp="5", step="0")
    found = send(api, "POST", "runs/search", experiment_ids=["0"])
    assert set(found) == {"runs"}
    run = found["runs"][0]
    assert run["info"]["start_time"] == 1_700_000_000_000 and "end_time" not in run["info"]
    assert run["info"]["experiment_id"] == "0" and run["inputs"] == {} and run["outputs"] == {}
    assert run["data"]["metrics"] == [{"key": "m", "value": "NaN", "timestamp": 5, "step": 0}]
    told = send(api, "GET", "metrics/get-history", run_id=ident, metric_key="m")
    assert told == {"metrics": [{"key": "m", "value": "NaN", "timestamp": 5, "step": 0}]}


def test_pages_of_a_history(api: Any) -> None:
    """Pages hold each point once, also where times are equal and values are no plain numbers."""
    ident = start(api)
    values: list[Any] = ["NaN", "Infinity", "-Infinity", -0.0, 0.0, 1.5, 1.5]
    metrics = [{"key": "m", "value": value, "timestamp": 7, "step": 3} for value in values]
    send(api, "POST", "runs/log-batch", run_id=ident, metrics=metrics)
    seen, token = [], ""
    for _ in range(10):
        more = {"page_token": token} if token else {}
        page = send(api, "GET", "metrics/get-history", run_id=ident, metric_key="m", max_results=2, **more)
        seen += [str(one["value"]) for one in page["metrics"]]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert sorted(seen) == sorted(str(value) for value in values[:-1])
    text = refused(api, "GET", "metrics/get-history", run_id=ident, metric_key="m", page_token="*")
    assert text == "Invalid page token: it cannot be read"


def test_histories_for_plots(api: Any) -> None:
    """Several runs are asked for at once, with the limits that the pages expect."""
    one, two = start(api), start(api)
    for ident in (one, two):
        metrics = [{"key": "m", "value": step, "timestamp": step, "step": step} for step in range(500)]
        send(api, "POST", "runs/log-batch", run_id=ident, metrics=metrics)
    answer = api.get(f"{AJAX}/metrics/get-history-bulk", params={"run_id": [one, two], "metric_key": "m"})
    assert len(answer.json()["metrics"]) == 1000 and {row["run_id"] for row in answer.json()["metrics"]} == {one, two}
    asked = {"run_ids": [one, two], "metric_key": "m", "max_results": 10}
    found = api.get(f"{AJAX}/metrics/get-history-bulk-interval", params=asked).json()["metrics"]
    steps = [row["step"] for row in found if row["run_id"] == one]
    assert steps[0] == 0 and steps[-1] == 499 and 10 <= len(steps) <= 12
    within = {**asked, "start_step": 3, "end_step": 5}
    found = api.get(f"{AJAX}/metrics/get-history-bulk-interval", params=within).json()["metrics"]
    assert [row["step"] for row in found] == [3, 4, 5] * 2
    path = "metrics/get-history-bulk-interval"
    assert "both must be specified" in refused(api, "GET", path, run_ids=[one], metric_key="m", start_step=1)
    assert "must be greater" in refused(api, "GET", path, run_ids=[one], metric_key="m", start_step=2, end_step=1)
    assert "between 1 and 2500" in refused(api, "GET", path, run_ids=[one], metric_key="m", max_results=2501)
    refused(api, "GET", path, "RESOURCE_DOES_NOT_EXIST", run_ids=["f" * 32], metric_key="m")
    assert "at least one run_id" in refused(api, "GET", "metrics/get-history-bulk", metric_key="m")
    assert "more than 100" in refused(api, "GET", "metrics/get-history-bulk", metric_key="m", run_id=["a"] * 101)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_results": 0}, "positive integer"),
        ({"max_results": 50_001}, "at most 50000"),
        ({"max_results": "many"}, "Invalid value"),
        ({"filter": "metrics.a >"}, "Invalid clause"),
        ({"filter": "attribute.nothing = 'a'"}, "Invalid attribute key 'nothing'"),
        ({"order_by": ["attribute.nothing"]}, "Invalid"),
        ({"order_by": [3]}, "Invalid value"),
        ({"order_by": "a"}, "Invalid value"),
        ({"run_view_type": "SOME"}, "Invalid value"),
        ({"experiment_ids": ["x"]}, "must be a valid integer"),
        ({"page_token": "x"}, "Invalid page token"),
    ],
)
def test_searches_that_are_refused(api: Any, fields: dict[str, Any], words: str) -> None:
    """What cannot be meant is told, never answered with nothing."""
    assert words in refused(api, "POST", "runs/search", **{"experiment_ids": ["0"], **fields})


def test_searching_experiments_by_get(api: Any) -> None:
    """The pages ask by GET, with names that repeat and numbers as texts."""
    for name in ("a", "b"):
        send(api, "POST", "experiments/create", name=name)
    found = send(api, "GET", "experiments/search", max_results="2", order_by=["name DESC"], view_type="ALL")
    assert [one["name"] for one in found["experiments"]] == ["b", "a"] and found["next_page_token"]


def test_data_that_runs_read(api: Any) -> None:
    """Datasets are found by their experiments; what is missing or too long is named."""
    ident = start(api)
    data = {"name": "d", "digest": "x", "source_type": "local", "source": "s"}
    tags = [{"key": "mlflow.data.context", "value": "train"}]
    send(api, "POST", "runs/log-inputs", run_id=ident, datasets=[{"dataset": data, "tags": tags}])
    found = send(api, "POST", "experiments/search-datasets", experiment_ids=["0"])
    assert found == {"dataset_summaries": [{"experiment_id": "0", "name": "d", "digest": "x", "context": "train"}]}
    read = send(api, "GET", "runs/get", run_id=ident)["run"]["inputs"]["dataset_inputs"]
    assert read == [{"tags": tags, "dataset": data}]
    for change, words in (
        ({"name": None}, "Dataset name cannot be None"),
        ({"digest": "x" * 37}, "'digest' exceeds the maximum length of 36"),
        ({"schema": 3}, "datasets[0].dataset.schema"),
    ):
        assert words in refused(api, "POST", "runs/log-inputs", run_id=ident, datasets=[{"dataset": data | change}])
    assert "Dataset cannot be None" in refused(api, "POST", "runs/log-inputs", run_id=ident, datasets=[{}])
    assert "at least one experiment_id" in refused(api, "POST", "experiments/search-datasets", experiment_ids=[])


def test_models_that_runs_used_and_made(api: Any) -> None:
    """They are told with the run, and a metric of a model with both."""
    ident = start(api)
    model = send(api, "POST", "logged-models", experiment_id="0", name="clf")["model"]["info"]["model_id"]
    send(api, "POST", "runs/outputs", run_id=ident, models=[{"model_id": model, "step": "4"}])
    send(api, "POST", "runs/log-inputs", run_id=ident, models=[{"model_id": model}])
    run = send(api, "GET", "runs/get", run_id=ident)["run"]
    assert run["outputs"] == {"model_outputs": [{"model_id": model, "step": 4}]}
    assert run["inputs"] == {"model_inputs": [{"model_id": model}]}
    metric = {"run_id": ident, "key": "m", "value": 1, "timestamp": 1, "model_id": model, "dataset_name": "d"}
    send(api, "POST", "runs/log-metric", **metric)
    found = send(api, "POST", "logged-models/search", experiment_ids=["0"], filter="metrics.m = 1")["models"]
    assert found[0]["data"]["metrics"][0]["dataset_name"] == "d"
    assert (
        send(api, "POST", "logged-models/search", experiment_ids=["0"], datasets=[{"dataset_name": "e"}])["models"]
        == []
    )
    assert "must be specified" in refused(api, "POST", "logged-models/search", experiment_ids=["0"], datasets=[{}])
    refused(api, "POST", "runs/outputs", "RESOURCE_DOES_NOT_EXIST", run_id=ident, models=[{"model_id": "m-none"}])


def test_runs_by_their_old_name(api: Any) -> None:
    """Old clients and the pages say run_uuid, in bodies and in queries."""
    ident = start(api)
    assert send(api, "GET", "runs/get", run_uuid=ident)["run"]["info"]["run_id"] == ident
    assert send(api, "GET", "artifacts/list", run_uuid=ident)["files"] == []
    send(api, "POST", "runs/set-tag", run_uuid=ident, key="a", value="b")


def test_a_model_as_old_clients_log_it(api: Any) -> None:
    """Each model is added to the run's tag, and what is none is refused."""
    ident = start(api)
    told = {"artifact_path": "m", "flavors": {}, "utc_time_created": "t", "run_id": ident}
    for _ in "ab":
        send(api, "POST", "runs/log-model", run_id=ident, model_json=json.dumps(told))
    tags = {tag["key"]: tag["value"] for tag in send(api, "GET", "runs/get", run_id=ident)["run"]["data"]["tags"]}
    assert json.loads(tags["mlflow.log-model.history"]) == [told, told]
    assert "not valid JSON" in refused(api, "POST", "runs/log-model", run_id=ident, model_json="{")
    for text in ("[]", "3", '{"flavors": {}}'):
        assert "mandatory fields" in refused(api, "POST", "runs/log-model", run_id=ident, model_json=text)


def test_a_history_for_a_plot_of_our_own(api: Any) -> None:
    """The native API gives ranges of steps with their least, greatest and last value."""
    ident = start(api)
    metrics = [{"key": "my loss", "value": step % 10, "timestamp": step, "step": step} for step in range(200)]
    send(api, "POST", "runs/log-batch", run_id=ident, metrics=metrics)
    send(api, "POST", "runs/log-metric", run_id=ident, key="my loss", value="Infinity", timestamp=1, step=250)
    path = f"/api/v1/runs/run_{ident}/metrics/my loss"
    told = api.get(path, params={"buckets": 10}).json()
    assert (told["metric"], len(told["buckets"])) == ("my loss", 9)  # steps 200 to 249 have no points
    assert told["buckets"][0] == {"first_step": 0, "last_step": 24, "count": 25, "low": 0.0, "high": 9.0, "last": 4.0}
    assert told["buckets"][-1]["last"] == "Infinity"
    assert len(api.get(path, params={"start_step": 5, "end_step": 6}).json()["buckets"]) == 2
    assert api.get(path, params={"buckets": 0}).status_code == 422
    assert api.get("/api/v1/runs/none/metrics/m").status_code == 404
