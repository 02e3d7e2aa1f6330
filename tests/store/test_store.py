"""A store as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Postgres
from tests.store.builders import START, at
from trimtab.core.errors import Conflict, Corrupt, Fault, NotFound, WrongUse
from trimtab.store.live import get_state, put_state
from trimtab.store.store import open_store


def test_a_store_holds_everything_together(tmp_path: Path) -> None:
    """Opening makes the folder; what was kept is there when it is opened again."""
    with open_store(tmp_path / "store") as store:
        digest = store.blobs.put(b"content")
        store.set_clock("simulated", START)
        assert (store.environment, store.clock_mode(), store.clock_is_set()) == ("dev", "simulated", True)
    with open_store(tmp_path / "store") as store:
        assert store.blobs.get(digest) == b"content"
        assert store.now() == START
        store.set_clock("simulated", at(1))
        assert store.now() == at(1)
    with pytest.raises(Fault, match="closed"):
        store.now()


def test_environments_are_known_once_opened(tmp_path: Path) -> None:
    """Opening an environment makes it known in its workspace, once."""
    for environment in ("dev", "prod", "dev"):
        open_store(tmp_path, environment=environment).close()
    with open_store(tmp_path, workspace="team") as store:
        rows = store.ledger.query("SELECT workspace, name FROM environment ORDER BY 1, 2")
        assert rows == [("default", "dev"), ("default", "prod"), ("team", "dev")]
        assert store.clock_mode() == "real"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "é", "x" * 61])
def test_a_name_that_no_reference_could_hold_is_refused(tmp_path: Path, name: str) -> None:
    """Environments and workspaces have names that references can contain."""
    with pytest.raises(WrongUse, match="cannot name an environment"):
        open_store(tmp_path, environment=name)
    with pytest.raises(WrongUse, match="cannot name a workspace"):
        open_store(tmp_path, workspace=name)


def test_opening_a_store_is_light(tmp_path: Path) -> None:
    """A store opens, writes and reads without any table engine."""
    code = (
        "import sys; from pathlib import Path; from trimtab.store.store import open_store\n"
        "with open_store(Path(sys.argv[1])) as store: store.blobs.put(b'x'); store.now()\n"
        "print({'polars', 'pyarrow', 'deltalake', 'duckdb', 'numpy'} & set(sys.modules))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_lost_ledger_is_not_taken_for_a_new_store(tmp_path: Path) -> None:
    """An empty or missing ledger beside tables or blobs is damage, and is told before anything is written."""
    with open_store(tmp_path) as store:
        store.blobs.put(b"content")
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(Corrupt, match="the ledger is gone"):
        open_store(tmp_path)
    (tmp_path / "ledger.db").touch()
    with pytest.raises(Corrupt, match="the ledger is empty"):
        open_store(tmp_path)


def test_a_folder_that_cannot_be_made_is_told() -> None:
    """A store below a place where nothing can be written is the caller's mistake."""
    with pytest.raises(WrongUse, match="cannot be made"):
        open_store(Path("/proc/x"))


def test_a_store_remembers_where_its_ledger_lies(tmp_path: Path, postgres: Postgres) -> None:
    """A ledger in a database is named once; who opens the folder later finds it, and nowhere else."""
    url = postgres.new_ledger()
    with open_store(tmp_path, ledger=url) as store:
        store.ledger.write(lambda tx: put_state(tx, "a", {"x": 1}), what="put")
    assert not (tmp_path / "ledger.db").exists()
    with open_store(tmp_path) as store:
        assert get_state(store.ledger, "a") == {"x": 1} and store.ledger.where.startswith("postgresql://")
    with pytest.raises(Conflict, match="and not postgresql://u@h/other"):
        open_store(tmp_path, ledger="postgresql://u:secret@h/other")


def test_a_ledger_in_a_file_stays_there(tmp_path: Path, postgres: Postgres) -> None:
    """A store whose ledger is a file is not given another one by a mere option."""
    open_store(tmp_path).close()
    with pytest.raises(Conflict, match="leave the URL out"):
        open_store(tmp_path, ledger=postgres.new_ledger())


def test_an_unknown_database_is_told(tmp_path: Path) -> None:
    """A URL for which there is no back end names those that there are, and nothing is remembered."""
    with pytest.raises(NotFound, match="did you mean"):
        open_store(tmp_path, ledger="postgresq://h/d")
    open_store(tmp_path).close()
