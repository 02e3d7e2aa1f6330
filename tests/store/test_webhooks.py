"""Webhooks and their outbox, in both databases."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.store.builders import make, write
from trimtab.core.errors import BadInput, NotFound
from trimtab.store import facts, registry, registrytags, webhooks
from trimtab.store.ledger import Ledger
from trimtab.store.webhooks import Delivery, Webhook


def hook(ledger: Ledger, *events: str, **fields: Any) -> Webhook:
    """Add a webhook for events, by default for new models."""
    given = {
        "name": "hook",
        "url": "https://a.example/secret-path",
        "description": "",
        "secret": "",
        "status": "ACTIVE",
    }
    events = events or ("registered_model.created",)
    made: Webhook = write(
        ledger, webhooks.create, webhooks.new_key(), **{**given, "events": events, "now_ms": 10, **fields}
    )
    return made


def register(ledger: Ledger, name: str = "fraud", **fields: Any) -> None:
    """Register a model, which is an event."""
    write(ledger, registry.create_registered, name, now_ms=10, **fields)


def outbox(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Return webhook, event, state, attempts and error of each delivery, oldest first."""
    return ledger.query("SELECT webhook_id, event, state, attempts, error FROM delivery ORDER BY id")


def head(ledger: Ledger, **fields: Any) -> Delivery:
    """Return the only delivery that is due."""
    (found,) = webhooks.due(ledger, **{"most": 9, **fields})
    return found


def test_a_webhook_comes_back_whole(ledger: Ledger) -> None:
    """What was given is kept, events in their order and once, and changes leave the rest."""
    made = hook(ledger, "prompt.created", "model_version.created", "prompt.created", description="d\0é", secret="s1.x")
    assert made.events == ("prompt.created", "model_version.created") and made.environment == "dev"
    assert webhooks.get(ledger, made.id) == made and uuid.UUID(made.id)
    changed = write(
        ledger, webhooks.update, made.id, {"name": "n", "status": "DISABLED"}, ("prompt.created",), now_ms=11
    )
    assert (changed.name, changed.status, changed.events, changed.updated_ms) == (
        "n",
        "DISABLED",
        ("prompt.created",),
        11,
    )
    assert (changed.url, changed.secret, changed.created_ms) == (made.url, "s1.x", 10)
    assert webhooks.any_secret(ledger)
    write(ledger, webhooks.delete, made.id)
    with pytest.raises(NotFound, match=f"Webhook with ID {made.id} not found"):
        webhooks.get(ledger, made.id)
    assert not webhooks.any_secret(ledger)


def test_a_page_and_its_token(ledger: Ledger) -> None:
    """Pages hold every webhook once, newest first; another list's token is refused."""
    made = [hook(ledger, name=f"h{number}").id for number in range(5)]
    found, token = webhooks.page(ledger, most=2)
    more, second = webhooks.page(ledger, most=2, token=token)
    last, end = webhooks.page(ledger, most=2, token=second)
    assert [one.id for one in (*found, *more, *last)] == made[::-1] and end == ""
    with pytest.raises(BadInput):
        webhooks.page(ledger, most=2, token="x")


def test_the_audit_keeps_no_path_and_no_secret(ledger: Ledger) -> None:
    """The path of a URL can be as good as a password, and leaves are for ever."""
    made = hook(ledger, secret="s1.sealed")
    write(ledger, webhooks.update, made.id, {"url": "https://b.example/other-path", "secret": "s1.new"}, (), now_ms=1)
    leaves = b"".join(bytes(leaf) for (leaf,) in ledger.query("SELECT leaf FROM audit"))
    assert b"a.example" in leaves and b"b.example" in leaves
    assert not any(word in leaves for word in (b"-path", b"s1."))


def test_an_act_and_its_telling_are_one(ledger: Ledger) -> None:
    """What is told is written with the act, for each that is interested, and goes if the act is undone."""
    first, second = hook(ledger), hook(ledger)
    hook(ledger, "prompt.created")
    hook(ledger, status="DISABLED")

    def undone(tx: Any) -> None:
        registry.create_registered(tx, "never", now_ms=1)
        raise ValueError

    with pytest.raises(ValueError):
        ledger.write(undone, what="undone")
    assert outbox(ledger) == []
    register(ledger, tags={"a": "1"})
    assert [row[:3] for row in outbox(ledger)] == [
        (one.id, "registered_model.created", "waiting") for one in (first, second)
    ]
    told = json.loads(head(ledger, only=first.id).body)
    assert told.pop("timestamp").endswith("+00:00")
    data = {"name": "fraud", "tags": {"a": "1"}, "description": ""}
    assert told == {"entity": "registered_model", "action": "created", "data": data}


def test_an_alias_is_told_whoever_sets_it(ledger: Ledger) -> None:
    """A promotion by the project itself is told as well; models of the pipeline are not the registry's."""
    hook(ledger, "model_version_alias.created", "model_version_alias.deleted")
    register(ledger)
    version = write(ledger, registry.create_version, "fraud", source="s3://b/m", now_ms=20)
    write(ledger, facts.set_alias, "fraud", "champion", version.id)
    own = write(ledger, make, "model", kind="model")
    write(ledger, facts.set_alias, "model", "champion", own.id)
    write(ledger, registry.drop_alias, "fraud", "champion")
    write(ledger, registry.drop_alias, "fraud", "champion")
    assert [row[1] for row in outbox(ledger)] == ["model_version_alias.created", "model_version_alias.deleted"]


def test_names_are_the_workspaces_and_aliases_the_environments(ledger: Ledger, location: str) -> None:
    """A new version is told in every environment of the workspace, an alias in its own; nothing in another one."""
    hook(ledger, "model_version.created", "model_version_alias.created")
    with (
        Ledger.open(location, environment="prod") as prod,
        Ledger.open(location, workspace="other") as other,
    ):
        hook(other, "model_version.created")
        register(ledger)
        version = write(prod, registry.create_version, "fraud", source="s3://b/m", now_ms=20)
        write(prod, facts.set_alias, "fraud", "best", version.id)
        assert [row[1] for row in outbox(ledger)] == ["model_version.created"]
        assert webhooks.due(prod, most=9) == [] == webhooks.due(other, most=9)
        assert head(ledger).event == "model_version.created"
        assert [one.name for one in webhooks.page(prod, most=9)[0]] == ["hook"]
        assert webhooks.page(other, most=9)[0][0].environment == "dev"


def test_each_webhook_has_its_turn(ledger: Ledger) -> None:
    """Of each webhook the delivery that waits longest is due; those that fail come last, and busy ones not at all."""
    first, second = hook(ledger), hook(ledger)
    for name in ("a", "b"):
        register(ledger, name)
    due = webhooks.due(ledger, most=9)
    assert [(one.webhook_id, json.loads(one.body)["data"]["name"]) for one in due] == [
        (first.id, "a"),
        (second.id, "a"),
    ]
    assert [one.webhook_id for one in webhooks.due(ledger, most=1, busy=[first.id])] == [second.id]
    write(ledger, webhooks.settle, due[0], error="no", again=webhooks.now_us(), paused=1)
    again = webhooks.due(ledger, most=9)
    assert [(one.webhook_id, one.failures) for one in again] == [(second.id, 0), (first.id, 1)]
    assert json.loads(again[1].body)["data"]["name"] == "b"


def test_how_an_attempt_ends(ledger: Ledger) -> None:
    """It is delivered, waits, or failed; a pause is the webhook's and ends with the first success or change."""
    made = hook(ledger)
    register(ledger)
    later = webhooks.now_us() + 3_600_000_000
    write(ledger, webhooks.settle, head(ledger), error="no", again=webhooks.now_us(), paused=later)
    assert webhooks.due(ledger, most=9) == []
    write(ledger, webhooks.update, made.id, {}, (), now_ms=11)
    second = head(ledger)
    assert (second.attempts, second.failures) == (1, 0)
    write(ledger, webhooks.settle, second, answer=200)
    assert outbox(ledger) == [(made.id, "registered_model.created", "delivered", 2, "")]
    register(ledger, "other")
    write(ledger, webhooks.settle, head(ledger), answer=400, error="x" * 9000)
    assert outbox(ledger)[1][2:4] == ("failed", 1) and len(outbox(ledger)[1][4]) == 500
    assert webhooks.due(ledger, most=9) == []


def test_a_deleted_webhook_is_told_nothing_more(ledger: Ledger) -> None:
    """What waits for it goes with it, and an attempt that is under way ends in nothing."""
    made = hook(ledger)
    register(ledger)
    under_way = head(ledger)
    write(ledger, webhooks.delete, made.id)
    write(ledger, webhooks.settle, under_way, answer=200)
    assert outbox(ledger) == [] == webhooks.due(ledger, most=9)


def test_a_disabled_webhook_waits(ledger: Ledger) -> None:
    """What was to be told before it was disabled is told when it is active again."""
    made = hook(ledger)
    register(ledger)
    write(ledger, webhooks.update, made.id, {"status": "DISABLED"}, (), now_ms=11)
    assert webhooks.due(ledger, most=9) == []
    write(ledger, webhooks.update, made.id, {"status": "ACTIVE"}, (), now_ms=12)
    assert head(ledger).webhook_id == made.id


def test_what_is_old_is_swept(ledger: Ledger) -> None:
    """What ended goes after a while, and what waits too long is given up first."""
    hook(ledger)
    register(ledger, "a")
    write(ledger, webhooks.settle, head(ledger), answer=200)
    register(ledger, "b")
    now = webhooks.now_us() + 1
    assert not webhooks.is_stale(ledger, ended=0, waiting=0)
    assert webhooks.is_stale(ledger, ended=now, waiting=0) and webhooks.is_stale(ledger, ended=0, waiting=now)
    write(ledger, webhooks.sweep, ended=now, waiting=0)
    assert [row[2] for row in outbox(ledger)] == ["waiting"]
    write(ledger, webhooks.sweep, ended=0, waiting=now)
    assert [row[2:] for row in outbox(ledger)] == [("failed", 0, "it waited too long")]


def test_tags_are_told_of_versions_and_of_prompts(ledger: Ledger) -> None:
    """A tag of a model itself is no event, as MLflow has it; one that was not there is not told as removed."""
    hook(ledger, *(f"{one}.{two}" for one, many in webhooks.EVENTS.items() for two in many))
    register(ledger)
    write(ledger, registrytags.tag_registered, "fraud", {"a": "1"})
    write(ledger, registrytags.untag_registered, "fraud", "a")
    register(ledger, "greet", tags={registry.PROMPT: "true"})
    write(ledger, registrytags.tag_registered, "greet", {"a": "1", "b": "2"})
    for _ in range(2):
        write(ledger, registrytags.untag_registered, "greet", "a")
    assert [row[1] for row in outbox(ledger)] == [
        "registered_model.created", "prompt.created", "prompt_tag.set", "prompt_tag.set", "prompt_tag.deleted",
    ]  # fmt: skip
