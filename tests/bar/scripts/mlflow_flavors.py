"""Models of the real client's flavors: logged, registered, found by alias, loaded and evaluated."""

# mypy: ignore-errors
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

client = MlflowClient()
home = mlflow.set_experiment("flavors").experiment_id
values, labels = make_classification(n_samples=150, n_features=4, random_state=7)
table = pd.DataFrame(values, columns=list("abcd"))
fitted = LogisticRegression().fit(table, labels)
wanted = fitted.predict(table)
signature = infer_signature(table, wanted)

# scikit-learn: signature, example, metadata and metrics of a step, registered as it is logged.
with mlflow.start_run(run_name="sklearn") as run:
    logged = mlflow.sklearn.log_model(
        fitted,
        name="linear",
        signature=signature,
        input_example=table.head(2),
        registered_model_name="linear",
        params={"C": 1.0},
        tags={"team": "red"},
        step=3,
        metadata={"made": "here"},
        pip_requirements=["scikit-learn"],
    )
    mlflow.log_metric("acc", 0.9, model_id=logged.model_id)
assert (logged.registered_model_version, logged.model_uri) == ("1", f"models:/{logged.model_id}")
about = mlflow.models.get_model_info(logged.model_uri)
assert about.signature == signature and about.metadata == {"made": "here"} and about.run_id == run.info.run_id
assert about.model_id == logged.model_id and "sklearn" in about.flavors
kept = mlflow.models.Model.load("models:/linear/1")
assert kept.load_input_example("models:/linear/1").shape == (2, 4) and kept.signature == signature
for uri in ("models:/linear/1", "models:/linear/latest", logged.model_uri, f"runs:/{run.info.run_id}/linear"):
    assert (mlflow.sklearn.load_model(uri).predict(table) == wanted).all(), uri
listed = [one.path for one in client.list_logged_model_artifacts(logged.model_id)]
assert {"MLmodel", "requirements.txt", "input_example.json"} <= set(listed), listed
version = client.get_model_version("linear", "1")
assert (version.run_id, version.status, version.source) == (run.info.run_id, "READY", logged.model_uri)
assert mlflow.get_logged_model(logged.model_id).tags["team"] == "red"
assert [(one.model_id, one.step) for one in mlflow.get_run(run.info.run_id).outputs.model_outputs] == [
    (logged.model_id, 3)
]

# By the alias, which moves.
with mlflow.start_run():
    second = mlflow.sklearn.log_model(
        LogisticRegression(C=1e-9).fit(table, labels), name="linear", pip_requirements=["scikit-learn"]
    )
made = mlflow.register_model(second.model_uri, "linear", tags={"why": "a test"})
assert (made.version, made.source) == ("2", second.model_uri)
client.set_registered_model_alias("linear", "champion", 1)
served = mlflow.pyfunc.load_model("models:/linear@champion")
assert (served.predict(table) == wanted).all() and served.metadata.model_id == logged.model_id
try:
    served.predict(table.drop(columns="a"))
    raise AssertionError("the signature was not kept")
except mlflow.exceptions.MlflowException as error:
    assert "missing inputs" in error.message, error.message
client.set_registered_model_alias("linear", "champion", 2)
assert mlflow.pyfunc.load_model("models:/linear@champion").metadata.model_id == second.model_id
assert mlflow.models.get_model_info("models:/linear@champion").model_id == second.model_id
with mlflow.start_run() as run:
    old = mlflow.sklearn.log_model(fitted, artifact_path="old_way", pip_requirements=["scikit-learn"])
assert (mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/old_way").predict(table) == wanted).all(), old
assert mlflow.register_model(f"runs:/{run.info.run_id}/old_way", "linear").version == "3"
assert mlflow.models.get_model_info(f"runs:/{run.info.run_id}/old_way").model_id == old.model_id

# LightGBM, both kinds of its models.
with mlflow.start_run():
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(table, labels), 3)
    logged = mlflow.lightgbm.log_model(booster, name="booster", input_example=table.head(1), pip_requirements=[])
    judge = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(table, labels)
    other = mlflow.lightgbm.log_model(judge, name="judge", registered_model_name="judge", pip_requirements=[])
assert np.array_equal(mlflow.lightgbm.load_model(logged.model_uri).predict(table), booster.predict(table))
assert np.array_equal(mlflow.lightgbm.load_model("models:/judge/1").predict(table), judge.predict(table))
assert other.registered_model_version == "1"


# A class of one's own, with a file and a parameter.
class Adder(mlflow.pyfunc.PythonModel):
    """Adds what a file says."""

    def load_context(self, context):
        """Read the file."""
        self.more = float(Path(context.artifacts["more"]).read_text())

    def predict(self, context, model_input, params=None):
        """Return the sum of each row."""
        return model_input.sum(axis=1) * (params or {}).get("times", 1) + self.more


Path("more.txt").write_text("2.5")
rows = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
with mlflow.start_run():
    logged = mlflow.pyfunc.log_model(
        name="adder",
        python_model=Adder(),
        artifacts={"more": "more.txt"},
        registered_model_name="adder",
        signature=infer_signature(rows, np.array([1.0]), params={"times": 1}),
        pip_requirements=[],
    )
client.set_registered_model_alias("adder", "best", logged.registered_model_version)
adder = mlflow.pyfunc.load_model("models:/adder@best")
assert list(adder.predict(rows)) == [6.5, 8.5] and list(adder.predict(rows, params={"times": 2})) == [10.5, 14.5]
assert isinstance(adder.unwrap_python_model(), mlflow.pyfunc.PythonModel)

# A classifier is evaluated: its metrics and plots are kept, of the run and of the model.
data = table.assign(label=labels)
with mlflow.start_run(run_name="judged") as run:
    mlflow.log_params({"kind": "evaluation"})
    found = mlflow.models.evaluate(
        f"models:/{mlflow.models.get_model_info('models:/linear/1').model_id}",
        mlflow.data.from_pandas(data, targets="label", name="judged"),
        model_type="classifier",
        evaluator_config={"log_explainer": False},
    )
read = mlflow.get_run(run.info.run_id)
assert read.data.metrics["accuracy_score"] == found.metrics["accuracy_score"] == (wanted == labels).mean()
assert {"roc_auc", "log_loss", "precision_recall_auc", "f1_score"} <= set(read.data.metrics), read.data.metrics
files = {one.path for one in client.list_artifacts(run.info.run_id)}
assert {"confusion_matrix.png", "roc_curve_plot.png", "precision_recall_curve_plot.png"} <= files, files
assert [one.dataset.name for one in read.inputs.dataset_inputs] == ["judged"]
model = mlflow.get_logged_model(mlflow.models.get_model_info("models:/linear/1").model_id)
told = {(one.key, one.dataset_name) for one in model.metrics}
assert ("accuracy_score", "judged") in told and ("acc", None) in told, told
with mlflow.start_run(run_name="of a table") as run:
    mlflow.evaluate(
        data=data.assign(guess=wanted),
        targets="label",
        predictions="guess",
        model_type="classifier",
        evaluator_config={"log_explainer": False},
    )
assert mlflow.get_run(run.info.run_id).data.metrics["accuracy_score"] == (wanted == labels).mean()
best = client.search_logged_models([home], "metrics.accuracy_score > 0.5", datasets=[{"dataset_name": "judged"}])
assert [one.name for one in best] == ["linear"], best
print("done")
