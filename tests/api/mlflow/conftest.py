"""The MLflow API over a store of its own, without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtab.api.app import Control, make_app
from trimtab.core.optional import need
from trimtab.serve.routes import publish
from trimtab.store.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store that the API is over."""
    with open_store(tmp_path / "store", actor="tests") as opened:
        publish(opened)
        yield opened


@pytest.fixture
def api(store: Store) -> Iterator[Any]:
    """Return an HTTP client of the control process."""
    control = Control(open_store(store.home.root, actor="control"), "")
    with need("litestar.testing").TestClient(make_app(control)) as client:
        yield client
    control.close()
