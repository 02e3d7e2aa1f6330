"""The addresses of the MLflow API, each with its permission, beside the native ones."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trimtab.api.mlflow import limits, multipart, otlp
from trimtab.api.mlflow.artifacts import (
    LISTED,
    OF_RUN,
    Artifacts,
    delete,
    download,
    of_model,
    of_run,
    of_version,
    streamed,
    upload,
    upload_to_run,
)
from trimtab.api.mlflow.evalsets import OPERATIONS as evalset_operations
from trimtab.api.mlflow.evalsets import EvalSets
from trimtab.api.mlflow.models import OPERATIONS as model_operations
from trimtab.api.mlflow.models import Models
from trimtab.api.mlflow.multipart import Uploads
from trimtab.api.mlflow.pages import mount_pages
from trimtab.api.mlflow.registry import OPERATIONS as registry_operations
from trimtab.api.mlflow.registry import Registry
from trimtab.api.mlflow.searches import OPERATIONS as search_operations
from trimtab.api.mlflow.searches import Searches
from trimtab.api.mlflow.server import ASKED, graphql, info, no_gateway
from trimtab.api.mlflow.traces import OLD_OPERATIONS as old_trace_operations
from trimtab.api.mlflow.traces import OPERATIONS as trace_operations
from trimtab.api.mlflow.traces import Traces
from trimtab.api.mlflow.traces import artifact as trace_artifact
from trimtab.api.mlflow.tracking import OPERATIONS as tracking_operations
from trimtab.api.mlflow.tracking import Tracking
from trimtab.api.mlflow.webhooks import OPERATIONS as webhook_operations
from trimtab.api.mlflow.webhooks import Webhooks
from trimtab.api.mlflow.wire import Spec, arguments, body_of, error_of
from trimtab.api.routes import JSON, Route, Routes
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store.store import Store

VERSION = "3.12.0"
"""The release of MLflow whose behaviour is kept; clients ask for it before they use what came later."""

_PREFIXES = ("/api", "/ajax-api")
_LIMIT = 2 * limits.MOST_BYTES
_LARGEST = 1 << 40
_LARGE = 1 << 24
_LONG = frozenset({"runs/log-inputs", "datasets/{dataset_id:str}/records"})
"""What may be long by right: profiles of data, and all records of a dataset at once."""
T = TypeVar("T")
_READING = frozenset(
    {"search", "get", "get-by-name", "get-history", "get-latest-versions"}
    | {"batchGetInfos", "calculate-filter-correlation", "metrics", "search-datasets"}
)


def mount(routes: Routes, store: Store, pages: Path | None = None) -> None:
    """Register the MLflow API, and MLflow's own pages from a folder if there is one (``find_pages``)."""
    tracking, kept = Tracking(store), Artifacts(store)
    registry, searches = Registry(store), Searches(store)
    tracking.ensure_default()
    _add(routes, tracking_operations, tracking)
    _add(routes, model_operations, Models(store, kept))
    _add(routes, registry_operations, registry)
    _add(routes, search_operations, searches)
    _add(routes, webhook_operations, Webhooks(store))
    _add(routes, evalset_operations, EvalSets(store), "3.0")
    _mount_traces(routes, store, kept)
    _mount_artifacts(routes, kept, Uploads(store.home.root / "uploads", kept))
    for prefix in _PREFIXES:
        routes.add("GET", f"{prefix}/3.0/mlflow/server-info", info, permission="read", wire=partial(_json, {}))
    asked = graphql(tracking, searches, registry)
    routes.add("POST", "/graphql", asked, permission="read", limit=_LIMIT, wire=partial(_json, ASKED))
    routes.add(
        "POST", "/ajax-api/2.0/mlflow/graphql", asked, permission="read", limit=_LIMIT, wire=partial(_json, ASKED)
    )
    if pages is not None:
        mount_pages(routes, pages)
        path = "/ajax-api/2.0/mlflow/gateway-proxy"
        routes.add("GET", path, no_gateway, permission="read", wire=partial(_json, {}))
    routes.add("GET", "/version", lambda: VERSION, permission="read", media="text/plain")


def _add(
    routes: Routes,
    operations: Sequence[tuple[str, str, Spec, Callable[[T, Data], Data]]],
    subject: T,
    version: str = "2.0",
) -> None:
    """Register operations, each given what it acts on, below both of the prefixes that clients and pages use."""
    for method, path, spec, act in operations:
        reads = method == "GET" or path.rpartition("/")[2] in _READING
        for prefix in _PREFIXES:
            routes.add(
                method,
                f"{prefix}/{version}/mlflow/{path}",
                partial(act, subject),
                permission="read" if reads else "track",
                limit=_LARGE if path in _LONG else _LIMIT,
                wire=partial(_json, spec),
            )


def _mount_traces(routes: Routes, store: Store, kept: Artifacts) -> None:
    traces = Traces(store, kept)
    for version, operations in (("2.0", old_trace_operations), ("3.0", trace_operations)):
        _add(routes, operations, traces, version)
        for prefix in _PREFIXES:
            path = f"{prefix}/{version}/mlflow/get-trace-artifact"
            routes.add("GET", path, traces.spans_file, permission="read", wire=trace_artifact(traces))
    routes.add("POST", otlp.PATH, otlp.receive, permission="track", limit=otlp.LIMIT, wire=otlp.traced(store))


def _mount_artifacts(routes: Routes, kept: Artifacts, uploads: Uploads) -> None:
    for at, find in (
        ("/get-artifact", of_run),
        ("/model-versions/get-artifact", of_version),
        ("/ajax-api/2.0/mlflow/logged-models/{model_id:str}/artifacts/files", of_model),
    ):
        routes.add("GET", at, find, permission="read", wire=streamed(find, kept))
    sent = "/ajax-api/2.0/mlflow/upload-artifact"
    routes.add("POST", sent, upload_to_run, permission="track", limit=_LIMIT * 10, wire=streamed(upload_to_run, kept))
    for prefix in _PREFIXES:
        mpu = f"{prefix}/2.0/mlflow-artifacts/mpu"
        for name, act in (("create", multipart.begin), ("complete", multipart.end), ("abort", multipart.drop)):
            for path in (f"{mpu}/{name}", f"{mpu}/{name}/{{path:path}}"):
                routes.add("POST", path, act, permission="track", limit=_LIMIT, wire=streamed(act, uploads))
        part = f"{mpu}/part/{{path:path}}"
        wire = streamed(multipart.keep, uploads)
        routes.add("PUT", part, multipart.keep, permission="track", limit=_LARGEST, wire=wire)
        at = f"{prefix}/2.0/mlflow-artifacts/artifacts"
        for method, work, permission in (
            ("PUT", upload, "track"),
            ("GET", download, "read"),
            ("DELETE", delete, "track"),
        ):
            path = f"{at}/{{path:path}}"
            routes.add(method, path, work, permission=permission, limit=_LARGEST, wire=streamed(work, kept))
        routes.add("GET", at, kept.listed, permission="read", wire=partial(_json, LISTED))
        path = f"{prefix}/2.0/mlflow/artifacts/list"
        routes.add("GET", path, kept.of_run, permission="read", wire=partial(_json, OF_RUN))


def _json(spec: Spec, route: Route) -> Callable[..., Any]:
    """Return a handler for Litestar of an operation that takes and gives JSON."""
    litestar = need("litestar")

    async def handle(request: Any) -> Any:
        if route.method == "GET":
            query = _query(request)
            work = partial(_answer, route.handler, spec, None, query, request.path_params)
        else:
            work = partial(_answer, route.handler, spec, await request.body(), None, request.path_params)
        status, content = await asyncio.to_thread(work)
        return litestar.Response(content, status_code=status, media_type=JSON)

    handle.__annotations__ = {"request": litestar.Request, "return": litestar.Response}
    return handle


def _query(request: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        found.setdefault(name, []).append(value)
    return found


def _answer(
    handler: Callable[[Data], Data],
    spec: Spec,
    content: bytes | None,
    query: Mapping[str, Sequence[str]] | None,
    path: Mapping[str, str],
) -> tuple[int, bytes]:
    try:
        given = body_of(content) if content is not None else {}
        found = arguments(given, spec, query)
        return 200, msgspec.json.encode(handler({**found, **path}))
    except Exception as error:
        status, told = error_of(error)
        if status == 500:
            traceback.print_exception(error, file=sys.stderr)
        return status, msgspec.json.encode(told)
