"""Receivers of webhooks: real HTTP servers on this machine that keep what they got and answer as they are told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from msgspec import Struct


class Got(Struct, frozen=True):
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The delivery's id."""
        return self.headers["x-mlflow-delivery-id"]

    @property
    def event(self) -> str:
        """What it is about, such as ``model_version.created``."""
        told = json.loads(self.body)
        return f"{told['entity']}.{told['action']}"

    @property
    def data(self) -> Any:
        """What it says."""
        return json.loads(self.body)["data"]


class Receiver:
    """A server on 127.0.0.1.

    Args:
        status: what it answers, or what says so for each request from how many came before.
        context: of TLS, if it speaks that.
        headers: of its answers.
        delay: seconds before each answer.
        port: to listen on; by default a free one.
    """

    def __init__(
        self,
        status: int | Callable[[int], int] = 200,
        *,
        context: ssl.SSLContext | None = None,
        headers: dict[str, str] | None = None,
        body: bytes = b"thanks",
        delay: float = 0.0,
        port: int = 0,
    ) -> None:
        self.got: list[Got] = []
        self.status = status
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                named = {name.lower(): value for name, value in self.headers.items()}
                with outer._changed:
                    before = len(outer.got)
                    outer.got.append(Got(self.path, named, content))
                    outer._changed.notify_all()
                time.sleep(delay)
                status = outer.status if isinstance(outer.status, int) else outer.status(before)
                try:
                    self.send_response(status)
                    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # the sender has gone
                    return

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, address: Any) -> None:
                return

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_address[1])
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def wait(self, count: int, seconds: float = 10.0) -> list[Got]:
        """Return what came once that is so much."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.got) >= count, seconds), [one.event for one in self.got]
            return list(self.got)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def verified(got: Got, secret: str, oldest: float = 300.0) -> bool:
    """Say whether a receiver may believe a request, as MLflow's documentation has receivers check it."""
    ident, timestamp = got.headers["x-mlflow-delivery-id"], got.headers["x-mlflow-timestamp"]
    signature = got.headers["x-mlflow-signature"]
    if not 0 <= time.time() - int(timestamp) <= oldest or not signature.startswith("v1,"):
        return False
    signed = f"{ident}.{timestamp}.{got.body.decode('utf-8')}"
    expected = base64.b64encode(hmac.new(secret.encode("utf-8"), signed.encode("utf-8"), hashlib.sha256).digest())
    return hmac.compare_digest(signature.removeprefix("v1,"), expected.decode("utf-8"))
