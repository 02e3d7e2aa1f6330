"""What a training script says with the real client: files, figures, tables, images, data, metrics and how they run."""

# mypy: ignore-errors
import os
import time
from pathlib import Path

import matplotlib as mpl
import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient

mpl.use("Agg")
import matplotlib.pyplot as plt

client = MlflowClient()
home = mlflow.set_experiment("spoken", trace_location=None).experiment_id
assert mlflow.set_experiment(experiment_id=home).name == "spoken"
table = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "score": [0.5, float("nan"), 1.0]})

# Files of every kind, and the same bytes back.
folder = Path("files/deep")
folder.mkdir(parents=True)
(folder / "bytes.bin").write_bytes(bytes(range(256)) * 40)
(folder.parent / "ä ☂ +&=%~.txt").write_text("odd")
(folder.parent / "empty").write_bytes(b"")
with mlflow.start_run(run_name="files") as run:
    ident = run.info.run_id
    mlflow.log_text("héllo", "notes/text.txt")
    mlflow.log_dict({"k": [1, {"x": None}]}, "data.json")
    mlflow.log_dict({"k": 1}, "data.yaml")
    figure = plt.figure()
    mlflow.log_figure(figure, "plots/figure.png")
    plt.close(figure)
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    mlflow.log_image(image, "image.png")
    mlflow.log_image(image, key="pictures", step=1)
    mlflow.log_image(image, key="pictures", step=2, synchronous=True)
    mlflow.log_table(table, "table.json")
    mlflow.log_table(table, "table.json")
    mlflow.log_artifacts("files", "given")
    mlflow.log_artifact("files/empty")
    uri = mlflow.get_artifact_uri("given")
    mlflow.flush_artifact_async_logging()
assert uri == f"mlflow-artifacts:/{home}/{ident}/artifacts/given"
assert mlflow.artifacts.load_text(f"runs:/{ident}/notes/text.txt") == "héllo"
assert mlflow.artifacts.load_dict(f"runs:/{ident}/data.json") == {"k": [1, {"x": None}]}
assert mlflow.artifacts.load_image(f"runs:/{ident}/image.png").size == (8, 8)
assert len(client.list_artifacts(ident, "images")) == 4
assert len(mlflow.load_table("table.json", [ident])) == 6
extra = mlflow.load_table("table.json", [ident], extra_columns=["run_id"])
assert set(extra["run_id"]) == {ident}
kept = Path(mlflow.artifacts.download_artifacts(run_id=ident, artifact_path="given", dst_path="down"))
for name in ("deep/bytes.bin", "ä ☂ +&=%~.txt", "empty"):
    assert (kept / name).read_bytes() == Path("files", name).read_bytes(), name
whole = Path(mlflow.artifacts.download_artifacts(f"runs:/{ident}/"))
assert (whole / "plots" / "figure.png").read_bytes()[:4] == b"\x89PNG"
one = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/deep/bytes.bin"))
assert one.read_bytes() == (folder / "bytes.bin").read_bytes()
listed = {one.path: (one.is_dir, one.file_size) for one in mlflow.artifacts.list_artifacts(run_id=ident)}
assert listed["empty"] == (False, 0) and listed["given"][0], listed
client.delete_tag(ident, "mlflow.loggedArtifacts")

# Data, and metrics that speak of a model and of data.
frame = mlflow.data.from_pandas(table, source="https://example.com/t.csv", name="frame", targets="score")
array = mlflow.data.from_numpy(np.ones((3, 2)), targets=np.zeros(3), name="array")
with mlflow.start_run(run_name="data") as run:
    mlflow.log_input(frame, context="training", tags={"more": "yes"})
    mlflow.log_inputs([frame, array], contexts=["eval", "test"], tags_list=[None, {"n": "1"}])
    model = mlflow.create_external_model("outside", params={"deep": "1"})
    mlflow.log_metric("acc", 0.5, step=1, model_id=model.model_id, dataset=frame)
    mlflow.log_metric("acc", 0.75, step=2, model_id=model.model_id, dataset=frame)
    mlflow.log_metrics({"f1": 0.25}, step=3, model_id=model.model_id, dataset=array)
    mlflow.log_params({"list": [1, 2], "none": None})
    mlflow.log_model_params({"later": "2"}, model_id=model.model_id)
    mlflow.set_logged_model_tags(model.model_id, {"kind": "outside"})
found = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
assert {one.dataset.name for one in found} == {"frame", "array"}, found
source = mlflow.data.get_source(next(one for one in found if one.dataset.name == "frame"))
assert source.url == "https://example.com/t.csv"
model = mlflow.get_logged_model(model.model_id)
told = {(one.key, one.value, one.dataset_name, one.dataset_digest) for one in model.metrics}
assert told == {("acc", 0.75, "frame", frame.digest), ("f1", 0.25, "array", array.digest)}, told
assert (model.params, model.tags["kind"]) == ({"deep": "1", "later": "2"}, "outside")
models = mlflow.search_logged_models(experiment_ids=[home], filter_string="metrics.acc > 0.7 AND tags.kind = 'outside'")
assert list(models["model_id"]) == [model.model_id]
assert mlflow.last_logged_model().model_id == model.model_id

# Nested runs, and searches as tables.
with mlflow.start_run(run_name="outer", tags={"group": "nest"}, description="of all") as outer:
    for depth in range(3):
        with mlflow.start_run(run_name=f"inner {depth}", nested=True, log_system_metrics=False):
            mlflow.log_param("depth", depth)
            mlflow.log_metric("loss", 1 / (depth + 1))
            with mlflow.start_run(nested=True):
                mlflow.log_metric("leaf", depth)
frame = mlflow.search_runs(
    filter_string=f"tags.mlflow.parentRunId = '{outer.info.run_id}'", order_by=["metrics.loss ASC"]
)
assert list(frame["params.depth"]) == ["2", "1", "0"] and list(frame["metrics.loss"]) == [1 / 3, 0.5, 1.0]
assert str(frame["start_time"].dtype).startswith("datetime64") and set(frame["status"]) == {"FINISHED"}
assert mlflow.search_runs(experiment_names=["spoken"], max_results=2).shape[0] == 2
assert mlflow.search_runs(filter_string="metrics.loss > 100").empty
assert mlflow.last_active_run().info.run_id == outer.info.run_id
assert mlflow.get_parent_run(frame["run_id"][0]).info.run_id == outer.info.run_id
assert mlflow.get_run(outer.info.run_id).data.tags["mlflow.note.content"] == "of all"
try:
    with mlflow.start_run(run_name="failed") as failed:
        raise ValueError("on purpose")
except ValueError:
    assert mlflow.get_run(failed.info.run_id).info.status == "FAILED"

# In the background.
with mlflow.start_run(run_name="background") as run:
    waits = [mlflow.log_metric("fast", place, step=place, synchronous=False) for place in range(2_500)]
    mlflow.log_params({f"p{place}": place for place in range(150)}, synchronous=False)
    mlflow.set_tags({f"t{place}": place for place in range(150)}, synchronous=False)
    mlflow.log_metrics({f"m{place}": place for place in range(1_500)}, synchronous=False)
    mlflow.flush_async_logging()
    waits[-1].wait()
assert [one.step for one in client.get_metric_history(run.info.run_id, "fast")] == list(range(2_500))
read = mlflow.get_run(run.info.run_id)
assert len(read.data.params) == 150 and len(read.data.metrics) == 1_501 and read.data.tags["t149"] == "149"
mlflow.config.enable_async_logging(True)
with mlflow.start_run(run_name="all in the background") as run:
    mlflow.log_metric("slow", 1)
    mlflow.log_param("p", 1)
mlflow.flush_async_logging()
mlflow.config.enable_async_logging(False)
assert mlflow.get_run(run.info.run_id).data.metrics == {"slow": 1.0}

# The machine's own metrics.
mlflow.set_system_metrics_sampling_interval(1)
mlflow.set_system_metrics_samples_before_logging(1)
mlflow.enable_system_metrics_logging()
with mlflow.start_run(run_name="measured") as run:
    until = time.monotonic() + 20
    while not client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage"):
        assert time.monotonic() < until, "no system metrics"
        time.sleep(0.2)
mlflow.disable_system_metrics_logging()
measured = set(mlflow.get_run(run.info.run_id).data.metrics)
assert {"system/system_memory_usage_megabytes", "system/disk_usage_percentage"} <= measured, measured

# Ends.
mlflow.delete_run(run.info.run_id)
assert mlflow.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
assert os.environ.get("MLFLOW_TRACKING_TOKEN")
print("done")
