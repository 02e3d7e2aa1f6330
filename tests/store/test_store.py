"""A store as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.builders import START, at
from trimtab.core.errors import Corrupt, Fault, WrongUse
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
