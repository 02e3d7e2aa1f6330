"""MLflow's own pages from its installed package before our server, in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bar.clients import WHOLE, project, python_with, run_client
from tests.stories.conftest import Server

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a running server with pages; the package is beside ours and brings nothing but its files."""
    folder = tmp_path_factory.mktemp("shown")
    packages = next(python_with(*WHOLE).parent.parent.glob("lib/python3*/site-packages"))
    beside = folder / "beside"
    beside.mkdir()
    (beside / "mlflow").symlink_to(packages / "mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(beside))
        started = Server(project(folder / "project"), "--auth", "none", "--mlflow-ui")
        started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def shown(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the ids of what the pages have to show."""
    told = run_client("mlflow_shown.py", server.url, tmp_path_factory.mktemp("client"), packages=WHOLE).split()
    return {"experiment": told[-3], "run": told[-2], "trace": told[-1]}


def _page(url: str, folder: Path) -> str:
    """Return what a browser made of a page once it had come to rest."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("TRIMTAB_SKIP_NOTHING"):
            raise AssertionError("chromium is not installed")
        pytest.skip("chromium is needed")
    argv = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--window-size=1600,1200",
        "--virtual-time-budget=20000", "--dump-dom", url,
    ]  # fmt: skip
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=True).stdout


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("#/experiments", ["shown"]),
        ("#/experiments/{experiment}/runs", ["a-shown-run"]),
        ("#/experiments/{experiment}/runs/{run}", ["a-shown-run", "shown_loss", "shown_depth", "shown-model"]),
        ("#/experiments/{experiment}/runs/{run}/model-metrics", ["shown_loss"]),
        ("#/experiments/{experiment}/runs/{run}/artifacts", ["note.txt"]),
        ("#/experiments/{experiment}/traces", ["shown question", "shown answer"]),
        ("#/models", ["shown-model"]),
        ("#/models/shown-model", ["Version 1"]),
        ("#/prompts", ["shown-prompt"]),
    ],
)
def test_a_page_shows_what_was_recorded(
    server: Server, shown: dict[str, str], tmp_path: Path, page: str, words: list[str]
) -> None:
    """What the client wrote stands on the page, and no error does."""
    for attempt in range(3):  # on a busy machine the browser's time may run out before the page's
        found = _page(f"{server.url}/{page.format(**shown)}", tmp_path / str(attempt))
        if all(word in found for word in words):
            break
    assert [word for word in words if word not in found] == []
    assert "ENDPOINT_NOT_FOUND" not in found and "INTERNAL_ERROR" not in found
