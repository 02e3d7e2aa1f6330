"""What MLflow recorded comes over whole: stores written by the real package, read back by its real client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import httpx
import psycopg
import pytest

from tests.bar.clients import SCRIPTS, project, python_with
from tests.servers import Postgres
from tests.stories.conftest import TRIMTAB, Server, Shell, free_port

pytestmark = [pytest.mark.story, pytest.mark.timeout(600)]
PACKAGES = ("mlflow==3.12.0", "psycopg2-binary")
COUNTS = {
    "runs": 6, "params": 5, "tags": 11, "points": 29, "inputs": 1, "files": 5, "models": 2, "traces": 2, "spans": 3,
    "assessments": 3,
}  # fmt: skip


def _env() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "OTEL", "PYTHON"))}
    return env | {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_DISABLE_TELEMETRY": "1",
    }


def _run(script: str, uri: str, folder: Path) -> str:
    argv = [str(python_with(*PACKAGES)), str(SCRIPTS / script), uri]
    done = subprocess.run(argv, cwd=folder, env=_env(), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, f"{script} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def _mlflow_server(folder: Path) -> Iterator[str]:
    """Run MLflow's own server, which keeps artifacts for its clients."""
    port = free_port()
    argv = [
        str(python_with(*PACKAGES)), "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/store.db",
        "--artifacts-destination", str(folder / "served"), "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, env=_env(), stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 90
        while time.monotonic() < until:
            assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
            try:
                if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture(params=["sqlite", "postgres", "files", "server"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URI of a store that the real package has written."""
    folder = tmp_path / "there"
    folder.mkdir()
    if request.param == "server":
        with _mlflow_server(folder) as url:
            _run("mlflow_source.py", url, folder)
            yield url
        return
    uri = {"sqlite": f"sqlite:///{folder}/store.db", "files": f"file:{folder}/mlruns"}.get(request.param, "")
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE mlflow")
        uri = f"postgresql+psycopg2://trimtab@/mlflow?host={server.folder}"
    _run("mlflow_source.py", uri, folder)
    yield uri


def _location(uri: str) -> str:
    return uri.removeprefix("file:")


def test_all_of_it_comes_over_and_the_client_reads_the_same(source: str, tmp_path: Path) -> None:
    """Counts agree, a second time changes nothing, and the client reads here what it reads there."""
    shell = Shell(project(tmp_path / "here"))
    dry = shell.json("import", "mlflow", _location(source), "--dry-run")
    first = shell.json("import", "mlflow", _location(source))
    assert first["ok"] and {kind: first["counts"][kind]["copied"] for kind in COUNTS} == COUNTS
    # A point that a folder holds twice is kept once, which only a real copy finds out.
    copied, would = ({kind: one["copied"] for kind, one in told["counts"].items()} for told in (first, dry))
    assert would == {**copied, "points": 30 if source.startswith("file") else 29}
    assert [(one["why"], one["ident"]) for one in first["problems"]] == [("left", "s3://bucket")]
    again = shell.json("import", "mlflow", _location(source))
    assert again["ok"] and not any(one["copied"] for one in again["counts"].values())
    assert {kind: again["counts"][kind]["already"] for kind in COUNTS} == COUNTS
    server = Server(shell.folder, "--auth", "none")
    server.start()
    try:
        here = json.loads(_run("mlflow_read.py", server.url, tmp_path))
    finally:
        server.stop()
    there = json.loads(_run("mlflow_read.py", source, tmp_path))
    _even(here, there, files=source.startswith("file"))
    for kind in there:
        assert here[kind] == there[kind], kind


def _even(here: dict[str, Any], there: dict[str, Any], *, files: bool) -> None:
    """Take out of both what is different on purpose."""
    for one in (here, there):
        one["experiments"].pop("Default", None)  # each system makes its own
        for model in one["registry"].values():
            for version in model["versions"].values():
                # Paths name another place here; what they lead to is compared by content.
                version[3] = version[3] if version[3].startswith(("models:", "runs:", "dummy")) else "a path"
    if files:
        # Its own reader takes the step of a point that speaks of data as 0; the file has what was logged.
        for run in there["runs"].values():
            run["points"] = {
                name: [[at, 2, value] if name == "auc" else [at, step, value] for at, step, value in points]
                for name, points in run["points"].items()
            }


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite store of the real package."""
    folder = tmp_path_factory.mktemp("there")
    _run("mlflow_source.py", f"sqlite:///{folder}/store.db", folder)
    return folder / "store.db"


def _many(database: Path, to: Path, runs: int, points: int) -> Path:
    """Copy a store and give it more runs, each with points of one metric."""
    shutil.copy(database, to)
    with apsw.Connection(str(to)) as connection:
        for number in range(runs):
            ident = f"{number:032x}"
            connection.execute(
                "INSERT INTO runs SELECT ?, 'r' || ?, source_type, source_name, entry_point_name, user_id, status,"
                " start_time, end_time, source_version, lifecycle_stage, 's3://bucket/' || ?, experiment_id,"
                " deleted_time FROM runs WHERE name='far'",
                (ident, number, number),
            )
            connection.executemany(
                "INSERT INTO metrics(key, value, timestamp, run_uuid, step, is_nan) VALUES ('m', ?, ?, ?, ?, 0)",
                [(step / 7, step, ident, step) for step in range(points)],
            )
    return to


def test_a_kill_in_the_middle_loses_and_doubles_nothing(database: Path, tmp_path: Path) -> None:
    """After kill -9 each run is there whole or not at all, and the next import brings the rest."""
    shell = Shell(project(tmp_path / "here"))
    path = _many(database, tmp_path / "many.db", 300, 500)
    process = subprocess.Popen([*TRIMTAB, "import", "mlflow", f"sqlite:///{path}"], cwd=shell.folder)
    ledger = shell.folder / ".trimtab" / "ledger.db"
    until = time.monotonic() + 60
    while time.monotonic() < until and _count(ledger, "SELECT count(*) FROM tracked") < 30:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait(10)
    whole = "SELECT count(*) FROM (SELECT run_id FROM metric WHERE name='m' GROUP BY run_id HAVING count(*)=500)"
    begun = "SELECT count(DISTINCT run_id) FROM metric WHERE name='m'"
    there = _count(ledger, whole)
    assert 20 < there < 300 and there == _count(ledger, begun)
    again = shell.json("import", "mlflow", f"sqlite:///{path}")
    assert again["ok"] and again["counts"]["runs"]["already"] >= there
    assert sum(again["counts"]["runs"][name] for name in ("copied", "already")) == 306
    assert _count(ledger, whole) == 300


def _count(path: Path, sql: str) -> int:
    if not path.exists():
        return 0
    try:
        rows = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY).execute(sql).fetchall()
    except apsw.Error:  # it is being made
        return 0
    return int(str(rows[0][0]))


def test_what_is_here_with_other_content_is_named(database: Path, tmp_path: Path) -> None:
    """A run that differs is a conflict, one that does not fit is refused; both are named and the others come."""
    shell = Shell(project(tmp_path / "here"))
    path = _many(database, tmp_path / "many.db", 3, 10)
    shell.json("import", "mlflow", f"sqlite:///{path}")
    with apsw.Connection(str(path)) as connection:
        connection.execute("UPDATE metrics SET value=99 WHERE run_uuid=? AND step=3", (f"{0:032x}",))
        connection.execute("INSERT INTO params VALUES ('late', '1', ?)", (f"{1:032x}",))
        connection.execute("UPDATE runs SET run_uuid='ODD' WHERE run_uuid=?", (f"{2:032x}",))
        connection.execute("UPDATE model_versions SET description='new' WHERE name='moved-model' AND version=3")
    again = shell.json("import", "mlflow", f"sqlite:///{path}", expect=1)
    told = {(one["why"], one["ident"]): one["reason"] for one in again["problems"] if one["why"] != "left"}
    assert "points" in told["conflict", f"{0:032x}"] and "params" in told["conflict", f"{1:032x}"]
    assert "id" in told["refused", "ODD"] and "new" in told["conflict", "moved-model:3"]
    assert again["counts"]["runs"] == {"there": 9, "copied": 0, "already": 6}


def test_one_experiment_alone(database: Path, tmp_path: Path) -> None:
    """Only its runs, models, traces and versions come; a number that is taken becomes the next one."""
    shell = Shell(project(tmp_path / "here"))
    server = Server(shell.folder, "--auth", "none")
    server.start()
    with server.client() as client:
        body = {"name": "took the number"}
        assert client.post("/api/2.0/mlflow/experiments/create", json=body).json()["experiment_id"] == "1"
    server.stop()
    words = ("import", "mlflow", f"sqlite:///{database}", "--experiment", "moved/first one")
    found = shell.json(*words)
    assert found["ok"] and found["renumbered"] == {"1": 2}
    assert found["counts"]["experiments"]["there"] == 1 and found["counts"]["runs"]["copied"] == 4
    assert found["counts"]["versions"]["copied"] == 2 and found["counts"]["registered models"]["copied"] == 1
    missing = shell("import", "mlflow", f"sqlite:///{database}", "--experiment", "moved/fist one", expect=2)
    assert "did you mean 'moved/first one'?" in missing.err
