"""Logged models as clients make them."""

from __future__ import annotations

from typing import Any

MODELS = "/api/2.0/mlflow/logged-models"


def _make(api: Any, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = api.post(MODELS, json={"experiment_id": "0", **fields}).json()
    return found


def test_a_model_without_a_name_gets_one_of_its_own(api: Any) -> None:
    """Otherwise a search by name would find all of them."""
    names = {_make(api)["model"]["info"]["name"] for _ in range(4)}
    assert len(names) > 1
    assert "Invalid model name ('a/b')" in _make(api, name="a/b")["message"]


def test_a_run_that_is_not_known_is_kept_as_text(api: Any) -> None:
    """It may have been recorded elsewhere."""
    made = _make(api, source_run_id="123")["model"]["info"]
    found = api.get(f"{MODELS}/{made['model_id']}").json()["model"]["info"]
    assert found["source_run_id"] == "123"


def test_a_registered_model_is_noted_on_the_logged_one(api: Any) -> None:
    """In the text that clients compare."""
    info = _make(api)["model"]["info"]
    api.post("/api/2.0/mlflow/registered-models/create", json={"name": "m"})
    given = {"name": "m", "source": info["artifact_uri"], "model_id": info["model_id"]}
    assert api.post("/api/2.0/mlflow/model-versions/create", json=given).status_code == 200
    tags = api.get(f"{MODELS}/{info['model_id']}").json()["model"]["info"]["tags"]
    assert tags == [{"key": "mlflow.modelVersions", "value": '[{"name": "m", "version": 1}]'}]
