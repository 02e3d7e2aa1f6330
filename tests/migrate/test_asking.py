"""Asking a server that is busy, hangs up, wants a token, or is none."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trimtab.core.errors import Fault, NotFound, Refused, Unavailable, WrongUse
from trimtab.migrate import asking
from trimtab.migrate.asking import Server, pages

ASKED: list[tuple[str, str | None]] = []
BUSY = [0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        ASKED.append((self.path, self.headers["authorization"]))
        if self.path in ("/busy", "/hangs-up") and BUSY[0] > 0:
            BUSY[0] -= 1
            if self.path == "/busy":
                self.answer(503, b"busy")
            self.close_connection = True
        elif self.path == "/short":
            self.answer(200, b"part", 100)
            self.close_connection = True
        else:
            status = int(self.path[1:]) if self.path[1:].isdecimal() else 200
            self.answer(status, b"no json" if self.path == "/text" else b'{"a": NaN}')

    def answer(self, status: int, body: bytes, length: int = 0) -> None:
        self.send_response(status)
        self.send_header("content-length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server that answers by path."""
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setattr(asking, "_PAUSE_S", 0.01)
    ASKED.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    """Return that server, to be asked."""
    opened = Server(f"{url}/")
    yield opened
    opened.close()


def test_a_server_that_is_busy_or_hangs_up_is_asked_again(server: Server) -> None:
    """Some errors pass; an answer comes in the end, or it is told that none did."""
    for path in ("/busy", "/hangs-up"):
        BUSY[0] = 2
        assert list(server.get(path)) == ["a"]
    BUSY[0] = 100
    with pytest.raises(Unavailable):
        server.get("/busy")
    BUSY[0] = 0
    with pytest.raises(Unavailable):
        Server("http://127.0.0.1:1").get("/x")


def test_errors_are_told_apart(server: Server) -> None:
    """What is not there, what is not allowed, what is wrong and what is no MLflow."""
    errors = {"/404": NotFound, "/401": Refused, "/403": Refused, "/400": Fault, "/text": Unavailable}
    for path, error in errors.items():
        with pytest.raises(error):
            server.get(path)
    with pytest.raises(Unavailable), server.file("/short"):
        pass
    with server.file("/whole", path="a b") as place:
        assert place.read_bytes() == b'{"a": NaN}'
    assert ASKED[-1][0] == "/whole?path=a+b"
    with pytest.raises(WrongUse):
        Server("http:///nowhere")


def test_credentials_come_from_the_url_or_the_environment(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and password go before a token, and none of them is shown."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    tokened, named = Server(url), Server(url.replace("http://", "http://ada:p%40ss@"))
    for one in (server, tokened, named):
        one.get("/x", token="", wanted=1)
        one.close()
    wanted = [None, "Bearer secret", f"Basic {b64encode(b'ada:p@ss').decode()}"]
    assert [("/x?wanted=1", one) for one in wanted] == ASKED and named.where == url


def test_all_pages_of_a_search_come() -> None:
    """The token of each answer asks for the next page."""
    answers = {"": {"items": [{"n": 1}, {"n": 2}], "next_page_token": "t"}, "t": {"items": [{"n": 3}]}}
    assert [one["n"] for one in pages(lambda body: answers[body["page_token"]], "items")] == [1, 2, 3]
