"""A project whose blobs and tables lie in another folder or in an object store, through real processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.backends.object_servers import ObjectServer
from tests.servers import Postgres
from tests.stories.conftest import Server, Shell
from trimtab.backends.objects import Place

pytestmark = pytest.mark.story
ROW = {"temperature": 85.0, "vibration": 3.4}
_SECRETS = ("azure_storage_account_key", "aws_secret_access_key")
_VARIABLE = "TEST_STORE_KEY"


def _project(folder: Path, server: ObjectServer, root: str, ledger: str) -> str:
    """Return a project file that keeps everything elsewhere; the key is in the environment."""
    lines = [f"ledger: {ledger}", "artifacts:", f"  at: {root}", "  options:"]
    for key, value in server.options.items():
        lines.append(f"    {key}: " + (f"${{{_VARIABLE}}}" if key in _SECRETS else value))
    return (folder / "trimtab.yaml").read_text() + "\n".join([*lines, ""])


def _predict(server: Server) -> str:
    with server.client() as client:
        answer = client.post("/endpoints/failure_api/invocations", json={"rows": [ROW]})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["prediction_ids"][0])


def _machines(quickstart: Shell, objects: ObjectServer, root: str, postgres: Postgres) -> tuple[Shell, Shell]:
    """Return two machines, which are two folders: the same project, another store."""
    quickstart.write("trimtab.yaml", _project(quickstart.folder, objects, root, postgres.new_ledger()))
    second = Shell(quickstart.folder.parent / "second")
    shutil.copytree(quickstart.folder, second.folder)
    return quickstart, second


def _check_nothing_kept(shell: Shell, secret: str) -> None:
    kept = shell.folder / ".trimtab"
    assert not any((kept / "blobs").iterdir()) and not any((kept / "tables").iterdir())
    for path in shell.folder.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_two_machines_share_a_ledger_and_s3(
    s3: ObjectServer,
    postgres: Postgres,
    quickstart: Shell,
    serve: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one machine made another one reuses, serves, asks with SQL and traces, and the key is kept nowhere."""
    monkeypatch.setenv(_VARIABLE, s3.secret)
    first, second = _machines(quickstart, s3, s3.new_root(), postgres)
    assert {stage["state"] for stage in first.json("run")["stages"]} == {"done"}
    assert {stage["state"] for stage in second.json("run")["stages"]} == {"reused"}
    server = serve(second.folder)
    second("apply")
    prediction = _predict(server)
    calls = second.json("sql", "select prediction_id from failure_api.calls")
    assert calls["rows"] == [[prediction]]
    server.stop()
    traced = first.json("lineage", prediction)
    assert {"model", "table", "source"} <= {item["kind"] for item in traced["upstream"]}
    for shell in (first, second):
        _check_nothing_kept(shell, s3.secret)


def test_two_machines_share_a_ledger_and_azure(
    azure: ObjectServer, postgres: Postgres, quickstart: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that one machine made another one reuses, asks with SQL and makes again; without the key nobody does."""
    monkeypatch.setenv(_VARIABLE, azure.secret)
    workload = (quickstart.folder / "workload.py").read_text()
    quickstart.write("workload.py", workload.partition("@tt.model")[0])
    root = azure.new_root()
    first, second = _machines(quickstart, azure, root, postgres)
    assert {stage["state"] for stage in first.json("run")["stages"]} == {"done"}
    assert {stage["state"] for stage in second.json("run")["stages"]} == {"reused"}
    counts = second.json("sql", "select count(*) as n from readings")
    assert counts["rows"][0][0] == 1193
    before = _tables(azure, root)
    told = second.json("reproduce", "readings:1")
    assert told["identical"] and _tables(azure, root) == before > 2
    for shell in (first, second):
        _check_nothing_kept(shell, azure.secret)
    monkeypatch.delenv(_VARIABLE)
    refused = second("sql", "select count(*) from readings", expect=2)
    assert f"{_VARIABLE} is not set" in refused.err and azure.secret not in refused.err


def _tables(objects: ObjectServer, root: str) -> int:
    """Return how many tables lie there; each has a first commit."""
    place = Place(f"{root}/tables", objects.options)
    return sum(one["path"].endswith("/_delta_log/00000000000000000000.json") for one in place.all_below(""))


def test_up_keeps_blobs_and_tables_in_the_folder_it_is_given(
    shell: Shell, serve: Callable[..., Server], tmp_path: Path
) -> None:
    """`trimtab up --dir A --artifacts B` starts with both empty, remembers B and is not moved."""
    store, artifacts = tmp_path / "store", tmp_path / "artifacts"
    words = ["--host", "127.0.0.1", "--dir", str(store), "--artifacts", str(artifacts), "--auth", "none"]
    server = serve(tmp_path, *words)
    answer = httpx.put(f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/run/note.txt", content=b"kept")
    assert answer.status_code == 200, answer.text
    server.stop()
    assert {path.name for path in artifacts.iterdir()} == {"blobs", "tables"}
    assert sum(path.is_file() for path in (artifacts / "blobs").rglob("*")) == 1
    assert not any((store / "blobs").iterdir())
    refused = shell("up", "--dir", str(store), "--artifacts", str(tmp_path / "other"), expect=None)
    assert refused.code and "lie in" in refused.err and not (tmp_path / "other").exists()
    server = serve(tmp_path, "--dir", str(store), "--auth", "none")
    answer = httpx.get(f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/run/note.txt")
    assert answer.content == b"kept"
