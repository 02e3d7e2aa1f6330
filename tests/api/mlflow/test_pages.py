"""MLflow's own pages from an installed package, as far as they are files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtab.api.app import Control, make_app
from trimtab.api.mlflow.pages import find_pages
from trimtab.core.errors import Unavailable
from trimtab.core.optional import need
from trimtab.store.store import Store, open_store


@pytest.fixture
def pages(tmp_path: Path, store: Store) -> Iterator[Any]:
    """Return an HTTP client of a control process with pages."""
    folder = tmp_path / "build"
    (folder / "static" / "js").mkdir(parents=True)
    (folder / "index.html").write_text("<p>pages</p>")
    (folder / "static" / "js" / "main.js").write_text("1")
    (tmp_path / "secret").write_text("no")
    control = Control(open_store(store.home.root, actor="control"), "", pages=folder)
    with need("litestar.testing").TestClient(make_app(control)) as client:
        yield client
    control.close()


def test_files_of_the_folder_and_no_others(pages: Any) -> None:
    """The first page and what it names are sent, each with its type; nothing else is reachable."""
    first = pages.get("/")
    assert first.text == "<p>pages</p>" and first.headers["content-type"].startswith("text/html")
    script = pages.get("/static-files/static/js/main.js")
    assert (
        script.text == "1"
        and "javascript" in script.headers["content-type"]
        and "immutable" in script.headers["cache-control"]
    )
    for path in ("../secret", "%2e%2e/secret", "..%2fsecret", "static/js", "none.js"):
        assert pages.get(f"/static-files/{path}").status_code == 404
    assert pages.get("/ajax-api/2.0/mlflow/gateway-proxy").json() == {"endpoints": []}


def test_without_the_package(api: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There are no pages unless they are asked for, and asking without the package says what to install."""
    assert api.get("/").status_code == 404
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(Unavailable, match="not installed"):
        find_pages()
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").write_text("raise SystemExit('it was imported')")
    with pytest.raises(Unavailable, match="brings no pages"):
        find_pages()
