"""No route without a declared permission (DESIGN rule 4)."""

from __future__ import annotations

import pytest

from trimtab.api.routes import PERMISSIONS, Routes
from trimtab.core.errors import ProjectError


def _answer() -> dict[str, int]:
    return {}


def test_a_route_without_a_permission_does_not_register() -> None:
    """A missing or unknown permission is refused, with the closest known one."""
    with pytest.raises(ProjectError, match="no known permission"):
        Routes().add("GET", "/secret", _answer)
    with pytest.raises(ProjectError, match="did you mean 'operate'"):
        Routes().add("GET", "/secret", _answer, permission="operat")


def test_an_address_is_registered_once() -> None:
    """The same method and path twice, or a method that is not served, is refused."""
    routes = Routes()
    routes.add("GET", "/a", _answer, permission="read")
    routes.add("POST", "/a", _answer, permission="operate", limit=10)
    for method in ("GET", "TRACE"):
        with pytest.raises(ProjectError, match="taken"):
            routes.add(method, "/a", _answer, permission="read")
    assert [route.permission for route in routes.all()] == ["read", "operate"]


def test_handlers_carry_their_permission() -> None:
    """What decides about access is on the matched route, not in the URL."""
    routes = Routes()
    routes.add("GET", "/a", _answer, permission="read")
    (handler,) = routes.handlers()
    assert handler.opt["permission"] == "read" and set(PERMISSIONS) >= {"read"}
