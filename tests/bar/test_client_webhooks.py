"""Webhooks with the real client, against a real server that is killed, and receivers that check what they get."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.bar.clients import project, run_client
from tests.receivers import Receiver, verified
from tests.stories.conftest import Server
from trimtab.api.outbound import HOSTS, HTTP

pytestmark = pytest.mark.story
SECRET = "a secret between the two"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return a running server without a token, which may reach receivers on this machine."""
    monkeypatch.setenv(HOSTS, "127.0.0.1")
    monkeypatch.setenv(HTTP, "127.0.0.1")
    started = Server(project(tmp_path / "hooks"), "--auth", "none")
    started.start()
    yield started
    started.stop()


def test_the_client_of_mlflow(server: Server, tmp_path: Path) -> None:
    """Its calls work unmodified, and a receiver that checks as MLflow's documentation says believes what it gets."""
    with Receiver() as receiver:
        target = receiver.url.removesuffix("/hook")
        assert run_client("mlflow_webhooks.py", server.url, tmp_path, target, SECRET).endswith("done\n")
        # Registering a prompt sets tags too, of which there may be more in another release.
        while (got := receiver.wait(12))[-1].event != "prompt_alias.created":
            receiver.wait(len(got) + 1)
    assert all(one.path == "/main" and verified(one, SECRET) for one in got)
    assert [one.event for one in got[:2]] == ["registered_model.created", "prompt_version.created"]
    acts = got[2:]
    assert [one.event for one in acts[:8]] == [
        "registered_model.created",
        "model_version.created",
        "model_version_tag.set",
        "model_version_tag.deleted",
        "model_version_alias.created",
        "model_version_alias.deleted",
        "prompt.created",
        "prompt_version.created",
    ]
    assert acts[0].data == {"name": "fraud", "tags": {"a": "1"}, "description": "about fraud"}
    template = next(one.data for one in acts if one.event == "prompt_version.created")
    assert (template["template"], template["version"]) == ("Hello {{name}}", "1")
    aliases = [one.data for one in acts if one.event == "prompt_alias.created"]
    assert aliases == [{"name": "greet", "alias": "production", "version": "1"}]


def test_a_server_that_is_killed_tells_it_later(server: Server) -> None:
    """What happened before a kill -9 is told after the next start: nothing of it was only in memory."""
    api = f"{server.url}/api/2.0/mlflow"
    events = [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]
    with Receiver() as receiver:
        port, url = receiver.port, receiver.url
    made = httpx.post(f"{api}/webhooks", json={"name": "a", "url": url, "events": events, "secret": SECRET})
    assert made.status_code == 200, made.text
    names = [f"m{number}" for number in range(5)]
    for name in names:
        assert httpx.post(f"{api}/registered-models/create", json={"name": name}).status_code == 200
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGKILL)
    server.stop()
    with Receiver(port=port) as receiver:
        server.start()
        got = receiver.wait(5, seconds=60)
    assert sorted(one.data["name"] for one in got) == names and all(verified(one, SECRET) for one in got)
