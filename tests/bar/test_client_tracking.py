"""Tracking with the real client, against a real server, on both ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bar.clients import project, run_client
from tests.servers import Postgres
from tests.stories.conftest import Server, Shell

pytestmark = pytest.mark.story


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Return a running server without a token."""
    words = ["--auth", "none"]
    if request.param == "postgres":
        database: Postgres = request.getfixturevalue("postgres")
        words += ["--ledger", database.new_ledger()]
    started = Server(project(tmp_path / "tracked"), *words)
    started.start()
    yield started
    started.stop()


def test_the_client_of_mlflow(server: Server, tmp_path: Path) -> None:
    """Experiments, runs, searches, histories, data and models work, and are ordinary nouns of the project."""
    assert run_client("mlflow_tracking.py", server.url, tmp_path).endswith("done\n")
    runs = Shell(server.folder).json("runs", "--limit", "3")["runs"]
    assert [one["kind"] for one in runs] == ["tracked"] * 3
    shown = Shell(server.folder).json("show", runs[0]["id"])
    assert shown["client"]["experiment"] == "exp 0" and shown["client"]["tags"]["mlflow.runName"] == "child"
