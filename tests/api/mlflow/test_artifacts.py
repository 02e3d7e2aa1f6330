"""Files through the proxy and by run: how they are listed, named and typed."""

from __future__ import annotations

from typing import Any

import pytest

V2 = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
UPLOAD = "/ajax-api/2.0/mlflow/upload-artifact"


def _run(api: Any) -> str:
    ident: str = api.post(f"{V2}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
    return ident


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text/plain"),
        ("MLmodel", "text/plain"),
        ("conf.yaml", "text/plain"),
        ("b.pkl", "application/octet-stream"),
        ("c.png", "image/png"),
    ],
)
def test_a_file_is_sent_to_be_kept(api: Any, name: str, kind: str) -> None:
    """Its type is exact, and its name needs no quotes unless it has other characters."""
    assert api.put(f"{PROXY}/dir/{name}", content=b"1").status_code == 200
    headers = api.get(f"{PROXY}/dir/{name}").headers
    assert headers["content-type"] == kind and headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == f"attachment; filename={name}"
    assert api.put(f"{PROXY}/dir/two words", content=b"1").status_code == 200
    assert "two%20words" in api.get(f"{PROXY}/dir/two%20words").headers["content-disposition"]


def test_a_dot_is_the_folder_itself(api: Any) -> None:
    """Clients send ``.`` for all that a run has."""
    api.put(f"{PROXY}/top/in/a.txt", content=b"1")
    for path in ("top", "./top", "top/.", "top/"):
        assert api.get(PROXY, params={"path": path}).json() == {"files": [{"path": "in", "is_dir": True}]}


def test_a_path_is_looked_at_first(api: Any) -> None:
    """A path that leads out is refused, whether or not what it is asked of is there."""
    refused = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid path"}
    for at, fields in (
        (f"{V2}/artifacts/list", {"run_id": "a"}),
        ("/get-artifact", {"run_id": "a"}),
        ("/model-versions/get-artifact", {"name": "none", "version": "1"}),
    ):
        answer = api.get(at, params={**fields, "path": "../path"})
        assert (answer.status_code, answer.json()) == (400, refused), at
    assert api.get(f"{V2}/artifacts/list", params={"run_id": _run(api), "path": "/etc"}).json() == refused


def test_the_pages_upload_to_a_run(api: Any) -> None:
    """What is missing is told, one after the other; then the file is among the run's."""
    run = _run(api)
    for fields, content, says in (
        ({}, b"", "Request must specify run_uuid."),
        ({"run_uuid": run, "path": ""}, b"", "Request must specify path."),
        ({"run_uuid": run, "path": "../a.txt"}, b"1", "Invalid path"),
        ({"run_uuid": run, "path": "a.txt"}, b"", "Request must specify data."),
        ({"run_uuid": run, "path": "a.txt"}, b"1" * (11 << 20), "Max size is 10MB"),
    ):
        answer = api.post(UPLOAD, params=fields, content=content)
        assert answer.status_code == 400 and says in answer.json()["message"]
    assert api.post(UPLOAD, params={"run_uuid": run, "path": "a.txt"}, content=b"hello").status_code == 200
    assert api.get("/get-artifact", params={"run_uuid": run, "path": "a.txt"}).text == "hello"
