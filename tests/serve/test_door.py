"""Who is let in, by host, origin, token and size."""

from __future__ import annotations

from base64 import b64encode

import pytest

from trimtab.serve.door import MAX_BODY, Door, check_length

GOOD = {"host": "127.0.0.1:8571", "authorization": "Bearer secret"}


@pytest.fixture
def door() -> Door:
    """Return a door with a token on the default port."""
    return Door(host="127.0.0.1", port=8571, token="secret")


def test_a_good_request_comes_in(door: Door) -> None:
    """A known host and the token suffice for a program."""
    assert door.check("POST", GOOD, public=False) is None


@pytest.mark.parametrize(
    ("changes", "method", "status"),
    [
        ({"host": "evil.example:8571"}, "GET", 421),
        ({"host": "127.0.0.1"}, "GET", 421),
        ({"host": "127.0.0.1:8571.evil.example"}, "GET", 421),
        ({"host": None}, "GET", 421),
        ({"authorization": None}, "GET", 401),
        ({"authorization": "Bearer Secret"}, "GET", 401),
        ({"authorization": "Basic secret"}, "GET", 401),
        ({"authorization": f"Basic {b64encode(b'secret').decode()}"}, "GET", 401),
        ({"authorization": f"Basic {b64encode(b'secret:me').decode()}"}, "GET", 401),
        ({"authorization": f"Basic {b64encode(b'me:').decode()}"}, "GET", 401),
        ({"authorization": f"Digest {b64encode(b'me:secret').decode()}"}, "GET", 401),
        ({"authorization": "Basic é"}, "GET", 401),
        ({"authorization": "secret"}, "GET", 401),
        ({"authorization": "Bearer sécret"}, "GET", 401),
        ({"origin": "http://evil.example"}, "POST", 403),
        ({"origin": "null"}, "POST", 403),
        ({"origin": "http://127.0.0.1:9999"}, "DELETE", 403),
        ({"sec-fetch-site": "cross-site"}, "POST", 403),
        ({"sec-fetch-site": "same-site"}, "POST", 403),
    ],
)
def test_strangers_stay_out(door: Door, changes: dict[str, str | None], method: str, status: int) -> None:
    """Another name, another page, or no token: the status says which, and how to mend it."""
    headers = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    refused = door.check(method, headers, public=False)
    assert refused is not None and refused.status == status and refused.fix


@pytest.mark.parametrize(
    ("headers", "method"),
    [
        ({"origin": "http://evil.example"}, "GET"),
        ({"origin": "http://127.0.0.1:8571"}, "POST"),
        ({"origin": "http://127.0.0.1:8571", "sec-fetch-site": "same-origin"}, "POST"),
        ({"authorization": "bearer secret"}, "POST"),
        ({"authorization": f"Basic {b64encode(b'anybody:secret').decode()}"}, "POST"),
    ],
)
def test_what_is_harmless_comes_in(door: Door, headers: dict[str, str], method: str) -> None:
    """Reading from another page's script gives nothing away (no CORS headers), and our own pages may act."""
    assert door.check(method, {**GOOD, **headers}, public=False) is None


def test_public_routes_need_no_token_but_a_known_host(door: Door) -> None:
    """Health is open, for this host only."""
    assert door.check("GET", {"host": "localhost:8571"}, public=True) is None
    assert door.check("GET", {"host": "evil.example"}, public=True) is not None


def test_without_a_token_nobody_needs_one() -> None:
    """`--auth none` keeps the other rules."""
    door = Door(host="::1", port=80, token="")
    assert door.check("POST", {"host": "[::1]"}, public=False) is None
    assert door.check("POST", {"host": "[::1]:80"}, public=False) is None
    assert door.check("POST", {"host": "evil.example"}, public=False) is not None


def test_hosts_can_be_added() -> None:
    """A name that the operator gave is let in as it stands."""
    door = Door(host="0.0.0.0", port=8571, token="t", hosts=("models.example",))
    assert door.check("GET", {"host": "Models.Example"}, public=True) is None


@pytest.mark.parametrize(
    ("given", "status"), [(None, 0), ("0", 0), (str(MAX_BODY), 0), (str(MAX_BODY + 1), 413), ("-1", 400), ("x", 400)]
)
def test_large_bodies_are_not_read(given: str | None, status: int) -> None:
    """The announced length decides before the body comes."""
    refused = check_length({} if given is None else {"content-length": given})
    assert (refused.status if refused else 0) == status
