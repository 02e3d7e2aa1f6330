"""Webhooks with the real client: kept, changed, tested and deleted; then acts that the receiver is told of."""

# mypy: ignore-errors
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities.webhook import VALID_ENTITY_ACTIONS, WebhookEvent, WebhookStatus
from refusals import refused

_, _, target, secret = sys.argv
client = MlflowClient()


# Kept, read, listed, changed.
every = [WebhookEvent(entity, action) for entity, actions in VALID_ENTITY_ACTIONS.items() for action in sorted(actions)]
made = client.create_webhook("first", f"{target}/first", ["registered_model.created"], description="d", secret=secret)
assert (made.name, made.url, made.description, made.status) == ("first", f"{target}/first", "d", WebhookStatus.ACTIVE)
assert (
    made.secret is None
    and made.creation_timestamp > 0
    and [str(e) for e in made.events] == ["registered_model.created"]
)
assert client.get_webhook(made.webhook_id).url == made.url
asleep = client.create_webhook("asleep", f"{target}/asleep", every, status="DISABLED")
assert asleep.events == every and asleep.status == WebhookStatus.DISABLED
page = client.list_webhooks(max_results=1)
assert [one.name for one in page] == ["asleep"]
assert [one.name for one in client.list_webhooks(max_results=1, page_token=page.token)] == ["first"]
changed = client.update_webhook(
    made.webhook_id, name="main", description="e", url=f"{target}/main", events=every, secret=secret, status="ACTIVE"
)
assert (changed.name, changed.description, changed.url, changed.events) == ("main", "e", f"{target}/main", every)

# Tested.
result = client.test_webhook(made.webhook_id)
assert (result.success, result.response_status, result.response_body) == (True, 200, "thanks"), result
assert client.test_webhook(made.webhook_id, event="prompt_version.created").success
broken = client.create_webhook("broken", "http://127.0.0.1:9/", ["prompt.created"])
result = client.test_webhook(broken.webhook_id)
assert not result.success and "Failed to test webhook" in result.error_message
client.delete_webhook(broken.webhook_id)
refused("RESOURCE_DOES_NOT_EXIST", client.get_webhook, broken.webhook_id)
refused("RESOURCE_DOES_NOT_EXIST", client.test_webhook, broken.webhook_id)

# Refused.
for name in ("-a", "a b", "a" * 64):
    assert f"Webhook name '{name}' is invalid" in refused(
        "INVALID_PARAMETER_VALUE", client.create_webhook, name, target, ["prompt.created"]
    )
for url, words in (
    ("http://a.example", "Invalid webhook URL scheme: 'http'"),
    ("https://169.254.169.254/latest", "must not resolve to a non-public IP address"),
    ("https://localhost/", "must not resolve to a non-public IP address"),
):
    assert words in refused("INVALID_PARAMETER_VALUE", client.create_webhook, "a", url, ["prompt.created"])
refused("INVALID_PARAMETER_VALUE", client.create_webhook, "a", f"{target}/x", [])

# Acts.
client.create_registered_model("fraud", tags={"a": "1"}, description="about fraud")
client.create_model_version("fraud", "s3://bucket/model")
client.set_model_version_tag("fraud", "1", "k", "v")
client.delete_model_version_tag("fraud", "1", "k")
client.set_registered_model_alias("fraud", "best", "1")
client.delete_registered_model_alias("fraud", "best")
mlflow.genai.register_prompt("greet", "Hello {{name}}", commit_message="first", tags={"author": "a"})
mlflow.genai.set_prompt_alias("greet", "production", 1)
print("done")
