"""Webhooks as MLflow's clients keep them; what they are told of, and how it is signed, is MLflow's too."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from trimtab.api.delivery import send
from trimtab.api.mlflow import limits
from trimtab.api.mlflow.tracking import now_ms
from trimtab.api.mlflow.wire import NEEDED, TEXT, WHOLE, Field, MlflowError, Spec, invalid
from trimtab.api.outbound import LONGEST, Guard
from trimtab.core.errors import TrimtabError
from trimtab.core.nouns import Data
from trimtab.store import webhooks
from trimtab.store.secrets import Secrets
from trimtab.store.store import Store
from trimtab.store.webhooks import EVENTS, Webhook

_USUAL, _MOST = 100, 1000
_DESCRIPTION = _SECRET = 1000
_SHOWN = 64 * 1024
_STATUSES = ("ACTIVE", "DISABLED")
_NAME = re.compile(r"(?=.{1,63}$)[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE | re.ASCII)
_ENTITIES = ("entity_unspecified", *EVENTS)
_ACTIONS = ("action_unspecified", "created", "updated", "deleted", "set", "exceeded")
"""In the order of their numbers in the protocol, which a client may send instead of the names."""


class Webhooks:
    """The operations on webhooks, each from a request's arguments to an answer.

    Args:
        store: whose ledger is read and written, and in whose folder the key of the secrets lies.
    """

    def __init__(self, store: Store) -> None:
        self._ledger = store.ledger
        self._secrets = Secrets(store.home.root)
        self._guard = Guard.of_environment()

    def create(self, given: Data) -> Data:
        """Add a webhook."""
        ident, found = webhooks.new_key(), self._checked(given)
        events = _events(given["events"])
        secret = self._sealed(given.get("secret") or "", ident)
        made = self._ledger.write(
            lambda tx: webhooks.create(
                tx,
                ident,
                name=found["name"],
                url=found["url"],
                description=found.get("description", ""),
                secret=secret,
                status="DISABLED" if found.get("status") == "DISABLED" else "ACTIVE",
                events=events,
                now_ms=now_ms(),
            ),
            what="create webhook",
        )
        return {"webhook": webhook_data(made)}

    def get(self, given: Data) -> Data:
        """Return a webhook."""
        return {"webhook": webhook_data(webhooks.get(self._ledger, given["webhook_id"]))}

    def list(self, given: Data) -> Data:
        """Return a page of webhooks, newest first."""
        most = given.get("max_results") or _USUAL
        if not 1 <= most <= _MOST:
            raise MlflowError(f"max_results must be between 1 and {_MOST}.")
        found, token = webhooks.page(self._ledger, most=most, token=given.get("page_token") or "")
        told = {"webhooks": [webhook_data(one) for one in found], "next_page_token": token}
        return {name: value for name, value in told.items() if value}

    def update(self, given: Data) -> Data:
        """Change a webhook; what is not given, or empty, stays."""
        ident = given["webhook_id"]
        webhooks.get(self._ledger, ident)
        changes = self._checked(given)
        events = _events(given["events"]) if given.get("events") else ()
        if given.get("secret"):
            changes["secret"] = self._sealed(given["secret"], ident)
        made = self._ledger.write(
            lambda tx: webhooks.update(tx, ident, changes, events, now_ms=now_ms()), what="update webhook"
        )
        return {"webhook": webhook_data(made)}

    def delete(self, given: Data) -> Data:
        """Delete a webhook."""
        self._ledger.write(lambda tx: webhooks.delete(tx, given["webhook_id"]), what="delete webhook")
        return {}

    def test(self, given: Data) -> Data:
        """Send an example of an event, by default of the first one, and tell what came back."""
        known = webhooks.get(self._ledger, given["webhook_id"])
        event = _events([given["event"]])[0] if "event" in given else known.events[0]
        try:
            secret = self._secrets.open(known.secret, known.id) if known.secret else ""
            body = webhooks.body_of(event, EXAMPLES[event])
            answer = send(self._guard, known.url, webhooks.new_key(), body, secret, most=_SHOWN)
        except TrimtabError as error:
            return {"result": {"success": False, "error_message": f"Failed to test webhook: {error.message}"}}
        text = answer.body.decode("utf-8", "replace")
        # A redirect is not followed, so nobody has taken what was sent.
        told = {"success": 200 <= answer.status < 300, "response_status": answer.status}
        return {"result": {**told, "response_body": text} if text else told}

    def _checked(self, given: Data) -> dict[str, str]:
        """Return what is given of a webhook's texts, each as it may be."""
        found: dict[str, str] = {
            name: given[name] for name in ("name", "url", "description", "status") if given.get(name)
        }
        if "name" in found and not _NAME.fullmatch(found["name"]):
            raise MlflowError(
                f"Webhook name {found['name']!r} is invalid. It must start and end with a letter or digit, be less than"
                " 63 characters long, and contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
            )
        if "url" in found:
            limits.check_length("url", LONGEST, found["url"])
            self._guard.addresses(self._guard.target(found["url"]))
        if "description" in found:
            limits.check_length("description", _DESCRIPTION, found["description"])
        if found.get("status", "ACTIVE") not in _STATUSES:
            raise invalid("status", found["status"], f"it must be one of {', '.join(_STATUSES)}")
        return found

    def _sealed(self, secret: str, ident: str) -> str:
        limits.check_length("secret", _SECRET, secret)
        return self._secrets.seal(secret, ident, first=not webhooks.any_secret(self._ledger)) if secret else ""


def _events(items: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of events, such as ``model_version_tag.set``.

    Raises:
        MlflowError: there are none, or one does not happen.
    """
    if not items:
        raise MlflowError("Webhook events must be a non-empty list of WebhookEvent objects: [].")
    found = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise invalid(f"events[{index}]", item)
        entity, action = _word(item, "entity", _ENTITIES), _word(item, "action", _ACTIONS)
        if action not in EVENTS.get(entity, ()):
            raise MlflowError(
                f"Invalid action '{action}' for entity '{entity}'. Valid actions are: {sorted(EVENTS.get(entity, ()))}"
            )
        found.append(f"{entity}.{action}")
    return tuple(found)


def _word(item: Data, name: str, words: Sequence[str]) -> str:
    value = item.get(name, 0)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words):
        return words[value]
    if isinstance(value, str) and value.isupper() and value.lower() in words:
        return value.lower()
    raise invalid(name, value, f"it must be one of {', '.join(word.upper() for word in words[1:])}")


def webhook_data(found: Webhook) -> Data:
    """Return a webhook as an answer has it: its secret never is."""
    events = [dict(zip(("entity", "action"), event.upper().split("."), strict=True)) for event in found.events]
    told = {"webhook_id": found.id, "name": found.name, "url": found.url, "events": events, "status": found.status}
    if found.description:
        told["description"] = found.description
    return {**told, "creation_timestamp": found.created_ms, "last_updated_timestamp": found.updated_ms}


_NAMED = {"name": "example_model"}
_TAGS: Data = {"tags": {"example_key": "example_value"}}
_VERSION = {**_NAMED, "version": "1"}
_PROMPT = {"name": "example_prompt"}
_PROMPT_VERSION = {**_PROMPT, "version": "1"}
_KEY = {"key": "example_key"}
_SET = {**_KEY, "value": "example_value"}
_ALIAS = {"alias": "example_alias"}
EXAMPLES: dict[str, Data] = {
    "registered_model.created": {**_NAMED, **_TAGS, "description": "An example registered model"},
    "model_version.created": {
        **_VERSION,
        "source": "models:/123",
        "run_id": "abcd1234abcd5678",
        **_TAGS,
        "description": "An example model version",
    },
    "model_version_tag.set": {**_VERSION, **_SET},
    "model_version_tag.deleted": {**_VERSION, **_KEY},
    "model_version_alias.created": {**_NAMED, **_ALIAS, "version": "1"},
    "model_version_alias.deleted": {**_NAMED, **_ALIAS},
    "prompt.created": {**_PROMPT, **_TAGS, "description": "An example prompt"},
    "prompt_version.created": {
        **_PROMPT_VERSION,
        "template": "Hello {{name}}!",
        **_TAGS,
        "description": "An example prompt version",
    },
    "prompt_tag.set": {**_PROMPT, **_SET},
    "prompt_tag.deleted": {**_PROMPT, **_KEY},
    "prompt_version_tag.set": {**_PROMPT_VERSION, **_SET},
    "prompt_version_tag.deleted": {**_PROMPT_VERSION, **_KEY},
    "prompt_alias.created": {**_PROMPT, **_ALIAS, "version": "1"},
    "prompt_alias.deleted": {**_PROMPT, **_ALIAS},
    "budget_policy.exceeded": {
        "budget_policy_id": "bp-abc123",
        "budget_unit": "USD",
        "budget_amount": 100.0,
        "current_spend": 105.5,
        "duration_unit": "MONTHS",
        "duration_value": 1,
        "target_scope": "WORKSPACE",
        "workspace": "default",
        "window_start": 1704067200000,
    },
}
"""What a test sends of each event."""
_FIELDS: Spec = {"description": TEXT, "secret": TEXT, "status": TEXT}
_ONE = "webhooks/{webhook_id:str}"
Operation = tuple[str, str, Spec, Callable[[Webhooks, Data], Data]]
OPERATIONS: tuple[Operation, ...] = (
    ("POST", "webhooks", {"name": NEEDED, "url": NEEDED, "events": Field("list", True), **_FIELDS}, Webhooks.create),
    ("GET", "webhooks", {"max_results": WHOLE, "page_token": TEXT}, Webhooks.list),
    ("GET", _ONE, {}, Webhooks.get),
    ("PATCH", _ONE, {"name": TEXT, "url": TEXT, "events": Field("list"), **_FIELDS}, Webhooks.update),
    ("DELETE", _ONE, {}, Webhooks.delete),
    ("POST", f"{_ONE}/test", {"event": Field("object")}, Webhooks.test),
)
"""Method, path below ``/api/2.0/mlflow/``, the request's fields, and what answers it."""
