"""Evaluation datasets with the real client: records merged, read, searched, linked and removed."""

# mypy: ignore-errors
import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.genai.datasets import (
    add_dataset_to_experiments,
    create_dataset,
    delete_dataset,
    delete_dataset_tag,
    get_dataset,
    remove_dataset_from_experiments,
    search_datasets,
    set_dataset_tags,
)

home = mlflow.create_experiment("asked")
other = mlflow.create_experiment("asked too")
made = create_dataset(name="questions", experiment_id=[home], tags={"team": "red"})
assert (made.name, made.experiment_ids, made.tags["team"]) == ("questions", [home], "red")
made.merge_records(
    [
        {"inputs": {"q": "one"}, "expectations": {"answer": "1"}, "tags": {"a": "b"}},
        {"inputs": {"q": "two", "n": 2**60}, "outputs": {"said": None}},
    ]
)
made.merge_records(pd.DataFrame([{"inputs": {"q": "one"}, "expectations": {"length": 3}}]))


def rows():
    """Return the records by what was asked."""
    table = get_dataset(dataset_id=made.dataset_id).to_df()
    return {one["inputs"]["q"]: one for one in table.to_dict("records")}


read = get_dataset(dataset_id=made.dataset_id)
assert set(rows()) == {"one", "two"} and rows()["two"]["inputs"]["n"] == 2**60
assert rows()["one"]["expectations"] == {"answer": "1", "length": 3} and rows()["one"]["tags"]["a"] == "b"
with mlflow.start_span("asked") as span:
    span.set_inputs({"q": "three"})
    span.set_outputs("3")
mlflow.flush_trace_async_logging()
read.merge_records([mlflow.get_trace(span.trace_id)])
third = rows()["three"]
assert (third["source_type"], third["source_id"]) == ("TRACE", span.trace_id), third
assert read.delete_records([third["dataset_record_id"]]) == 1 and set(rows()) == {"one", "two"}

more = create_dataset(name="more", experiment_id=[other])
names = [one.name for one in search_datasets(experiment_ids=[home, other], order_by=["name ASC"])]
assert names == ["more", "questions"]
assert [one.name for one in search_datasets(experiment_ids=[home, other], filter_string="tags.team = 'red'")] == [
    "questions"
]
assert [one.name for one in search_datasets(experiment_ids=[home], filter_string="name LIKE 'q%'")] == ["questions"]
set_dataset_tags(dataset_id=more.dataset_id, tags={"x": "y", "z": "w"})
delete_dataset_tag(dataset_id=more.dataset_id, key="x")
assert (
    get_dataset(dataset_id=more.dataset_id).tags["z"] == "w" and "x" not in get_dataset(dataset_id=more.dataset_id).tags
)
assert add_dataset_to_experiments(more.dataset_id, [home]).experiment_ids == [home, other]
assert remove_dataset_from_experiments(more.dataset_id, [other]).experiment_ids == [home]
delete_dataset(dataset_id=more.dataset_id)
try:
    get_dataset(dataset_id=more.dataset_id)
    raise AssertionError("it is still there")
except MlflowException as error:
    assert error.error_code == "RESOURCE_DOES_NOT_EXIST", error
print("done")
