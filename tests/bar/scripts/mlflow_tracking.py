"""Tracking with the real client: experiments, runs, metrics, searches, pages, histories, data, models, nesting."""

# mypy: ignore-errors
import math

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from refusals import refused

client = MlflowClient()


# Experiments: names, tags, pages, stages.
numbers = [
    client.create_experiment(f"exp {place}", tags={"team": "red" if place % 2 else "blue"}) for place in range(5)
]
assert client.get_experiment_by_name("exp 3").experiment_id == numbers[3]
assert client.get_experiment(numbers[0]).artifact_location == f"mlflow-artifacts:/{numbers[0]}"
refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, "exp 1")
page = client.search_experiments(max_results=2, filter_string="name LIKE 'exp%'", order_by=["name ASC"])
names = [one.name for one in page]
while page.token:
    page = client.search_experiments(
        max_results=2, filter_string="name LIKE 'exp%'", order_by=["name ASC"], page_token=page.token
    )
    names += [one.name for one in page]
assert names == [f"exp {place}" for place in range(5)], names
assert [one.name for one in client.search_experiments(filter_string="tags.team = 'red'", order_by=["name"])] == [
    "exp 1",
    "exp 3",
]
assert [one.experiment_id for one in client.search_experiments()][-1] == "0"
client.delete_experiment(numbers[4])
assert client.get_experiment(numbers[4]).lifecycle_stage == "deleted"
assert [one.name for one in client.search_experiments(view_type=ViewType.DELETED_ONLY)] == ["exp 4"]
assert len(client.search_experiments(view_type=ViewType.ALL)) == 6
client.restore_experiment(numbers[4])
client.rename_experiment(numbers[4], "exp four")
assert "exp four" in {one.name for one in client.search_experiments()}

# Runs: every kind of value, read back exactly.
home = numbers[0]
run = client.create_run(home, run_name="first", tags={"kind": "a"})
ident = run.info.run_id
assert (run.info.run_name, run.info.status, run.data.tags["mlflow.runName"]) == ("first", "RUNNING", "first")
for name, value in {"nan": math.nan, "inf": math.inf, "low": -math.inf, "zero": -0.0, "tiny": 5e-324}.items():
    client.log_metric(ident, name, value, step=3)
client.log_param(ident, "depth", 6)
client.log_batch(
    ident,
    [Metric("m", place / 10, 1000 + place, place) for place in range(30)],
    [Param("p", "ä\n☂")],
    [RunTag("t", "")],
)
refused("INVALID_PARAMETER_VALUE", client.log_param, ident, "depth", 7)
client.log_param(ident, "depth", 6)
read = client.get_run(ident)
assert (
    math.isnan(read.data.metrics["nan"])
    and read.data.metrics["inf"] == math.inf
    and read.data.metrics["low"] == -math.inf
)
assert math.copysign(1, read.data.metrics["zero"]) == -1 and read.data.metrics["tiny"] == 5e-324
assert read.data.params == {"depth": "6", "p": "ä\n☂"} and read.data.tags["t"] == ""
assert read.data.metrics["m"] == 2.9
history = client.get_metric_history(ident, "m")
assert [(one.step, one.value, one.timestamp) for one in history] == [(n, n / 10, 1000 + n) for n in range(30)]
assert client.get_metric_history(ident, "never") == []
client.set_terminated(ident, "FINISHED", end_time=run.info.start_time + 5)
assert client.get_run(ident).info.end_time == run.info.start_time + 5
refused("RESOURCE_DOES_NOT_EXIST", client.get_run, "f" * 32)

# Searches with filters, orders and pages.
made = []
for place in range(25):
    one = client.create_run(home, start_time=10_000 + place, run_name=f"many-{place}")
    value = math.nan if place == 7 else float(place % 10)
    client.log_batch(
        one.info.run_id,
        [Metric("score", value, 1, 0), Metric("loss", -float(place), 1, 0)],
        [Param("color", ["red", "green"][place % 2])],
        [RunTag("group", f"g{place % 3}")] + ([RunTag("odd key", "x")] if place == 3 else []),
    )
    made.append(one.info.run_id)


def names_of(filter_string, order_by=None, **more):
    """Return the names of the runs that a filter lets through, in order."""
    found = client.search_runs([home], filter_string, order_by=order_by, **more)
    return [one.info.run_name for one in found]


assert names_of("metrics.score > 8", ["metrics.loss ASC"]) == ["many-19", "many-9"]
assert names_of("metrics.score >= 9 and params.color = 'green' and tags.group = 'g1'") == ["many-19"]
assert len(names_of("params.color != 'red' and tags.group LIKE 'g_'")) == 12
assert names_of("attributes.run_name ILIKE 'FIRST'") == ["first"]
assert names_of("run_name = 'many-3' AND tags.group IS NOT NULL") == ["many-3"]
assert names_of("tags.\"odd key\" = 'x'") == ["many-3"]
assert len(names_of("tags.group IS NULL")) == 1
assert names_of(f"run_id IN ('{made[1]}', '{made[2]}')", ["start_time ASC"]) == ["many-1", "many-2"]
assert names_of("status = 'FINISHED'") == ["first"]
assert names_of("start_time < 10003", ["attributes.start_time DESC"]) == ["many-2", "many-1", "many-0"]
ordered = names_of("", ["metrics.score DESC"], max_results=50)
assert ordered[-2:] == ["many-7", "first"], ordered  # NaN, and then what has none
refused("INVALID_PARAMETER_VALUE", client.search_runs, [home], "nothing.score > 1")
refused("INVALID_PARAMETER_VALUE", client.search_runs, [home], "metrics.score > 'a'")
refused("INVALID_PARAMETER_VALUE", client.search_runs, [home], max_results=50_001)
refused("INVALID_PARAMETER_VALUE", client.search_runs, [home], page_token="nonsense")
seen, token = [], None
while True:
    page = client.search_runs([home], order_by=["metrics.score ASC"], max_results=7, page_token=token)
    seen += [one.info.run_id for one in page]
    token = page.token
    if not token:
        break
assert len(seen) == len(set(seen)) == 26
assert seen == [one.info.run_id for one in client.search_runs([home], order_by=["metrics.score ASC"], max_results=1000)]

# Deleting, restoring, tags.
client.delete_run(made[0])
assert len(client.search_runs([home])) == 25
assert [one.info.run_id for one in client.search_runs([home], run_view_type=ViewType.DELETED_ONLY)] == [made[0]]
client.restore_run(made[0])
client.set_tag(made[0], "x", "y")
client.delete_tag(made[0], "x")
refused("RESOURCE_DOES_NOT_EXIST", client.delete_tag, made[0], "x")
client.update_run(made[0], status="FAILED", name="renamed")
assert (client.get_run(made[0]).info.status, client.get_run(made[0]).info.run_name) == ("FAILED", "renamed")

# Data that a run read, and models that it used and made.
data = Dataset("flights", "abc123", "local", '{"uri": "x"}', schema='{"s": 1}', profile='{"rows": 3}')
client.log_inputs(made[1], [DatasetInput(data, [InputTag("mlflow.data.context", "train")])])
client.log_inputs(made[1], [DatasetInput(data, [InputTag("mlflow.data.context", "again")])])
inputs = client.get_run(made[1]).inputs.dataset_inputs
assert len(inputs) == 1 and inputs[0].dataset.profile == '{"rows": 3}' and inputs[0].tags[0].value == "train"
assert names_of("dataset.name = 'flights' AND dataset.context = 'train'") == ["many-1"]
assert names_of("dataset.digest IN ('abc123', 'zzz')") == ["many-1"]
mlflow.set_experiment(experiment_id=home)
with mlflow.start_run(run_name="models"):
    model = mlflow.initialize_logged_model("clf", params={"depth": "3"}, tags={"a": "b"})
    other = mlflow.initialize_logged_model("clf", model_type="agent")
    mlflow.log_metric("acc", 0.5, model_id=model.model_id, dataset=None)
    mlflow.log_metric("acc", 0.9, model_id=other.model_id, step=2)
    current = mlflow.active_run().info.run_id
client.log_inputs(made[2], models=[LoggedModelInput(model.model_id)])
client.log_outputs(made[2], [LoggedModelOutput(other.model_id, step=7)])
read = client.get_run(made[2])
assert [one.model_id for one in read.inputs.model_inputs] == [model.model_id]
assert [(one.model_id, one.step) for one in read.outputs.model_outputs] == [(other.model_id, 7)]
assert [one.value for one in client.get_logged_model(model.model_id).metrics] == [0.5]
found = client.search_logged_models([home], "metrics.acc > 0.6")
assert [one.model_id for one in found] == [other.model_id]
found = client.search_logged_models([home], order_by=[{"field_name": "metrics.acc", "ascending": True}])
assert [one.model_id for one in found] == [model.model_id, other.model_id]
assert len(client.search_logged_models([home], "name = 'clf' AND params.depth = '3'")) == 1
first = client.search_logged_models([home], max_results=1)
assert first.token and client.search_logged_models([home], max_results=1, page_token=first.token).token is None
with mlflow.start_run(run_name="on data"):
    mlflow.log_metrics({"f1": 0.25}, model_id=model.model_id)
    client.log_batch(
        mlflow.active_run().info.run_id,
        [Metric("f1", 0.75, 5, 0, model_id=model.model_id, dataset_name="flights", dataset_digest="abc123")],
    )
where = [{"dataset_name": "flights"}]
assert [one.model_id for one in client.search_logged_models([home], "metrics.f1 > 0.5", datasets=where)] == [
    model.model_id
]
assert not client.search_logged_models([home], "metrics.f1 < 0.5", datasets=where)
assert len(client.search_logged_models([home], datasets=where)) == 1
found = client.search_logged_models(
    [home], order_by=[{"field_name": "metrics.f1", "ascending": False, "dataset_name": "flights"}]
)
assert found[0].model_id == model.model_id

# Nested runs, and a run that goes on after its end.
with mlflow.start_run(run_name="parent") as parent, mlflow.start_run(run_name="child", nested=True) as child:
    mlflow.log_metric("deep", 1)
assert names_of(f"tags.mlflow.parentRunId = '{parent.info.run_id}'") == ["child"]
with mlflow.start_run(run_id=parent.info.run_id):
    mlflow.log_metric("later", 2)
assert client.get_run(parent.info.run_id).data.metrics == {"later": 2.0}
assert (
    mlflow.search_runs([home], "tags.mlflow.runName = 'child'", output_format="list")[0].info.run_id
    == child.info.run_id
)
print("done")
