"""A script as it is, run by `trimtab run`: what MLflow's client records in it belongs to the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bar.clients import MLFLOW, python_with
from tests.stories.conftest import Server, Shell

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
    shell("run", "train.py", "--", "0")
    shell("run", "train.py", "--", "3", expect=3)
    (shell.folder / "trimtab.yaml").write_text("project: records\nmodules: [beside]\n")
    failed, done = (one for one in shell.json("runs", "--kind", "script")["runs"])
    assert (failed["state"], done["state"]) == ("failed", "done")
    told = shell.json("show", done["id"])
    assert told["run"]["params"]["argv"] == ["train.py", "0"] and told["run"]["runtime"]["packages"]
    assert set(told["run"]["code"]["files"]) == {"train.py", "beside.py"}
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
    assert "there is no script" in shell("run", "none.py", expect=2).err
