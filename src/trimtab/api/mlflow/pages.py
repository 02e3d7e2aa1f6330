"""MLflow's own web pages before our server, for those who have the ``mlflow`` package installed and ask for them.

The package is looked for and never imported: its pages are files. Each address that can be asked for is known before
the first request comes, so no text of a client ever becomes a path.
"""

from __future__ import annotations

import importlib.util
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trimtab.api.routes import Route, Routes
from trimtab.core.errors import NotFound, Unavailable
from trimtab.core.optional import need

_BUILD = Path("server") / "js" / "build"
_FOREVER = "public, max-age=31536000, immutable"
_NOW = "no-cache"


def find_pages() -> Path:
    """Return the folder of the pages that the installed ``mlflow`` brings.

    Raises:
        Unavailable: it is not installed, or it is the small variant without pages.
    """
    spec = importlib.util.find_spec("mlflow")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / _BUILD
        if (folder / "index.html").is_file():
            return folder
    raise Unavailable(
        "MLflow's pages are not installed here" if spec is None else "the installed mlflow brings no pages",
        where="--mlflow-ui",
        fix="pip install mlflow (not mlflow-skinny) beside trimtab, or leave --mlflow-ui out",
    )


def mount_pages(routes: Routes, folder: Path) -> None:
    """Register the pages of a folder: ``/`` and everything below ``/static-files``.

    Args:
        routes: where they are added.
        folder: from ``find_pages``.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def page(path: str = "/index.html") -> Path:
        """Return the file of an address."""
        name = path.removeprefix("/")
        if name not in files:
            raise NotFound(f"there is no page {name[:200]!r}", where="path", fix="begin at /")
        return files[name]

    routes.add("GET", "/", page, permission="read", wire=_sent)
    routes.add("GET", "/static-files/{path:path}", page, permission="read", wire=_sent)


def _sent(route: Route) -> Callable[..., Any]:
    """Return a handler for Litestar that sends the file that a route's handler names."""
    litestar = need("litestar")

    async def handle(request: Any) -> Any:
        path: Path = route.handler(**request.path_params)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        hashed = path.parent.name in ("js", "css", "media")
        headers = {
            "cache-control": _FOREVER if hashed else _NOW,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "same-origin",
        }
        return litestar.Response(path.read_bytes(), media_type=kind, headers=headers)

    handle.__annotations__ = {"request": litestar.Request, "return": litestar.Response}
    return handle
