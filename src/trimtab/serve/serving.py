"""Runs an RSGI or ASGI application on granian in this process, on a port or a unix socket, until told to stop."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from trimtab.core.errors import Unavailable
from trimtab.core.optional import need

BACKLOG = 1024
_MOST = 20_000
# How long a connection may be silent before its next request is whole: strangers hold few things up for long.
_HEAD_MS, _TRUSTED_MS = 10_000, 30_000


async def run_app(app: Any, *, host: str = "", port: int = 0, uds: Path | None = None) -> None:
    """Serve ``app`` until SIGTERM or SIGINT; requests that are at work are answered first.

    Args:
        app: an object with ``__rsgi__``, else an ASGI application.
        host: the address to listen on.
        port: the port to listen on.
        uds: a unix socket to listen on instead; what a dead process left there is removed.

    Raises:
        Unavailable: somebody else listens there.
    """
    if uds is None:
        check_port(host, port)
    else:
        uds.unlink(missing_ok=True)
    constants: Any = need("granian.constants")
    place = {"uds": uds} if uds is not None else {"address": host, "port": port}
    server = need("granian.server.embed").Server(
        app,
        **place,
        interface=constants.Interfaces.RSGI if hasattr(app, "__rsgi__") else constants.Interfaces.ASGI,
        http=constants.HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=_connections(),
        http1_settings=need("granian.http").HTTP1Settings(header_read_timeout=_HEAD_MS if uds is None else _TRUSTED_MS),
        runtime_blocking_threads=1,
        log_enabled=False,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.serve()


def _connections() -> int:
    """Return how many connections may be open: half of what the process may have, for each may need two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(BACKLOG, min(hard, _MOST) // 2)


def leave(code: int) -> NoReturn:
    """End this process now, with what it printed on its way out.

    Taking the interpreter down in order is not safe while granian's threads may still call into it: one that does
    aborts the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def check_port(host: str, port: int) -> None:
    """Check that nobody listens on a port; granian itself would share it with a stranger (SO_REUSEPORT).

    Raises:
        Unavailable: somebody listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {host}:{port}: {error.strerror}", where=f"{host}:{port}", fix="choose another --port"
            ) from error
