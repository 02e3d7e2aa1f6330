"""The whole of MLflow's client, with the libraries that it logs by itself, against a real server with a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bar.clients import WHOLE, project, run_client
from tests.stories.conftest import Server

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a running server that asks for its token."""
    started = Server(project(tmp_path_factory.mktemp("whole")), "--auth", "token")
    started.start()
    yield started
    started.stop()


def run(server: Server, folder: Path, script: str, **more: str) -> None:
    """Run a script with the server's token; it must come to its last line."""
    token = (server.folder / ".trimtab" / "token").read_text().strip()
    assert run_client(script, server.url, folder, packages=WHOLE, token=token, more=more).endswith("done\n")


def test_autologging(server: Server, tmp_path: Path) -> None:
    """What scikit-learn and LightGBM do is logged by itself: parameters, metrics, models, data and tuned children."""
    run(server, tmp_path, "mlflow_autolog.py")


def test_flavors(server: Server, tmp_path: Path) -> None:
    """Models keep signature and example, are registered, found by alias, loaded, served and evaluated."""
    run(server, tmp_path, "mlflow_flavors.py")


def test_what_a_training_script_says(server: Server, tmp_path: Path) -> None:
    """Files, figures, tables, data, nested runs, searches as tables, and what is logged in the background."""
    run(server, tmp_path, "mlflow_fluent.py")


def test_what_an_application_of_language_models_says(server: Server, tmp_path: Path) -> None:
    """Traces, judgements, prompts and evaluations by plain functions, without a network."""
    run(server, tmp_path, "mlflow_genai.py")


def test_large_files(server: Server, tmp_path: Path) -> None:
    """A file that is sent in parts comes back byte for byte."""
    parts = {
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(5 << 20),
        "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(5 << 20),
    }
    run(server, tmp_path, "mlflow_parts.py", **parts)
    assert any((server.folder / ".trimtab" / "uploads").glob("*/done"))


def test_evaluation_datasets(server: Server, tmp_path: Path) -> None:
    """Records are merged by their inputs, read, found, linked and removed; a trace becomes a record."""
    run(server, tmp_path, "mlflow_evalsets.py")
