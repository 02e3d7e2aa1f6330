"""Programs of real clients, run against a real server: in an environment of their own, made once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
MLFLOW = ("mlflow-skinny==3.12.0",)
WHOLE = ("mlflow==3.12.0", "lightgbm", "psutil")
"""With scikit-learn, pandas and matplotlib, which the whole of it needs, and more that it logs by itself."""
OTEL = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")


def cache() -> Path:
    """Return the folder that environments of clients are kept in between runs."""
    named = os.environ.get("TRIMTAB_TEST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "trimtab-tests"


def python_with(*packages: str) -> Path:
    """Return a Python that has these packages; the first call installs them, the test is skipped if it cannot."""
    key = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:16]
    folder = cache() / f"client-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is needed to install a client")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
            python = ["--python", str(folder / "bin" / "python")]
            done = subprocess.run([uv, "pip", "install", "--quiet", *python, *packages], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"a client cannot be installed here: {done.stderr[-300:]}")
            (folder / "ready").touch()
    return folder / "bin" / "python"


def run_client(
    script: str,
    url: str,
    folder: Path,
    *words: str,
    packages: tuple[str, ...] = MLFLOW,
    token: str = "",
    timeout: float = 120,
    more: Mapping[str, str] = {},
) -> str:
    """Run a script of ``SCRIPTS`` against a server and return what it printed; it must end well.

    Args:
        script: the file's name.
        url: the server's.
        folder: where it runs.
        words: more arguments.
        packages: what it needs.
        token: what the server asks for.
        timeout: in seconds.
        more: environment variables.
    """
    python = python_with(*packages)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "OTEL", "PYTHON"))}
    # A server that fails is heard at once and not asked again for minutes.
    env |= {"MLFLOW_TRACKING_URI": url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "GIT_PYTHON_REFRESH": "quiet"}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true"} | ({"MLFLOW_TRACKING_TOKEN": token} if token else {}) | dict(more)
    done = subprocess.run(
        [str(python), str(SCRIPTS / script), url, *words],
        cwd=folder, env=env, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, f"{script} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def project(folder: Path) -> Path:
    """Write a project without assets, for a server that only keeps records, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trimtab.yaml").write_text("project: records\nmodules: [nothing]\n")
    (folder / "nothing.py").write_text("")
    return folder
