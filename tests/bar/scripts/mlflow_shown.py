"""Something for each of the pages to show: a run with a history, a model with versions, a prompt, a trace."""

# mypy: ignore-errors
import mlflow
from mlflow import MlflowClient

client = MlflowClient()
experiment = mlflow.set_experiment("shown").experiment_id
with mlflow.start_run(run_name="a-shown-run") as run:
    for step in range(50):
        mlflow.log_metric("shown_loss", 1 / (step + 1), step=step)
    mlflow.log_param("shown_depth", 6)
    mlflow.log_text("shown text", "note.txt")
client.create_registered_model("shown-model")
client.create_model_version("shown-model", f"runs:/{run.info.run_id}/model", run.info.run_id)
mlflow.genai.register_prompt("shown-prompt", "Hello {{name}}")
with mlflow.start_span("shown-span") as span:
    span.set_inputs({"question": "shown question"})
    span.set_outputs("shown answer")
mlflow.flush_trace_async_logging()
print(experiment, run.info.run_id, span.trace_id)
