"""The control process' application over a scene, without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.scene import Scene
from trimtab.api.app import Control, make_app
from trimtab.core.optional import need
from trimtab.serve.routes import publish
from trimtab.store.store import open_store


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Return a watched endpoint in a store of its own, on simulated time."""
    with open_store(tmp_path / "store", actor="tests") as store:
        made = Scene(store)
        publish(store)
        yield made
        made.close()


@pytest.fixture
def control(scene: Scene) -> Iterator[Control]:
    """Return the control process over the scene, in a store handle of its own."""
    made = Control(open_store(scene.store.home.root, actor="control"), "")
    yield made
    made.close()


@pytest.fixture
def client(control: Control) -> Iterator[Any]:
    """Return an HTTP client of the application."""
    with need("litestar.testing").TestClient(make_app(control)) as made:
        yield made
