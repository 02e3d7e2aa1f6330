"""The model registry as MLflow's clients write and read it."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.store import facts, live
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

V2 = "/api/2.0/mlflow"
MODELS, VERSIONS = f"{V2}/registered-models", f"{V2}/model-versions"


def send(api: Any, method: str, path: str, **fields: Any) -> dict[str, Any]:
    """Ask, with fields in the query for GET, and return what must be a good answer."""
    given = {"params": fields} if method == "GET" else {"json": fields}
    answer = api.request(method, path, **given)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(api: Any, method: str, path: str, code: str = "INVALID_PARAMETER_VALUE", **fields: Any) -> str:
    """Ask and return the message of the error that must come."""
    given = {"params": fields} if method == "GET" else {"json": fields}
    answer = api.request(method, path, **given)
    found = answer.json()
    assert found["error_code"] == code, found
    assert answer.status_code == {"RESOURCE_DOES_NOT_EXIST": 404}.get(code, 400)
    message: str = found["message"]
    return message


def register(api: Any, name: str = "fraud", **fields: Any) -> dict[str, Any]:
    """Register a name."""
    found: dict[str, Any] = send(api, "POST", f"{MODELS}/create", name=name, **fields)["registered_model"]
    return found


def add(api: Any, name: str = "fraud", source: str = "runs:/abc/model", **fields: Any) -> dict[str, Any]:
    """Add a version."""
    found: dict[str, Any] = send(api, "POST", f"{VERSIONS}/create", name=name, source=source, **fields)["model_version"]
    return found


def test_a_registered_model(api: Any) -> None:
    """It is made, read, described, renamed and deleted; what is not set is left out."""
    made = register(api, "my fraud model", tags=[{"key": "a", "value": "1"}], description="d")
    times = {name: made[name] for name in ("creation_timestamp", "last_updated_timestamp")}
    assert all(isinstance(one, int) for one in times.values())
    tags = [{"key": "a", "value": "1"}]
    assert made == {"name": "my fraud model", **times, "description": "d", "tags": tags}
    assert send(api, "GET", f"{MODELS}/get", name="my fraud model") == {"registered_model": made}
    send(api, "PATCH", f"{MODELS}/update", name="my fraud model", description="e")
    renamed = send(api, "POST", f"{MODELS}/rename", name="my fraud model", new_name="fraud")["registered_model"]
    assert (renamed["name"], renamed["description"]) == ("fraud", "e")
    send(api, "POST", f"{MODELS}/set-tag", name="fraud", key="b", value="2")
    send(api, "DELETE", f"{MODELS}/delete-tag", name="fraud", key="a")
    send(api, "DELETE", f"{MODELS}/delete-tag", name="fraud", key="a")
    assert send(api, "GET", f"{MODELS}/get", name="fraud")["registered_model"]["tags"] == [{"key": "b", "value": "2"}]
    assert send(api, "DELETE", f"{MODELS}/delete", name="fraud") == {}
    text = refused(api, "GET", f"{MODELS}/get", "RESOURCE_DOES_NOT_EXIST", name="fraud")
    assert text == "Registered Model with name=fraud not found"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "Missing value for required parameter 'name'."),
        (" ", "Missing value for required parameter 'name'."),
        ("a/b", "Invalid model name 'a/b'. Names cannot contain '/' or ':'."),
        ("a:b", "Invalid model name 'a:b'. Names cannot contain '/' or ':'."),
        ("..", "must not resolve to other names when treated as such. This name would resolve to '..'"),
        ("x" * 257, "'name' exceeds the maximum length of 256 characters"),
    ],
)
def test_names_that_cannot_be(api: Any, name: str, text: str) -> None:
    """They are refused in the words that clients know."""
    assert text in refused(api, "POST", f"{MODELS}/create", name=name)


def test_names_that_are_taken(api: Any, store: Store) -> None:
    """Clients hear which of their own has the name, and that the pipeline's are not theirs."""
    register(api)
    text = refused(api, "POST", f"{MODELS}/create", "RESOURCE_ALREADY_EXISTS", name="fraud")
    assert text == "Registered Model (name=fraud) already exists."

    def make(tx: Tx) -> None:
        facts.put_asset(tx, name="delays", kind="model", spec={}, at=store.now())

    store.ledger.write(make, what="make")
    assert "the project's pipeline makes" in refused(api, "POST", f"{MODELS}/create", name="delays")
    assert "the project's pipeline makes" in refused(
        api, "POST", f"{VERSIONS}/create", name="delays", source="s3://b/m"
    )
    assert "registered_models" not in send(api, "GET", f"{MODELS}/search", filter="name='delays'")


def test_a_version(api: Any) -> None:
    """It has the fields that clients read, as the texts and numbers that they expect."""
    register(api)
    made = add(api, run_id="abc", run_link="http://x", description="d", tags=[{"key": "a", "value": "1"}])
    times = {name: made[name] for name in ("creation_timestamp", "last_updated_timestamp")}
    assert made == {
        "name": "fraud", "version": "1", **times, "current_stage": "None", "description": "d", "run_id": "abc",
        "source": "runs:/abc/model", "status": "READY", "run_link": "http://x", "tags": [{"key": "a", "value": "1"}],
    }  # fmt: skip
    at = {"name": "fraud", "version": "1"}
    assert send(api, "GET", f"{VERSIONS}/get", **at) == {"model_version": made}
    send(api, "PATCH", f"{VERSIONS}/update", **at, description="e")
    send(api, "POST", f"{VERSIONS}/set-tag", **at, key="b", value="")
    send(api, "DELETE", f"{VERSIONS}/delete-tag", **at, key="a")
    found = send(api, "GET", f"{VERSIONS}/get", **at)["model_version"]
    assert (found["description"], found["tags"]) == ("e", [{"key": "b", "value": ""}])
    assert send(api, "GET", f"{VERSIONS}/get-download-uri", **at) == {"artifact_uri": "runs:/abc/model"}
    assert send(api, "GET", f"{MODELS}/get", name="fraud")["registered_model"]["latest_versions"] == [found]
    text = refused(api, "GET", f"{VERSIONS}/get", name="fraud", version="x")
    assert text == "Parameter 'version' must be an integer, got 'x'."
    text = refused(api, "GET", f"{VERSIONS}/get", "RESOURCE_DOES_NOT_EXIST", name="fraud", version="9" * 30)
    assert "not found" in text
    send(api, "DELETE", f"{VERSIONS}/delete", **at)
    text = refused(api, "DELETE", f"{VERSIONS}/delete", "RESOURCE_DOES_NOT_EXIST", **at)
    assert text == "Model Version (name=fraud, version=1) not found"


def test_a_logged_model_becomes_a_version(api: Any) -> None:
    """Its source may be the model or the run; the client is sent to the artifacts that this server keeps."""
    run = send(api, "POST", f"{V2}/runs/create", experiment_id="0")["run"]["info"]["run_id"]
    body = {"experiment_id": "0", "name": "clf", "source_run_id": run}
    model = send(api, "POST", f"{V2}/logged-models", **body)["model"]["info"]
    register(api)
    made = add(api, source=f"models:/{model['model_id']}", model_id=model["model_id"])
    assert (made["run_id"], made["model_id"]) == (run, model["model_id"])
    add(api, source=f"runs:/{run}/clf", run_id=run)
    add(api, source=f"runs:/{run}/other", run_id=run)
    uris = [
        send(api, "GET", f"{VERSIONS}/get-download-uri", name="fraud", version=str(number))["artifact_uri"]
        for number in (1, 2, 3)
    ]
    assert uris == [model["artifact_uri"]] * 2 + [f"mlflow-artifacts:/0/{run}/artifacts/other"]
    tags = send(api, "GET", f"{V2}/logged-models/{model['model_id']}")["model"]["info"]["tags"]
    assert tags == [{"key": "mlflow.modelVersions", "value": '[{"name": "fraud", "version": 1}]'}]


PATHS = [
    "/etc/passwd", "file:///etc/passwd", "relative/path", "file:/tmp/../etc", "mlflow-artifacts:/../../etc",
    "http://host/api/%2e%2e/%2e%2e/etc", "s3://b/a/%252e%252e/c", "s3:/b/../c", "mlflow-artifacts:a/b",
    "s3://b/%00", "runs:/abc/../../x", "file://far.example/etc", "C:\\Windows", "http://[x/y", "s3://b\\..\\c",
    "mlflow-artifacts://h:1/..%2f..%2f", "./model", "~/model", "s3://b/c?x=/../d", "s3://b/./c",
]  # fmt: skip


@pytest.mark.parametrize("prompt", [False, True])
def test_sources_that_are_paths(api: Any, prompt: bool) -> None:
    """A path of a file system, plain or hidden, is refused; a prompt's placeholder is a word."""
    register(api)
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}] if prompt else []
    for source in PATHS:
        if prompt and source in ("relative/path", "./model", "~/model"):
            add(api, source=source, tags=tags)
            continue
        text = refused(api, "POST", f"{VERSIONS}/create", name="fraud", source=source, tags=tags)
        assert "Invalid" in text or "not a valid remote uri" in text, source


def test_sources_on_a_clients_own_disk(api: Any) -> None:
    """Where a run's artifacts are in a folder that only clients see, a version may lie below it and nowhere else."""
    home = send(api, "POST", f"{V2}/experiments/create", name="disk", artifact_location="file:///data/runs")
    run = send(api, "POST", f"{V2}/runs/create", **home)["run"]["info"]
    root = run["artifact_uri"]
    register(api)
    assert add(api, source=f"{root}/model", run_id=run["run_id"])["source"] == f"{root}/model"
    plain = root.removeprefix("file://")
    assert add(api, source=plain, run_id=run["run_id"])["version"] == "2"
    assert add(api, source=f"{root}/model/..", run_id=run["run_id"])["version"] == "3"
    for source in (f"{plain}x", f"{plain}/../y", f"{root}/a/../../y", "/data", f"{root}/%2e%2e/z"):
        text = refused(api, "POST", f"{VERSIONS}/create", name="fraud", source=source, run_id=run["run_id"])
        assert "To use a local path as a model version source, the run_id request parameter has to be" in text


def test_stages(api: Any) -> None:
    """They are named in any case; only the active ones archive what is there."""
    register(api)
    for _ in range(2):
        add(api)
    move = {"name": "fraud", "version": "1", "stage": "production"}
    moved = send(api, "POST", f"{VERSIONS}/transition-stage", **move, archive_existing_versions=True)["model_version"]
    assert moved["current_stage"] == "Production"
    for method in ("GET", "POST"):
        found = send(api, method, f"{MODELS}/get-latest-versions", name="fraud")["model_versions"]
        assert [(one["version"], one["current_stage"]) for one in found] == [("1", "Production"), ("2", "None")]
        found = send(api, method, f"{MODELS}/get-latest-versions", name="fraud", stages=["PRODUCTION"])
        assert [one["version"] for one in found["model_versions"]] == ["1"]
    assert send(api, "GET", f"{MODELS}/get-latest-versions", name="fraud", stages="Staging") == {}
    move["stage"] = "None"
    text = refused(api, "POST", f"{VERSIONS}/transition-stage", **move, archive_existing_versions=True)
    assert text.endswith("because 'None' is not an Active stage. Valid stages are ['Staging', 'Production']")
    text = refused(api, "POST", f"{VERSIONS}/transition-stage", **{**move, "stage": "x"})
    assert text == "Invalid Model Version stage: x. Value must be one of None, Staging, Production, Archived."


def test_aliases(api: Any) -> None:
    """One address sets, reads and removes them."""
    register(api)
    for _ in range(2):
        add(api)
    at = {"name": "fraud", "alias": "best"}
    send(api, "POST", f"{MODELS}/alias", **at, version="1")
    found = send(api, "GET", f"{MODELS}/alias", **at)["model_version"]
    assert (found["version"], found["aliases"]) == ("1", ["best"])
    model = send(api, "GET", f"{MODELS}/get", name="fraud")["registered_model"]
    assert model["aliases"] == [{"alias": "best", "version": "1"}]
    assert send(api, "GET", f"{MODELS}/alias", name="fraud", alias="LATEST")["model_version"]["version"] == "2"
    for _ in range(2):
        send(api, "DELETE", f"{MODELS}/alias", **at)
    assert refused(api, "GET", f"{MODELS}/alias", **at) == "Registered model alias best not found."
    for alias, text in (
        ("latest", "'latest' alias name (case insensitive) is reserved."),
        ("v12", "Version alias name 'v12' is reserved."),
        ("a b", "Names may only contain alphanumerics, underscores (_), and dashes (-)."),
        ("x" * 256, "'Registered model alias name' exceeds the maximum length of 255 characters"),
    ):
        assert text in refused(api, "POST", f"{MODELS}/alias", name="fraud", alias=alias, version="1")
    refused(api, "POST", f"{MODELS}/alias", "RESOURCE_DOES_NOT_EXIST", **at, version="7")


def test_searches(api: Any) -> None:
    """Pages with tokens of their own, and none on the last; prompts only where they are asked for."""
    for name in ("a", "b", "c"):
        register(api, name)
        add(api, name)
    register(api, "hello", tags=[{"key": "mlflow.prompt.is_prompt", "value": "true"}])
    page = send(api, "GET", f"{MODELS}/search", max_results=2, order_by=["name DESC"])
    assert [one["name"] for one in page["registered_models"]] == ["c", "b"]
    token = page["next_page_token"]
    page = send(api, "GET", f"{MODELS}/search", max_results=2, order_by=["name DESC"], page_token=token)
    assert ([one["name"] for one in page["registered_models"]], "next_page_token" in page) == (["a"], False)
    page = send(api, "GET", f"{MODELS}/search", filter="tags.`mlflow.prompt.is_prompt` = 'true'")
    assert [one["name"] for one in page["registered_models"]] == ["hello"]
    page = send(api, "GET", f"{VERSIONS}/search", filter="name = 'b'")
    assert [(one["name"], one["version"]) for one in page["model_versions"]] == [("b", "1")]
    assert send(api, "GET", f"{VERSIONS}/search", filter="name = 'z'") == {}
    for path, most in ((MODELS, 1001), (VERSIONS, 200_001), (MODELS, 0)):
        assert "max_results" in refused(api, "GET", f"{path}/search", max_results=most)
    assert "Invalid" in refused(api, "GET", f"{MODELS}/search", filter="run_id = 'x'")
    assert "Invalid page token" in refused(api, "GET", f"{MODELS}/search", page_token="x")


def test_tags_that_cannot_be(api: Any) -> None:
    """Keys, lengths and a prompt's text are checked."""
    register(api)
    add(api)
    at = {"name": "fraud", "version": "1"}
    for key, value, text in (
        ("a\0", "x", "Names may only contain alphanumerics"),
        ("k" * 251, "x", "'key' exceeds the maximum length of 250 characters"),
        ("k", "x" * 100_001, "'value' exceeds the maximum length of 100000 characters"),
        ("mlflow.prompt.text", "x" * 100_001, "Prompt text exceeds max length of 100000 characters."),
    ):
        assert text in refused(api, "POST", f"{VERSIONS}/set-tag", **at, key=key, value=value)
        assert text in refused(api, "POST", f"{MODELS}/create", name="n", tags=[{"key": key, "value": value}])
    assert "key" in refused(api, "POST", f"{MODELS}/create", name="n", tags=[{"value": "x"}])
    assert "tags[0]" in refused(api, "POST", f"{MODELS}/create", name="n", tags=["x"])


def test_a_deployed_version_cannot_be_deleted(api: Any, store: Store) -> None:
    """The client hears which endpoint has it."""
    register(api)
    add(api)

    def deploy(tx: Tx) -> None:
        version = facts.resolve(tx, "fraud:1")
        endpoint = live.put_endpoint(tx, name="fraud_api", spec={}, at=store.now())
        live.add_deployment(tx, endpoint_id=endpoint.id, version_id=version.id, runtime={}, at=store.now())

    store.ledger.write(deploy, what="deploy")
    for path, at in ((VERSIONS, {"version": "1"}), (MODELS, {})):
        assert "endpoint fraud_api has it deployed" in refused(api, "DELETE", f"{path}/delete", name="fraud", **at)


def test_an_alias_called_prod(api: Any) -> None:
    """Clients name aliases by their own habits."""
    register(api)
    add(api)
    for alias in ("prod", "dev", "test"):
        send(api, "POST", f"{MODELS}/alias", name="fraud", alias=alias, version="1")
        assert send(api, "GET", f"{MODELS}/alias", name="fraud", alias=alias)["model_version"]["version"] == "1"
