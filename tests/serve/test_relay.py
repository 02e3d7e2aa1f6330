"""Which addresses are passed on part by part: those whose bodies or answers are files."""

from __future__ import annotations

import pytest

from trimtab.serve.relay import STREAMED


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow-artifacts/artifacts/0/a/b.bin",
        "/ajax-api/2.0/mlflow-artifacts/artifacts/x",
        "/api/2.0/mlflow-artifacts/mpu/part/0123/4",
        "/get-artifact",
        "/model-versions/get-artifact",
        "/ajax-api/2.0/mlflow/logged-models/m-1/artifacts/files",
        "/static-files/static/js/main.js",
    ],
)
def test_files(path: str) -> None:
    """They may be larger than memory."""
    assert STREAMED.fullmatch(path)


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow-artifacts/artifacts",
        "/api/2.0/mlflow/runs/log-batch",
        "/api/2.0/mlflow/x/api/2.0/mlflow-artifacts/artifacts/y",
        "/get-artifact/more",
        "/",
        "/health",
    ],
)
def test_everything_else(path: str) -> None:
    """It is small, and read against a limit first."""
    assert STREAMED.fullmatch(path) is None
