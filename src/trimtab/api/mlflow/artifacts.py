"""The artifact proxy, and what lies among a run's artifacts."""

from __future__ import annotations

import asyncio
import mimetypes
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trimtab.api.mlflow.wire import NEEDED, TEXT, MlflowError, Spec, error_of
from trimtab.api.routes import JSON, Route
from trimtab.core.clock import wall_seconds
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store import artifacts, models, registry, tracking
from trimtab.store.artifacts import PROXIED, Artifact, checked_path
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

T = TypeVar("T")
SCHEME = "mlflow-artifacts:"
_MOST_UPLOADED = 10 << 20
_TEXT = re.compile(
    r"txt|log|err|cfg|conf|cnf|cf|ini|properties|prop|hocon|toml|yaml|yml|xml|json|js|py|py3|csv|tsv|md|rst|MLmodel"
    r"|mlproject"
)
_PLAIN_NAME = re.compile(r"[\w!#$%&+.^`|~-]+", re.ASCII)


class Artifacts:
    """What clients keep through the server.

    Args:
        store: its ledger has the paths, its blobs the contents.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def keep(self, path: str, file: Path) -> None:
        """Keep a file's content at a path; it is durable when this returns."""
        path = checked_path(path)
        blob = self.store.blobs.put_file(file)
        size, at = file.stat().st_size, int(wall_seconds() * 1e6)

        def write(tx: Tx) -> None:
            artifacts.put_artifact(tx, PROXIED, path, blob=blob, size=size, at=at)

        self.store.ledger.write(write, what="put artifact")

    def keep_bytes(self, path: str, content: bytes) -> None:
        """Keep a content at a path; it is durable when this returns."""
        with tempfile.NamedTemporaryFile(prefix="trimtab-") as file:
            file.write(content)
            file.flush()
            self.keep(path, Path(file.name))

    def file(self, path: str) -> Path:
        """Return the file that holds the content of a path.

        Raises:
            NotFound: there is none.
        """
        return self.store.blobs.path(artifacts.get_artifact(self.store.ledger, PROXIED, checked_path(path)).blob)

    def drop(self, path: str) -> None:
        """Remove a file or a folder; what is not there is gone already."""
        path = checked_path(path)
        self.store.ledger.write(lambda tx: artifacts.drop_artifacts(tx, PROXIED, path), what="delete artifact")

    def listed(self, given: Data) -> Data:
        """List what lies in a folder of the proxy, by the names there."""
        folder = folder_of(given.get("path") or "")
        found = artifacts.list_artifacts(self.store.ledger, PROXIED, folder)
        cut = len(folder) + 1 if folder else 0
        return {"files": [_file(one, one.path[cut:]) for one in found]}

    def of_run(self, given: Data) -> Data:
        """List a run's artifacts in one of its folders, by their paths below the run."""
        folder = folder_of(given.get("path") or "")
        run = tracking.get_run(self.store.ledger, given["run_id"])
        return {"root_uri": run.root, "files": self.below(run.root, folder)}

    def below(self, root: str, folder: str) -> list[Data]:
        """Return what lies in a folder below a root of ours, as answers have it.

        Raises:
            MlflowError: the root is another storage's, which only the client can read.
        """
        if not root.startswith(SCHEME):
            text = f"The artifacts at '{root}' are not kept by this server; list them where they are"
            raise MlflowError(text, "NOT_IMPLEMENTED")
        base = root.removeprefix(SCHEME).strip("/")
        found = artifacts.list_artifacts(self.store.ledger, PROXIED, f"{base}/{folder}" if folder else base)
        return [_file(one, one.path[len(base) + 1 :]) for one in found]

    def at(self, root: str, path: str) -> str:
        """Return the path in the proxy of what lies at a path below a root of ours; errors as in ``below``."""
        if not root.startswith(SCHEME):
            text = f"The artifacts at '{root}' are not kept by this server; read them where they are"
            raise MlflowError(text, "NOT_IMPLEMENTED")
        return checked_path(f"{root.removeprefix(SCHEME).strip('/')}/{checked_path(path)}")


def folder_of(path: str) -> str:
    """Return the folder that a request names; nothing, ``.`` and ``./`` are the top.

    Raises:
        BadInput: it is absolute, or leads out.
    """
    if path.startswith("/"):
        return checked_path(path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return checked_path("/".join(parts)) if parts else ""


def _file(one: Artifact, name: str) -> Data:
    return {"path": name, "is_dir": one.folder, **({} if one.folder else {"file_size": one.size})}


LISTED: Spec = {"path": TEXT}
OF_RUN: Spec = {"run_id": NEEDED, "path": TEXT, "page_token": TEXT}


def streamed(work: Callable[[T, str, Any], Any], kept: T) -> Callable[[Route], Callable[..., Any]]:
    """Return what makes Litestar's handler of an address whose body, or answer, is a file."""

    def wire(route: Route) -> Callable[..., Any]:
        del route
        litestar = need("litestar")

        async def handle(request: Any) -> Any:
            path = str(request.path_params.get("path", "")).lstrip("/")
            try:
                return await work(kept, path, request)
            except Exception as error:
                status, told = error_of(error)
                return litestar.Response(msgspec.json.encode(told), status_code=status, media_type=JSON)

        handle.__annotations__ = {"request": litestar.Request, "return": Any}
        return handle

    return wire


async def upload(kept: Artifacts, path: str, request: Any) -> Any:
    """Keep the body of a request at its path."""
    checked_path(path)
    with tempfile.NamedTemporaryFile(prefix="trimtab-") as file:
        async for part in request.stream():
            await asyncio.to_thread(file.write, part)
        file.flush()
        await asyncio.to_thread(kept.keep, path, Path(file.name))
    return need("litestar").Response(b"{}", media_type=JSON)


async def upload_to_run(kept: Artifacts, path: str, request: Any) -> Any:
    """Keep the body of a request among the artifacts of the run that its query names; MLflow's pages send so."""
    asked = request.query_params
    for name in ("run_uuid", "path"):
        if not asked.get(name):
            raise MlflowError(f"Request must specify {name}.")
    path = checked_path(asked["path"])
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MOST_UPLOADED:
            raise MlflowError("Artifact size is too large. Max size is 10MB.")
    if not content:
        raise MlflowError("Request must specify data.")
    run = tracking.get_run(kept.store.ledger, asked["run_uuid"])
    await asyncio.to_thread(kept.keep_bytes, kept.at(run.root, path), bytes(content))
    return need("litestar").Response(b"{}", media_type=JSON)


async def download(kept: Artifacts, path: str, request: Any) -> Any:
    """Send the content of a path; a browser is to keep it as a file and not to show it as a page of ours."""
    del request
    file = await asyncio.to_thread(kept.file, path)
    name = path.rpartition("/")[2]
    headers = {
        "content-type": media_type(name),
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
    }
    if _PLAIN_NAME.fullmatch(name):
        headers["content-disposition"] = f"attachment; filename={name}"
    return need("litestar.response").File(file, filename=name, headers=headers)


def media_type(name: str) -> str:
    """Return the type of a file by its name; what people read as text is ``text/plain``, whatever it is called."""
    if _TEXT.fullmatch(name.rpartition(".")[2]):
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


async def of_run(kept: Artifacts, path: str, request: Any) -> Any:
    """Send the artifact that a query names by run and path."""
    asked = request.query_params
    path = checked_path(asked.get("path") or path)
    run = tracking.get_run(kept.store.ledger, asked.get("run_id") or asked.get("run_uuid") or "")
    return await download(kept, kept.at(run.root, path), request)


async def of_model(kept: Artifacts, path: str, request: Any) -> Any:
    """Send a file of a logged model."""
    path = checked_path(request.query_params.get("artifact_file_path") or path)
    known = models.get_model(kept.store.ledger, request.path_params["model_id"])
    return await download(kept, kept.at(known.root, path), request)


async def of_version(kept: Artifacts, path: str, request: Any) -> Any:
    """Send a file of a registered model's version."""
    asked, ledger = request.query_params, kept.store.ledger
    path, number = checked_path(asked.get("path") or path), asked.get("version") or ""
    if not number.isdecimal() or len(number) > 18:
        raise MlflowError(f"Invalid value {number!r} for parameter 'version' supplied.")
    known = registry.get_version(ledger, asked.get("name") or "", int(number))
    return await download(kept, kept.at(registry.root_of(ledger, known), path), request)


async def delete(kept: Artifacts, path: str, request: Any) -> Any:
    """Remove what is at a path."""
    del request
    await asyncio.to_thread(kept.drop, path)
    return need("litestar").Response(b"{}", media_type=JSON)
