"""Writes a store with everything that an import has to bring over: mlflow_source.py TRACKING_URI [POINTS]."""

# mypy: ignore-errors

import math
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import mlflow
from mlflow.entities import (
    AssessmentSource,
    Dataset,
    DatasetInput,
    Expectation,
    Feedback,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)

URI, POINTS = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 25
mlflow.set_tracking_uri(URI)
client = mlflow.MlflowClient(URI)

first = client.create_experiment("moved/first one", tags={"team": "harbour", "note": "äß"})
gone = client.create_experiment("moved/gone")
elsewhere = client.create_experiment("moved/elsewhere", artifact_location="s3://bucket/nowhere")

# Runs: nested, failed, running, deleted.
run = client.create_run(
    first, run_name="whole", tags={"mlflow.user": "ada", "colour": "blue"}, start_time=1_700_000_000_000
)
ident = run.info.run_id
values = [0.5, -0.0, math.nan, math.inf, -math.inf, 1e-320, 1 / 3]
points = [Metric("loss", values[i % len(values)], 1_700_000_000_000 + i, i) for i in range(POINTS)]
for start in range(0, len(points), 900):
    client.log_batch(ident, metrics=points[start : start + 900])
client.log_batch(
    ident,
    metrics=[Metric("odd/name.x", 1.0, 5, 0), Metric("odd/name.x", 2.0, 4, -3), Metric("odd/name.x", 2.0, 4, -3)],
    params=[Param("lr", "0.1"), Param("long", "x" * 5000), Param("sub/param", "line 1\nline 2"), Param("empty", "")],
    tags=[RunTag("sub/tag", "v"), RunTag("mlflow.note.content", "# note\n")],
)
data = Dataset("rows", "d1g35t", "local", '{"uri": "rows.csv"}', '{"columns": []}', '{"rows": 3}')
client.log_inputs(ident, [DatasetInput(data, [InputTag("mlflow.data.context", "train")])])
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "deep").mkdir()
    Path(folder, "deep", "big.bin").write_bytes(bytes(range(256)) * 8192)
    Path(folder, "a b.txt").write_text("words ä")
    Path(folder, "empty").write_bytes(b"")
    client.log_artifacts(ident, folder, "out")
client.set_terminated(ident, "FINISHED", end_time=1_700_000_100_123)
child = client.create_run(first, run_name="child", tags={"mlflow.parentRunId": ident}, start_time=1_700_000_000_500)
client.set_terminated(child.info.run_id, "FAILED", end_time=1_700_000_000_600)
client.create_run(first, run_name="open", start_time=1_700_000_000_600)
dropped = client.create_run(first, run_name="dropped", start_time=1_700_000_000_700)
client.log_metric(dropped.info.run_id, "m", 3.0, timestamp=7, step=1)
client.delete_run(dropped.info.run_id)
far = client.create_run(elsewhere, run_name="far", start_time=1_700_000_000_800)
client.set_terminated(far.info.run_id, "KILLED", end_time=1_700_000_000_900)
lost = client.create_run(gone, run_name="in a deleted experiment", start_time=1_700_000_000_900)
client.log_param(lost.info.run_id, "p", "v")

# A logged model with files, and one that was never finished.
model = client.create_logged_model(
    first, name="scorer", source_run_id=ident, tags={"kind": "linear"}, params={"depth": "3"}, model_type="classifier"
)
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "MLmodel").write_text("flavors: {}\n")
    Path(folder, "data").mkdir()
    Path(folder, "data", "weights").write_bytes(b"\x00\x01")
    client.log_model_artifacts(model.model_id, folder)
model = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
client.log_metric(ident, "auc", 0.75, timestamp=1_700_000_050_000, step=2, dataset_name="rows",
                  dataset_digest="d1g35t", model_id=model.model_id)  # fmt: skip
client.log_outputs(ident, [LoggedModelOutput(model.model_id, 2)])
client.create_logged_model(first, name="unfinished")

# The registry.
client.create_registered_model("moved-model", tags={"owner": "ada"}, description="what it is")
for place in range(3):
    source = [f"models:/{model.model_id}", f"runs:/{ident}/out", f"{run.info.artifact_uri}/out"][place]
    client.create_model_version(
        "moved-model",
        source,
        run_id=ident,
        tags={"place": str(place)},
        description=f"v{place}",
        model_id=model.model_id if place == 0 else None,
    )
client.delete_model_version("moved-model", "2")
client.set_registered_model_alias("moved-model", "champion", "1")
client.transition_model_version_stage("moved-model", "3", "Production")
client.create_registered_model("moved-empty")
if not URI.startswith("file"):
    mlflow.genai.register_prompt("moved-prompt", "Say {{word}}", commit_message="first", tags={"tone": "calm"})
    mlflow.genai.register_prompt("moved-prompt", [{"role": "user", "content": "Say {{word}} again"}])
    client.set_prompt_alias("moved-prompt", "best", 2)

# Traces with spans, assessments, and one that failed.
mlflow.set_experiment(experiment_id=first)


@mlflow.trace(span_type="TOOL", attributes={"size": 3, "ratio": 0.5, "flags": [True, None]})
def look_up(word: str) -> dict:
    """Return a word with something about it."""
    mlflow.get_current_active_span().add_event(mlflow.entities.SpanEvent("found", attributes={"count": 2}))
    return {"word": word, "big": 2**40}


@mlflow.trace(span_type="AGENT")
def answer(question: str) -> str:
    """Return an answer."""
    mlflow.update_current_trace(
        tags={"tone": "calm"}, metadata={"mlflow.trace.session": "s-1"}, client_request_id="c-1"
    )
    return look_up(question)["word"] * 2


@mlflow.trace
def fails() -> None:
    """Raise."""
    raise ValueError("no")


answer("ahoy")
trace_id = mlflow.get_last_active_trace_id()
with suppress(ValueError):
    fails()
mlflow.flush_trace_async_logging()
source = AssessmentSource("HUMAN", "ada")
mlflow.log_assessment(trace_id, Feedback(name="good", value=True, source=source, rationale="it is"))
mlflow.log_assessment(trace_id, Feedback(name="score", value=0.25, source=AssessmentSource("LLM_JUDGE", "j")))
mlflow.log_assessment(trace_id, Expectation(name="wanted", value={"a": [1, 2]}, source=source))
client.delete_experiment(gone)
print("done")
