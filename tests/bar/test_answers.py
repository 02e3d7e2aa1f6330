"""A connection that breaks at the worst moment, the commit: the write is done once, and its caller hears nothing."""

from __future__ import annotations

import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.bar.acts import KINDS, examine, perform
from tests.servers import Postgres
from trimtab.store.ledger import Ledger

SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes on what a client and a server say, and hangs up at a commit when it is told to.

    Args:
        folder: where it listens.
        server: the folder where the server does.
    """

    def __init__(self, folder: Path, server: Path) -> None:
        self.trouble = ""
        self.struck = 0
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen(50)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._server / SOCKET))
        with client, server, suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    said = ready.recv(1 << 16)
                    if not said or (ready is client and b"COMMIT" in said and self._strike(server, said)):
                        return
                    (server if ready is client else client).sendall(said)

    def _strike(self, server: socket.socket, said: bytes) -> bool:
        trouble, self.trouble = self.trouble, ""
        if trouble:
            self.struck += 1
        if trouble in ("as it is sent", "before its answer"):
            server.sendall(said)
        if trouble == "before its answer":
            server.recv(1 << 16)
        return bool(trouble)


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    """Return a proxy before the server."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        made = Proxy(Path(folder), postgres.folder)
        yield made
        made.close()


@pytest.mark.parametrize("trouble", ["before it is sent", "as it is sent", "before its answer"])
def test_a_commit_whose_answer_is_lost_is_looked_up(postgres: Postgres, proxy: Proxy, trouble: str) -> None:
    """Wherever the connection breaks around the commit, each write is carried out once, with a key or without."""
    folder = Path(str(proxy._listener.getsockname())).parent
    direct = postgres.new_ledger()
    through = direct.replace(quote(str(postgres.folder), safe=""), quote(str(folder), safe=""))
    names = [f"{kind}/{number}" for number in range(4) for kind in KINDS]
    with Ledger.open(through) as ledger:
        for number, name in enumerate(names):
            proxy.trouble = trouble
            assert perform(ledger, name, keyed=bool(number % 2)) == name
    with Ledger.open(direct) as ledger:
        assert examine(ledger) == names
    assert proxy.struck == len(names)
    print(f"commits cut off {trouble}: {proxy.struck}, each carried out once")
