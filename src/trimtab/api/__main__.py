"""``python -m trimtab.api SETTINGS.json``: the control process, on a unix socket."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.api.app import Control, make_app
from trimtab.api.mlflow.pages import find_pages
from trimtab.core.errors import Unavailable
from trimtab.core.optional import need
from trimtab.serve.routes import publish
from trimtab.serve.wire import fetch
from trimtab.store.store import open_store


class Settings(Struct, frozen=True, kw_only=True):
    """What `trimtab up` tells the control process.

    Attributes:
        root: the store's folder.
        project: the project's folder, or an empty string.
        control: the unix socket to listen on.
        host: where the router listens, as the port; 0 where there is none.
        token: what the router asks for, or an empty string.
        pages: MLflow's own web pages are wanted too.
    """

    root: str
    project: str
    environment: str
    control: str
    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""
    pages: bool = False


def ask_router(settings: Settings) -> Mapping[str, Any]:
    """Return the router's counts since its start.

    Raises:
        Unavailable: it does not answer.
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    headers = {"authorization": f"Bearer {settings.token}"} if settings.token else {}
    answer = fetch(f"http://{host}:{settings.port}/router", headers=headers, timeout=1.0)
    if answer.status != 200:
        raise Unavailable(f"the router answers {answer.status}")
    counts: Mapping[str, Any] = msgspec.json.decode(answer.body)
    return counts


async def serve(settings: Settings) -> None:
    """Publish the routes and serve until told to stop."""
    constants: Any = need("granian.constants")
    control = Control(
        open_store(Path(settings.root), environment=settings.environment, actor="control"),
        settings.project,
        partial(ask_router, settings) if settings.port else None,
        find_pages() if settings.pages else None,
    )
    publish(control.store)
    socket = Path(settings.control)
    socket.unlink(missing_ok=True)
    server = need("granian.server.embed").Server(
        make_app(control), uds=socket, interface=constants.Interfaces.ASGI, log_enabled=False, websockets=False
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    try:
        await server.serve()
    finally:
        control.close()


def main(arguments: list[str]) -> None:
    """Run the control process with the settings in a file."""
    asyncio.run(serve(msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Settings)))


if __name__ == "__main__":
    main(sys.argv[1:])
