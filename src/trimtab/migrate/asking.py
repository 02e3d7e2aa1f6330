"""Asking a server of MLflow: JSON by its REST API and files by its proxy, on one connection that is kept."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from trimtab.core.errors import Fault, NotFound, Refused, Unavailable, WrongUse
from trimtab.core.nouns import Data

_TIMEOUT_S = 120
_TRIES = 5
_PAUSE_S = 0.2
_AGAIN = (408, 429, 500, 502, 503, 504)
_MOST = 1 << 28
_PIECE = 1 << 20


class Server:
    """A server that is asked.

    Args:
        url: where it is; user and password may stand in it, or in ``MLFLOW_TRACKING_USERNAME`` and
            ``MLFLOW_TRACKING_PASSWORD``, or a token in ``MLFLOW_TRACKING_TOKEN``.

    Raises:
        WrongUse: the URL is none.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WrongUse("this is not the URL of a server", where="source", fix="such as http://127.0.0.1:5000")
        self._host, self._port, self._secure = parts.hostname, parts.port, parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self.where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._base}"
        self._headers = {"user-agent": "trimtab", **_authorization(parts.username, parts.password)}
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, /, **params: Any) -> Data:
        """Return the JSON at an address; see ``_asked`` for errors."""
        query = urlencode({name: value for name, value in params.items() if value not in ("", None)}, doseq=True)
        return self._json("GET", f"{path}?{query}" if query else path, None)

    def post(self, path: str, body: Data) -> Data:
        """Return the JSON that answers a request; see ``_asked`` for errors."""
        return self._json("POST", path, json.dumps({name: one for name, one in body.items() if one != ""}).encode())

    def _json(self, method: str, path: str, body: bytes | None) -> Data:
        answer = self._asked(method, path, body)
        content = answer.read(_MOST + 1)
        if len(content) > _MOST:
            raise Fault(f"an answer has more than {_MOST} bytes", where=f"{self.where}{path.partition('?')[0]}")
        try:
            found = json.loads(content or b"{}")
        except ValueError as error:
            self.close()
            raise Unavailable("the answer is no JSON", where=self.where, fix="is this MLflow's address?") from error
        return found if isinstance(found, dict) else {}

    @contextmanager
    def file(self, path: str, /, **params: Any) -> Iterator[Path]:
        """Return a local file with what is at an address, for as long as the block lasts."""
        query = urlencode(params)
        with tempfile.NamedTemporaryFile(prefix="trimtab-") as copy:
            self._download(f"{path}?{query}" if query else path, copy)
            yield Path(copy.name)

    def _download(self, path: str, copy: Any) -> None:
        """Write all that is at an address into a file; what ends too soon is asked for again."""
        for attempt in range(_TRIES):
            answer = self._asked("GET", path, None)
            copy.seek(0)
            copy.truncate()
            reason = "it ended too soon"
            try:
                while piece := answer.read(_PIECE):
                    copy.write(piece)
            except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
                reason = str(error)
            else:
                # A read of so many bytes says nothing of an end that comes before the length that was announced.
                if not answer.length:
                    copy.flush()
                    return
            self.close()
            time.sleep(_PAUSE_S * 2**attempt)
        raise Unavailable(f"a file came over in part only: {reason}", where=f"{self.where}{path.partition('?')[0]}")

    def _asked(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        """Return an answer of status 200, asked for again while the server is busy.

        Raises:
            NotFound: there is nothing at the address.
            Refused: the server wants other credentials.
            Unavailable: it does not answer.
            Fault: it answers with another error.
        """
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                answer = self._sent(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if last:
                    raise Unavailable(f"the server does not answer: {error}", where=self.where) from error
            else:
                if answer.status == 200:
                    return answer
                text = answer.read(2000).decode(errors="replace")
                self.close()
                if answer.status not in _AGAIN or last:
                    raise self._refused(answer.status, path.partition("?")[0], text)
            time.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError

    def _sent(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        if self._connection is None:
            if self._secure:
                context = ssl.create_default_context()
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=_TIMEOUT_S, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        headers = {**self._headers, **({"content-type": "application/json"} if body is not None else {})}
        self._connection.request(method, self._base + path, body, headers)
        return self._connection.getresponse()

    def _refused(self, status: int, path: str, text: str) -> Exception:
        where, words = f"{self.where}{path}", f"the server answers {status}: {text[:300]}"
        if status in (401, 403):
            return Refused(
                words, where=where, fix="set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD"
            )
        if status == 404:
            return NotFound(words, where=where)
        return Unavailable(words, where=where) if status in _AGAIN else Fault(words, where=where)


def _authorization(user: str | None, password: str | None) -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    user = unquote(user or "") or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = unquote(password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user or password:
        return {"authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
    return {"authorization": f"Bearer {token}"} if token else {}


def quoted(path: str) -> str:
    """Return a path as part of an address."""
    return quote(path, safe="/")


def pages(ask: Any, items: str, **body: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the items of all pages of a search.

    Args:
        ask: asks with the body, to which the token of a page is added.
        items: the name of the list in the answers.
        body: the search.
    """
    token = ""
    while True:
        answer = ask({**body, "page_token": token})
        yield from answer.get(items) or []
        token = answer.get("next_page_token") or ""
        if not token:
            return
