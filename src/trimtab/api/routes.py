"""Routes as data: a path, a handler, and the permission without which none registers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_type_hints

import msgspec
from msgspec import Struct

from trimtab.core.errors import BadInput, ProjectError, closest
from trimtab.core.optional import need

Permission = Literal["health", "read", "label", "track", "operate"]
PERMISSIONS: dict[str, str] = {
    "health": "say whether the server is ready; the only thing that needs no token",
    "read": "read what is live and what happened",
    "label": "post labels of predictions that were answered",
    "track": "record experiments, runs, models and their artifacts",
    "operate": "advance the clock and change what is live",
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
JSON = "application/json"


class Route(Struct, frozen=True, kw_only=True):
    """One registered address.

    Attributes:
        limit: the largest request body in bytes; a larger one is refused before it is parsed.
        media: what the answer is.
        wire: makes Litestar's handler of the route; by default one of the native API.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    permission: str
    limit: int
    media: str
    wire: Callable[[Route], Callable[..., Any]] | None = None


class Routes:
    """Collects routes and refuses one without a declared permission."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], Route] = {}

    def add(
        self,
        method: str,
        path: str,
        handler: Callable[..., Any],
        *,
        permission: str = "",
        limit: int = 0,
        media: str = JSON,
        wire: Callable[[Route], Callable[..., Any]] | None = None,
    ) -> Route:
        """Register a handler.

        Args:
            method: one of ``METHODS``.
            path: with parameters as ``{name:str}``.
            handler: a plain function. Its parameters are filled by name from the path, the query and, for
                one called ``body``, the body's JSON; its answer is plain data, or text for another media type.
            permission: one of ``PERMISSIONS``.
            limit: the largest request body in bytes.
            media: the type of the answer.
            wire: how requests and answers of this address are written, if not as the native API's.

        Raises:
            ProjectError: the permission is missing or unknown, the method is unknown, or the address is taken.
        """
        where = f"{method} {path}"
        if permission not in PERMISSIONS:
            raise ProjectError(
                f"the route declares no known permission ({permission!r}){closest(permission, PERMISSIONS)}",
                where=where,
                fix=f"one of {', '.join(PERMISSIONS)}",
            )
        if method not in METHODS or (method, path) in self._routes:
            raise ProjectError("the method is unknown or the address is taken", where=where)
        route = Route(
            method=method, path=path, handler=handler, permission=permission, limit=limit, media=media, wire=wire
        )
        self._routes[method, path] = route
        return route

    def all(self) -> Sequence[Route]:
        """Return the routes in the order in which they were added."""
        return tuple(self._routes.values())

    def handlers(self) -> list[Any]:
        """Return the routes as Litestar handlers, each carrying its permission in ``opt``."""
        litestar = need("litestar")
        makers = {name: getattr(litestar, name.lower()) for name in METHODS}
        found = []
        for route in self._routes.values():
            more = {"request_max_body_size": route.limit} if route.method != "GET" else {}
            make = makers[route.method](route.path, opt={"permission": route.permission}, status_code=200, **more)
            found.append(make((route.wire or _adapted)(route)))
        return found


def _adapted(route: Route) -> Callable[..., Any]:
    """Return a handler for Litestar around a plain function, which runs in a thread of its own."""
    litestar = need("litestar")
    takes_body = "body" in inspect.signature(route.handler).parameters

    async def handle(request: Any) -> Any:
        given: dict[str, Any] = {**request.query_params.dict(), **request.path_params}
        content = await request.body() if takes_body else b""
        arguments = arguments_of(route.handler, given)
        if takes_body:
            arguments["body"] = _json(content)
        answer = await asyncio.to_thread(route.handler, **arguments)
        return litestar.Response(answer, media_type=route.media)

    handle.__annotations__ = {"request": litestar.Request, "return": litestar.Response}
    return handle


def arguments_of(handler: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a handler's arguments from a request's path and query, converted to what it takes.

    Raises:
        BadInput: a parameter is missing, unknown (the closest is named), given twice, or of another type.
    """
    known = {name: one for name, one in inspect.signature(handler).parameters.items() if name != "body"}
    hints, found = get_type_hints(handler), {}
    for name, value in given.items():
        if name not in known:
            raise BadInput(f"there is no parameter {name!r}{closest(name, known)}", where=name, fix=", ".join(known))
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        try:
            found[name] = msgspec.convert(one, hints[name], strict=False)
        except msgspec.ValidationError as error:
            raise BadInput(f"{name}: {error}", where=name, fix="correct the parameter") from error
    missing = [name for name, one in known.items() if one.default is one.empty and name not in found]
    if missing:
        raise BadInput(f"{missing[0]} is missing", where=missing[0], fix="give it in the query")
    return found


def _json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise BadInput(f"the body is not JSON: {error}", where="$", fix="send JSON") from error
