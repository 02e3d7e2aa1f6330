"""Where an application may listen."""

from __future__ import annotations

import socket

import pytest

from tests.serve.stand import free_port
from trimtab.core.errors import Unavailable
from trimtab.serve.serving import check_port


def test_a_taken_port_is_refused() -> None:
    """A stranger's port is never shared, whether or not the stranger would."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        with pytest.raises(Unavailable, match="cannot listen"):
            check_port("127.0.0.1", other.getsockname()[1])


def test_a_port_is_free_again_at_once() -> None:
    """Connections that linger after a restart do not keep the port."""
    port = free_port()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(1)
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            accepted.close()
            client.recv(1)
    check_port("127.0.0.1", port)
    with pytest.raises(Unavailable):
        check_port("192.0.2.1", port)
