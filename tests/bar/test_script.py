"""A script as it is, run by `trimtab run`: what MLflow's client records in it belongs to the run."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.bar.clients import MLFLOW, python_with
from tests.stories.conftest import TRIMTAB, Server, Shell

pytestmark = pytest.mark.story
SCRIPT = """
import sys
import mlflow
import beside
mlflow.log_param("given", sys.argv[1])
with mlflow.start_run(run_name="inner", nested=True):
    mlflow.log_metric("score", beside.SCORE)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Return a shell in a folder with a script, in an environment that has MLflow's client as well."""
    packages = next(python_with(*MLFLOW).parent.parent.glob("lib/python3*/site-packages"))
    monkeypatch.setenv("PYTHONPATH", str(packages))
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("SCORE = 0.5\n")
    return Shell(tmp_path)


def test_a_script_and_its_runs(shell: Shell) -> None:
    """Its code, runtime and arguments are recorded; the client's runs are its children; it ends as it ended."""
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m")):
        subprocess.run(["git", *words], cwd=shell.folder, check=True)
    shell("run", "train.py", "--", "0")
    (shell.folder / "beside.py").write_text("SCORE = 0.75\n")
    shell("run", "train.py", "--", "3", expect=3)
    (shell.folder / "trimtab.yaml").write_text("project: records\nmodules: [beside]\n")
    failed, done = (one for one in shell.json("runs", "--kind", "script")["runs"])
    assert (failed["state"], done["state"]) == ("failed", "done")
    told = shell.json("show", done["id"])
    assert told["run"]["params"]["argv"] == ["train.py", "0"] and told["run"]["runtime"]["packages"]
    code = told["run"]["code"]
    assert set(code["files"]) == {"train.py", "beside.py"} and code["complete"]
    assert len(code["commit"]) == 40 and not code["dirty"] and code["repo"] == ""
    changed = shell.json("show", failed["id"])["run"]["code"]
    assert changed["dirty"] and changed["diff"] and changed["files"]["beside.py"] != code["files"]["beside.py"]
    names = [child["name"] for child in told["children"]]
    assert len(names) == 1 and shell.json("show", told["children"][0]["id"])["client"]["params"] == {"given": "0"}


def test_a_server_that_runs_is_used(shell: Shell) -> None:
    """No second one is started beside it; what is wrong is told before anything runs."""
    server = Server(shell.folder)
    server.start()
    try:
        shell("run", "train.py", "--", "0")
        with server.client() as client:
            kinds = [one["kind"] for one in client.get("/api/v1/runs").json()["runs"]]
        assert sorted(kinds) == ["script", "tracked", "tracked"]
    finally:
        server.stop()
    assert not (shell.folder / ".trimtab" / "logs" / "script-up.log").exists()


def test_a_killed_recorder_leaves_nothing_running(shell: Shell) -> None:
    """Neither its server nor its script lives on, and whoever looks marks the run as failed."""
    (shell.folder / "train.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    shell.write("trimtab.yaml", "project: records\nmodules: [beside]\n")
    process = subprocess.Popen(
        [*TRIMTAB, "run", "train.py"], cwd=shell.folder, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    port = json.loads((shell.folder / ".trimtab" / "run" / "up.json").read_bytes())["port"]
    process.kill()
    process.wait(10)
    process.stdout.close()
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    else:
        raise AssertionError("the server lives on")
    problems = [one["message"] for one in shell.json("ledger", "check", expect=1)["problems"]]
    assert len(problems) == 1 and "run" in problems[0]


def test_what_is_wrong_is_told(shell: Shell) -> None:
    """A script that is not there, before anything runs."""
    assert "there is no script" in shell("run", "none.py", expect=2).err
