"""Routes as data: a path, a handler, and the permission without which none registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

from trimtab.core.errors import ProjectError, closest
from trimtab.core.optional import need

Permission = Literal["health", "read", "label", "operate"]
PERMISSIONS: dict[str, str] = {
    "health": "say whether the server is ready; the only thing that needs no token",
    "read": "read what is live and what happened",
    "label": "post labels of predictions that were answered",
    "operate": "advance the clock and change what is live",
}
METHODS = ("GET", "POST")


class Route(Struct, frozen=True, kw_only=True):
    """One registered address.

    Attributes:
        limit: the largest request body in bytes; a larger one is refused before it is parsed.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    permission: str
    limit: int


class Routes:
    """Collects routes and refuses one without a declared permission."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], Route] = {}

    def add(
        self, method: str, path: str, handler: Callable[..., Any], *, permission: str = "", limit: int = 0
    ) -> Route:
        """Register a handler.

        Args:
            method: ``GET`` or ``POST``.
            path: with parameters as ``{name:str}``.
            handler: a plain function; its parameters are resolved by name.
            permission: one of ``PERMISSIONS``.
            limit: the largest request body in bytes.

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
        route = Route(method=method, path=path, handler=handler, permission=permission, limit=limit)
        self._routes[method, path] = route
        return route

    def all(self) -> Sequence[Route]:
        """Return the routes in the order in which they were added."""
        return tuple(self._routes.values())

    def handlers(self) -> list[Any]:
        """Return the routes as Litestar handlers, each carrying its permission in ``opt``."""
        litestar = need("litestar")
        makers = {"GET": litestar.get, "POST": litestar.post}
        return [
            makers[route.method](
                route.path,
                opt={"permission": route.permission},
                sync_to_thread=True,
                status_code=200,
                **({"request_max_body_size": route.limit} if route.method == "POST" else {}),
            )(route.handler)
            for route in self._routes.values()
        ]
