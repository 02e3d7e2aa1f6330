"""The registry with the real client, against a real server, and what the project's own commands say of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bar.clients import project, run_client
from tests.stories.conftest import Server, Shell

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a running server without a token."""
    started = Server(project(tmp_path_factory.mktemp("registered")), "--auth", "none")
    started.start()
    yield started
    started.stop()


def test_the_client_of_mlflow(server: Server, tmp_path: Path) -> None:
    """Models, versions, stages, aliases, searches, files and prompts work, and the project's commands show them."""
    assert run_client("mlflow_registry.py", server.url, tmp_path).endswith("done\n")
    shell = Shell(server.folder)
    listed = {one["name"]: one for one in shell.json("list")["assets"]}
    assert (listed["fraud"]["kind"], listed["fraud"]["current"], listed["fraud"]["newest"]) == ("model", 3, 3)
    shown = shell.json("show", "fraud")
    assert [one["state"] for one in shown["versions"]] == ["published", "refused", "published"]
    version = shell.json("show", "fraud:1")
    assert version["made_by"]["kind"] == "tracked"
    lineage = shell.json("lineage", "fraud:1")
    assert "fraud:1" in str(lineage)
