"""The ledger is checked, written to a file, read from it, and moved to another database by commands."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from tests.bar.clients import project
from tests.servers import Postgres
from tests.stories.conftest import Server, Shell

pytestmark = pytest.mark.story
V2 = "/api/2.0/mlflow"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return a shell in a project whose ledger has a run of a client."""
    server = Server(project(tmp_path / "project"), "--auth", "none")
    server.start()
    try:
        with server.client() as client:
            run = client.post(f"{V2}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
            metrics = [{"key": "m", "value": value, "timestamp": 1, "step": 0} for value in ("NaN", -0.0, 1e308)]
            assert client.post(f"{V2}/runs/log-batch", json={"run_id": run, "metrics": metrics}).status_code == 200
    finally:
        server.stop()
    return Shell(server.folder)


def test_there_and_back(shell: Shell, tmp_path: Path, postgres: Postgres) -> None:
    """A file and another database hold the same rows, and what is there is never written over."""
    rows = shell.json("ledger", "check")["rows"]
    file, url = tmp_path / "rows.gz", postgres.new_ledger()
    exported = shell.json("ledger", "export", str(file))
    assert exported["rows"]["metric"] == rows["metric"] == 3
    other = ("--dir", str(tmp_path / "other"))
    imported = shell.json("ledger", "import", str(file), *other)
    assert imported["rows"] == exported["rows"]
    assert shell.json("ledger", "check", *other)["rows"]["metric"] == 3
    moved = shell.json("ledger", "migrate", url)
    assert moved["rows"] == exported["rows"]
    assert "up --ledger" in shell("ledger", "migrate", postgres.new_ledger()).out
    assert shell.json("ledger", "check", "--ledger", url)["rows"]["metric"] == 3
    for words in (("import", str(file), *other), ("migrate", url)):
        assert "not empty" in shell("ledger", *words, expect=3).err
    back = tmp_path / "back.db"
    assert shell.json("ledger", "migrate", str(back), "--ledger", url)["rows"]["metric"] == 3


def test_what_does_not_fit_is_told(shell: Shell, tmp_path: Path) -> None:
    """A file that is none, or was cut, is refused; a ledger with a row that points nowhere is told with exit code 1."""
    file = tmp_path / "rows.gz"
    shell("ledger", "export", str(file))
    file.write_bytes(file.read_bytes()[:-40])
    shell("ledger", "import", str(file), "--dir", str(tmp_path / "other"), expect=3)
    database = apsw.Connection(str(shell.folder / ".trimtab" / "ledger.db"))
    database.execute("DELETE FROM latest")
    database.close()
    assert "latest" in shell("ledger", "check", expect=1).out
