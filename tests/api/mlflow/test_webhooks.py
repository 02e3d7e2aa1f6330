"""Webhooks as MLflow's clients keep them, and what their receivers are told of the registry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.mlflow.test_registry import MODELS, V2, VERSIONS, add, refused, register, send
from tests.receivers import Receiver, verified
from trimtab.api.mlflow.webhooks import EXAMPLES
from trimtab.api.outbound import HOSTS, HTTP
from trimtab.store.secrets import NAME
from trimtab.store.store import Store
from trimtab.store.webhooks import EVENTS

HOOKS = f"{V2}/webhooks"
MADE = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
SECRET = "a secret that nobody guesses"


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server reach receivers on this machine."""
    monkeypatch.setenv(HOSTS, "127.0.0.1")
    monkeypatch.setenv(HTTP, "127.0.0.1, public.example")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a receiver that takes everything."""
    with Receiver() as found:
        yield found


def hook(api: Any, receiver: Receiver | None = None, *, name: str = "hook", **fields: Any) -> dict[str, Any]:
    """Add a webhook, by default for all events."""
    events = [{"entity": one.upper(), "action": two.upper()} for one, many in EVENTS.items() for two in many]
    url = receiver.url if receiver else "https://127.0.0.1/x"
    made: dict[str, Any] = send(api, "POST", HOOKS, **{"name": name, "url": url, "events": events, **fields})["webhook"]
    return made


def test_a_webhook_is_kept(api: Any) -> None:
    """It is made, read, listed, changed and deleted; what is not set is left out, and its secret never comes back."""
    made = hook(api, events=[MADE, MADE], description="d", secret=SECRET)
    times = {name: made[name] for name in ("creation_timestamp", "last_updated_timestamp")}
    assert all(isinstance(one, int) for one in times.values()) and uuid.UUID(made["webhook_id"])
    assert made == {
        "webhook_id": made["webhook_id"], "name": "hook", "url": "https://127.0.0.1/x", "events": [MADE],
        "status": "ACTIVE", "description": "d", **times,
    }  # fmt: skip
    at = f"{HOOKS}/{made['webhook_id']}"
    assert send(api, "GET", at) == {"webhook": made}
    tag = {"entity": "MODEL_VERSION_TAG", "action": "SET"}
    changed = send(api, "PATCH", at, name="other", url="http://127.0.0.1:8/y", events=[tag], status="DISABLED")
    assert changed["webhook"] == {
        **made, "name": "other", "url": "http://127.0.0.1:8/y", "events": [tag], "status": "DISABLED",
        "last_updated_timestamp": changed["webhook"]["last_updated_timestamp"],
    }  # fmt: skip
    same = send(api, "PATCH", at, name="", description="", secret="")["webhook"]
    assert (same["name"], same["description"], same["events"]) == ("other", "d", [tag])
    assert send(api, "DELETE", at) == {}
    assert send(api, "GET", HOOKS) == {}


def test_webhooks_are_listed_by_pages(api: Any) -> None:
    """The newest come first; a token belongs to this list."""
    for number in range(5):
        hook(api, name=f"h{number}")
    first = send(api, "GET", HOOKS, max_results=3)
    assert [one["name"] for one in first["webhooks"]] == ["h4", "h3", "h2"]
    rest = send(api, "GET", HOOKS, max_results=3, page_token=first["next_page_token"])
    assert [one["name"] for one in rest["webhooks"]] == ["h1", "h0"] and "next_page_token" not in rest
    assert refused(api, "GET", HOOKS, max_results=1001) == "max_results must be between 1 and 1000."
    refused(api, "GET", HOOKS, page_token="x")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "-a"}, "Webhook name '-a' is invalid. It must start and end with a letter or digit"),
        ({"name": "a" * 64}, "is invalid"),
        ({"name": "a\n"}, "is invalid"),
        ({"name": ""}, "Missing value for required parameter 'name'"),
        ({"url": ""}, "Missing value for required parameter 'url'"),
        ({"url": " "}, "Webhook URL cannot be empty or just whitespace: ' '"),
        ({"url": "ftp://a.example"}, "Invalid webhook URL scheme: 'ftp'. Allowed schemes are: https."),
        ({"url": "http://a.example"}, "Invalid webhook URL scheme: 'http'. Allowed schemes are: https."),
        ({"url": "https:///path"}, "Webhook URL must include a hostname: 'https:///path'"),
        ({"url": "https://[a"}, "Invalid webhook URL 'https://[a'"),
        (
            {"url": "https://10.0.0.1/x"},
            "must not resolve to a non-public IP address. '10.0.0.1' resolves to 10.0.0.1.",
        ),
        ({"url": "https://localhost"}, "'localhost' resolves to"),
        ({"url": "https://nowhere.invalid"}, "Cannot resolve webhook URL hostname 'nowhere.invalid'"),
        ({"url": "https://a:b@127.0.0.1"}, "must not have a user"),
        ({"url": f"https://127.0.0.1/{'a' * 2048}"}, "exceeds the maximum length"),
        ({"events": []}, "Webhook events must be a non-empty list of WebhookEvent objects: []."),
        ({"events": None}, "Missing value for required parameter 'events'"),
        ({"events": ["a"]}, "Invalid value"),
        ({"events": [{"entity": "MODEL", "action": "SET"}]}, "parameter 'entity'"),
        ({"events": [{}]}, "Invalid action 'action_unspecified' for entity 'entity_unspecified'"),
        (
            {"events": [{"entity": "MODEL_VERSION_TAG", "action": 1}]},
            "Invalid action 'created' for entity 'model_version_tag'. Valid actions are: ['deleted', 'set']",
        ),
        ({"status": "ASLEEP"}, "parameter 'status'"),
        ({"secret": "s" * 1001}, "exceeds the maximum length"),
    ],
)
def test_what_cannot_be_is_refused(api: Any, fields: dict[str, Any], message: str) -> None:
    """Names, addresses and events that there cannot be are refused in MLflow's words, and nothing is kept."""
    given = {"name": "a", "url": "https://127.0.0.1", "events": [{"entity": 1, "action": 1}], **fields}
    told = refused(api, "POST", HOOKS, **{name: value for name, value in given.items() if value is not None})
    assert message in told
    assert send(api, "GET", HOOKS) == {}


def test_an_unknown_webhook(api: Any) -> None:
    """Reading, changing, deleting and testing one that is not there answers 404."""
    at, missing = f"{HOOKS}/w-1", "Webhook with ID w-1 not found."
    for method, path in (("GET", at), ("PATCH", at), ("DELETE", at), ("POST", f"{at}/test")):
        assert refused(api, method, path, "RESOURCE_DOES_NOT_EXIST") == missing


def test_a_receiver_is_told_of_models(api: Any, receiver: Receiver) -> None:
    """Each act on a model reaches its receiver, signed, in the shape that MLflow's receivers know."""
    hook(api, receiver, secret=SECRET)
    register(api, description="d", tags=[{"key": "a", "value": "1"}])
    add(api, source="s3://b/m", run_id="", tags=[{"key": "t", "value": "é"}])
    send(api, "POST", f"{MODELS}/set-tag", name="fraud", key="b", value="2")
    at = {"name": "fraud", "version": "1"}
    send(api, "POST", f"{VERSIONS}/set-tag", **at, key="k", value="v")
    send(api, "DELETE", f"{VERSIONS}/delete-tag", **at, key="k")
    send(api, "DELETE", f"{VERSIONS}/delete-tag", **at, key="k")
    send(api, "POST", f"{MODELS}/alias", **at, alias="best")
    send(api, "DELETE", f"{MODELS}/alias", name="fraud", alias="best")
    got = receiver.wait(6)
    assert [(one.event, one.data) for one in got] == [
        ("registered_model.created", {"name": "fraud", "tags": {"a": "1"}, "description": "d"}),
        (
            "model_version.created",
            {**at, "source": "s3://b/m", "run_id": None, "tags": {"t": "é"}, "description": None},
        ),
        ("model_version_tag.set", {**at, "key": "k", "value": "v"}),
        ("model_version_tag.deleted", {**at, "key": "k"}),
        ("model_version_alias.created", {**at, "alias": "best"}),
        ("model_version_alias.deleted", {"name": "fraud", "alias": "best"}),
    ]
    assert all(verified(one, SECRET) and not verified(one, "other") for one in got)
    assert len({one.id for one in got}) == 6 and got[0].path == "/hook"
    assert set(json.loads(got[0].body)) == {"entity", "action", "timestamp", "data"}
    assert got[0].headers["content-type"] == "application/json"


def test_a_receiver_is_told_of_prompts(api: Any, receiver: Receiver) -> None:
    """Prompts have events of their own, and the tags that make them prompts are not told."""
    hook(api, receiver)
    marks = [{"key": "mlflow.prompt.is_prompt", "value": "true"}, {"key": "_mlflow_prompt_type", "value": "text"}]
    own = {"key": "a", "value": "1"}
    register(api, "greet", tags=[*marks, own])
    text = {"key": "mlflow.prompt.text", "value": "hi {{you}}"}
    add(api, "greet", source="dummy-source", tags=[*marks, text, own], description="d")
    send(api, "POST", f"{MODELS}/set-tag", name="greet", key="b", value="2")
    send(api, "DELETE", f"{MODELS}/delete-tag", name="greet", key="b")
    at = {"name": "greet", "version": "1"}
    send(api, "POST", f"{VERSIONS}/set-tag", **at, key="k", value="v")
    send(api, "DELETE", f"{VERSIONS}/delete-tag", **at, key="k")
    send(api, "POST", f"{MODELS}/alias", **at, alias="best")
    send(api, "DELETE", f"{MODELS}/alias", name="greet", alias="best")
    got = receiver.wait(8)
    assert [(one.event, one.data) for one in got] == [
        ("prompt.created", {"name": "greet", "tags": {"a": "1"}, "description": ""}),
        ("prompt_version.created", {**at, "template": "hi {{you}}", "tags": {"a": "1"}, "description": "d"}),
        ("prompt_tag.set", {"name": "greet", "key": "b", "value": "2"}),
        ("prompt_tag.deleted", {"name": "greet", "key": "b"}),
        ("prompt_version_tag.set", {**at, "key": "k", "value": "v"}),
        ("prompt_version_tag.deleted", {**at, "key": "k"}),
        ("prompt_alias.created", {**at, "alias": "best"}),
        ("prompt_alias.deleted", {"name": "greet", "alias": "best"}),
    ]
    assert "x-mlflow-signature" not in got[0].headers


def test_only_who_wants_to_hear_is_told(api: Any, store: Store, receiver: Receiver) -> None:
    """A webhook for other events, or a disabled one, is told nothing, and nothing is written for it."""
    hook(api, receiver, name="other", events=[{"entity": "PROMPT", "action": "CREATED"}])
    hook(api, receiver, name="asleep", status="DISABLED")
    register(api, "unheard")
    assert store.ledger.query("SELECT count(*) FROM delivery") == [(0,)]
    hook(api, receiver, events=[MADE])
    register(api, "heard")
    assert [one.data["name"] for one in receiver.wait(1)] == ["heard"]


def test_what_is_undone_is_not_told(api: Any, store: Store, receiver: Receiver) -> None:
    """An act that is refused writes nothing to tell."""
    hook(api, receiver)
    register(api)
    refused(api, "POST", f"{MODELS}/create", "RESOURCE_ALREADY_EXISTS", name="fraud")
    refused(api, "POST", f"{VERSIONS}/create", name="fraud", source="models:/nothing/1")
    assert store.ledger.query("SELECT count(*) FROM delivery") == [(1,)]


def test_a_webhook_is_tested(api: Any) -> None:
    """An example of the first event, or of the one that is named, is sent at once and the answer is told."""
    with Receiver(201, body=b"well \xff") as receiver:
        at = f"{HOOKS}/{hook(api, receiver, secret=SECRET, status='DISABLED')['webhook_id']}/test"
        told = {"success": True, "response_status": 201, "response_body": "well \ufffd"}
        assert send(api, "POST", at) == {"result": told}
        send(api, "POST", at, event={"entity": "PROMPT_ALIAS", "action": "DELETED"})
        first, second = receiver.wait(2)
        assert (first.event, second.event) == ("registered_model.created", "prompt_alias.deleted")
        assert first.data == EXAMPLES[first.event] and verified(first, SECRET)
        receiver.status = 500
        assert send(api, "POST", at)["result"]["success"] is False
        refused(api, "POST", at, event={})
    message = send(api, "POST", at)["result"]["error_message"]
    assert message.startswith("Failed to test webhook: ConnectionRefusedError")


def test_every_event_has_an_example() -> None:
    """What can be heard of can be tested."""
    assert set(EXAMPLES) == {f"{entity}.{action}" for entity, actions in EVENTS.items() for action in actions}


def test_a_secret_is_kept_sealed(api: Any, store: Store) -> None:
    """No answer, row or audit leaf has it; its key is a file for its owner only, outside the ledger."""
    made = hook(api, secret=SECRET)
    send(api, "PATCH", f"{HOOKS}/{made['webhook_id']}", secret=f"new {SECRET}")
    key = store.home.root / NAME
    assert key.stat().st_mode & 0o777 == 0o600
    for path in sorted(store.home.root.glob("ledger.db*")):
        assert SECRET.encode() not in path.read_bytes() and key.read_bytes() not in path.read_bytes()
    assert SECRET not in api.get(HOOKS).text
    key.unlink()
    told = api.post(HOOKS, json={"name": "b", "url": "https://127.0.0.1", "events": [MADE], "secret": "s"})
    assert told.status_code == 503 and "the key of this store's secrets" in told.json()["message"]
    key.write_bytes(b"n" * 32)
    send(api, "PATCH", f"{HOOKS}/{made['webhook_id']}", secret="anew")
