"""Autologging of the real client: scikit-learn with a grid search, and LightGBM by both of its ways."""

# mypy: ignore-errors
import sys

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

client = MlflowClient()
home = mlflow.set_experiment("autologged").experiment_id
values, labels = make_classification(n_samples=120, n_features=4, random_state=7)
table = pd.DataFrame(values, columns=list("abcd"))


def paths(run_id, folder=None):
    """Return the paths of all files of a run."""
    found = []
    for one in client.list_artifacts(run_id, folder):
        found += paths(run_id, one.path) if one.is_dir else [one.path]
    return found


def model_of(run):
    """Return the logged model that a run made; there must be one."""
    made = client.get_run(run.info.run_id).outputs.model_outputs
    assert len(made) == 1, made
    return client.get_logged_model(made[0].model_id)


# All libraries at once, as most users do; and each with its own words later.
mlflow.autolog(log_input_examples=True, silent=True)
with mlflow.start_run(run_name="plain") as run:
    fitted = LogisticRegression(C=0.5).fit(table, labels)
    fitted.score(table, labels)
read = client.get_run(run.info.run_id)
assert (read.info.status, read.data.params["C"], read.data.tags["estimator_name"]) == (
    "FINISHED",
    "0.5",
    "LogisticRegression",
)
assert {"training_accuracy_score", "training_f1_score", "training_log_loss", "training_roc_auc"} <= set(
    read.data.metrics
), read.data.metrics
assert [one for one in read.data.metrics if one.startswith("LogisticRegression_score")], read.data.metrics
assert [(one.tags[0].value, one.dataset.source_type) for one in read.inputs.dataset_inputs] == [("train", "code")]
files = paths(run.info.run_id)
assert {"estimator.html", "metric_info.json", "training_confusion_matrix.png"} <= set(files), files
model = model_of(run)
assert (model.status, model.params["C"], model.source_run_id) == ("READY", "0.5", run.info.run_id)
assert {one.key for one in model.metrics} >= {"training_accuracy_score"}, model.metrics
loaded = mlflow.sklearn.load_model(model.model_uri)
assert (loaded.predict(table) == fitted.predict(table)).all()
about = mlflow.models.get_model_info(model.model_uri)
assert about.signature.inputs.input_names() == list("abcd")
assert list(mlflow.models.Model.load(model.model_uri).load_input_example(model.model_uri).columns) == list("abcd")

# A grid search: the best of it in the parent, and a child for each point.
mlflow.sklearn.autolog(max_tuning_runs=3, log_datasets=False, silent=True)
grid = GridSearchCV(LogisticRegression(), {"C": [0.01, 0.1, 1.0, 10.0]}, cv=2)
grid.fit(table, labels)
parent = mlflow.last_active_run()
read = client.get_run(parent.info.run_id)
assert read.info.status == "FINISHED" and read.data.tags["estimator_name"] == "GridSearchCV"
assert read.data.params["best_C"] == str(grid.best_params_["C"]), read.data.params
assert read.data.metrics["best_cv_score"] == grid.best_score_
children = client.search_runs([home], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
assert len(children) == 3 and {one.info.status for one in children} == {"FINISHED"}
scores = sorted(grid.cv_results_["mean_test_score"])[-3:]
assert sorted(one.data.metrics["mean_test_score"] for one in children) == scores
assert "cv_results.csv" in paths(parent.info.run_id)
best = client.search_runs(
    [home], "tags.estimator_name = 'LogisticRegression'", order_by=["metrics.mean_test_score DESC"]
)
assert best[0].data.metrics["mean_test_score"] == scores[-1]
made = client.get_run(parent.info.run_id).outputs.model_outputs
names = {client.get_logged_model(one.model_id).name for one in made}
assert names == {"model", "best_estimator"}, names

# LightGBM, as an estimator and by its own train.
mlflow.lightgbm.autolog(registered_model_name="booster", silent=True)
with mlflow.start_run(run_name="estimator") as run:
    lightgbm.LGBMClassifier(n_estimators=3, num_leaves=4, verbose=-1).fit(table, labels)
read = client.get_run(run.info.run_id)
assert (read.data.params["num_leaves"], read.info.status) == ("4", "FINISHED"), read.data.params
with mlflow.start_run(run_name="trained") as run:
    train, test = (lightgbm.Dataset(table[cut], labels[cut]) for cut in (slice(0, 80), slice(80, 120)))
    booster = lightgbm.train(
        {"objective": "binary", "metric": "binary_logloss", "num_leaves": 4, "verbose": -1},
        train,
        num_boost_round=6,
        valid_sets=[train, test],
        valid_names=["train", "valid"],
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
    )
read = client.get_run(run.info.run_id)
history = client.get_metric_history(run.info.run_id, "valid-binary_logloss")
assert [one.step for one in history][:6] == list(range(6)), history
assert all(np.isfinite(one.value) for one in history)
assert read.data.metrics["best_iteration"] == booster.best_iteration
files = paths(run.info.run_id)
assert {"feature_importance_gain.json", "feature_importance_split.png"} <= set(files), files
assert {one.tags[0].value for one in read.inputs.dataset_inputs} == {"train", "eval"}, read.inputs
version = client.get_registered_model("booster").latest_versions[0]
assert version.run_id == run.info.run_id, version
again = mlflow.lightgbm.load_model(f"models:/booster/{version.version}")
assert np.allclose(again.predict(table), booster.predict(table))
print("done")
sys.stdout.flush()
