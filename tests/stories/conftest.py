"""Stories run the real command line and real servers in folders of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

BIN = Path(sys.executable).parent
TRIMTAB = [sys.executable, "-m", "trimtab"]


class Answer:
    """What a command printed and how it ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def data(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.out)


class Shell:
    """Runs `trimtab` in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, expect: int | None = 0, timeout: float = 120) -> Answer:
        """Run a command and check how it ended; ``expect=None`` takes any exit code."""
        done = subprocess.run(
            [*TRIMTAB, *words], cwd=self.folder, capture_output=True, text=True, timeout=timeout, env=_env()
        )
        answer = Answer(done)
        if expect is not None:
            assert answer.code == expect, f"{words} ended with {answer.code}\n{answer.out}\n{answer.err}"
        return answer

    def json(self, *words: str, expect: int | None = 0) -> Any:
        """Run a command with ``--json`` and return its document."""
        return self(*words, "--json", expect=expect).data

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def _env() -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


class Server:
    """A running `trimtab up`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        log = (self.folder / "up.log").open("ab")
        self.process = subprocess.Popen(
            [*TRIMTAB, "up", "--port", str(self.port), *self.options],
            cwd=self.folder, stdout=log, stderr=log, env=_env(), start_new_session=True,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "up.log").read_text()
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("not ready in 30 s: " + (self.folder / "up.log").read_text())

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)
        self.process = None

    def client(self) -> httpx.Client:
        """Return a client with the token."""
        token = self.folder / ".trimtab" / "token"
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return a shell in an empty folder."""
    return Shell(tmp_path)


@pytest.fixture
def quickstart(tmp_path: Path) -> Shell:
    """Return a shell in a fresh project that `trimtab init` wrote."""
    Shell(tmp_path)("init", "hello")
    return Shell(tmp_path / "hello")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Return a function that starts servers; they are ended after the test."""
    started: list[Server] = []

    def start(folder: Path, *options: str) -> Server:
        server = Server(folder, *options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()
