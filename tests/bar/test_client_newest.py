"""The newest client that can be installed does what the reference client does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bar.clients import project, run_client
from tests.stories.conftest import Server

pytestmark = pytest.mark.story
NEWEST = ("mlflow-skinny==3.17.2",)


@pytest.mark.parametrize("script", ["mlflow_tracking.py", "mlflow_registry.py", "mlflow_traces.py"])
def test_the_newest_client(script: str, tmp_path: Path) -> None:
    """Tracking, registry and traces by the very same scripts."""
    server = Server(project(tmp_path / "kept"), "--auth", "none")
    server.start()
    try:
        assert run_client(script, server.url, tmp_path, packages=NEWEST).endswith("done\n")
    finally:
        server.stop()
