"""The registry with the real client: models, versions, stages, aliases, searches, prompts, and files read back."""

# mypy: ignore-errors
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from refusals import refused

client = MlflowClient()


# A model that a run logs, with a file, becomes a version of a name.
with mlflow.start_run() as run:
    model = mlflow.initialize_logged_model("clf", source_run_id=run.info.run_id)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "MLmodel").write_text("flavors: {}\n")
        client.log_model_artifacts(model.model_id, folder)
    mlflow.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
made = mlflow.register_model(f"models:/{model.model_id}", "fraud", tags={"kind": "first"})
assert (made.version, made.status, made.run_id, made.tags) == ("1", "READY", run.info.run_id, {"kind": "first"})
assert mlflow.register_model(f"models:/{model.model_id}", "fraud").version == "2"
uri = client.get_model_version_download_uri("fraud", "1")
assert uri == client.get_logged_model(model.model_id).artifact_location and uri.startswith("mlflow-artifacts:/")
client.set_registered_model_alias("fraud", "best", "1")
for source in ("models:/fraud/1", "models:/fraud@best", "models:/fraud/latest"):
    kept = mlflow.artifacts.download_artifacts(source)
    assert Path(kept, "MLmodel").read_text() == "flavors: {}\n"

# Reading, changing and searching.
found = client.get_registered_model("fraud")
assert found.aliases == {"best": "1"} and [one.version for one in found.latest_versions] == ["2"]
assert client.get_model_version_by_alias("fraud", "best").aliases == ["best"]
client.update_registered_model("fraud", "about fraud")
client.set_registered_model_tag("fraud", "team", "red")
assert client.get_registered_model("fraud").tags == {"team": "red"}
client.delete_registered_model_tag("fraud", "team")
client.update_model_version("fraud", "1", "the first")
client.set_model_version_tag("fraud", "1", "checked", "yes")
assert client.get_model_version("fraud", "1").tags == {"kind": "first", "checked": "yes"}
client.delete_model_version_tag("fraud", "1", "checked")
moved = client.transition_model_version_stage("fraud", "1", "Production", archive_existing_versions=True)
assert moved.current_stage == "Production"
assert [one.version for one in client.get_latest_versions("fraud", ["Production"])] == ["1"]
copied = client.copy_model_version("models:/fraud/1", "copy of fraud")
assert client.get_model_version_download_uri(copied.name, copied.version) == uri
for name in ("m1", "m2", "m3"):
    client.create_registered_model(name, tags={"many": "yes"})
page = client.search_registered_models("tags.many = 'yes'", max_results=2, order_by=["name DESC"])
assert [one.name for one in page] == ["m3", "m2"]
rest = client.search_registered_models(
    "tags.many = 'yes'", max_results=2, order_by=["name DESC"], page_token=page.token
)
assert [one.name for one in rest] == ["m1"] and not rest.token
assert [one.name for one in client.search_registered_models("name LIKE '%fraud%'")] == ["copy of fraud", "fraud"]
by_run = client.search_model_versions(f"run_id = '{run.info.run_id}'", order_by=["name DESC", "version_number ASC"])
assert [(one.name, one.version) for one in by_run] == [("fraud", "1"), ("fraud", "2"), ("copy of fraud", "1")]
client.rename_registered_model("m3", "m4")
assert client.get_registered_model("m4").tags == {"many": "yes"}
refused("RESOURCE_ALREADY_EXISTS", client.create_registered_model, "m1")
refused("RESOURCE_ALREADY_EXISTS", client.rename_registered_model, "m4", "m1")
refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, "m3")
refused("RESOURCE_DOES_NOT_EXIST", client.get_model_version, "fraud", "9")
refused("INVALID_PARAMETER_VALUE", client.get_model_version_by_alias, "fraud", "none")
refused("INVALID_PARAMETER_VALUE", client.create_model_version, "fraud", "/etc/passwd")
client.delete_registered_model_alias("fraud", "best")
client.delete_model_version("fraud", "2")
assert mlflow.register_model(f"models:/{model.model_id}", "fraud").version == "3"
client.delete_registered_model("m4")

# Prompts.
first = mlflow.genai.register_prompt("greet", "Hello {{name}}", commit_message="first", tags={"author": "a"})
chat = [{"role": "user", "content": "Hi {{name}}"}]
second = mlflow.genai.register_prompt("greet", chat, response_format={"type": "object"})
assert (first.version, second.version) == (1, 2)
loaded = mlflow.genai.load_prompt("greet", version=1)
assert loaded.template == "Hello {{name}}" and loaded.format(name="you") == "Hello you"
assert (loaded.commit_message, loaded.tags["author"]) == ("first", "a")
mlflow.genai.set_prompt_alias("greet", "production", 1)
assert mlflow.genai.load_prompt("prompts:/greet@production").version == 1
assert mlflow.genai.load_prompt("prompts:/greet@latest").template == chat
client.set_prompt_tag("greet", "team", "red")
client.set_prompt_version_tag("greet", 2, "state", "new")
assert client.get_prompt("greet").tags["team"] == "red"
assert client.get_prompt_version("greet", "2").tags["state"] == "new"
client.delete_prompt_version_tag("greet", 2, "state")
client.delete_prompt_tag("greet", "team")
assert [one.name for one in mlflow.genai.search_prompts()] == ["greet"]
assert [one.name for one in mlflow.genai.search_prompts("name = 'greet'")] == ["greet"]
assert sorted(one.version for one in client.search_prompt_versions("greet")) == [1, 2]
assert "greet" not in [one.name for one in client.search_registered_models()]
assert mlflow.genai.load_prompt("nothing", allow_missing=True) is None
refused("RESOURCE_ALREADY_EXISTS", client.create_registered_model, "greet")
mlflow.genai.delete_prompt_alias("greet", "production")
for version in ("1", "2"):
    client.delete_prompt_version("greet", version)
client.delete_prompt("greet")
assert mlflow.genai.search_prompts() == []
print("done")
