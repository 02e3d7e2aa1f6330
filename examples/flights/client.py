"""A small client that sends a request again until it is answered: ids make repeats harmless."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any


class Client:
    """One kept-alive connection to `trimtab up`.

    Args:
        port: on this machine.
        token: bearer token.
        patience: seconds for which an unreachable server is tried again.
    """

    def __init__(self, port: int, token: str, *, patience: float = 60.0) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._patience = patience
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of the answer; connection failures and 502-504 are tried again."""
        payload = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + self._patience
        while True:
            try:
                status, text = self._once(method, path, payload, headers)
                if status not in (502, 503, 504):
                    return status, json.loads(text) if text else None
                problem = f"{status} {text[:300]!r}"
            except (OSError, http.client.HTTPException) as error:
                self.close()
                problem = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise RuntimeError(f"{method} {path} was not answered in {self._patience:g} s: {problem}")
            time.sleep(0.1)

    def _once(self, method: str, path: str, payload: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, payload, {**self._headers, **named})
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
