"""Many processes open one new ledger at once: all come up, with the right schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tests.bar.acts import examine, perform
from tests.bar.procs import Child, Say, context
from tests.servers import Postgres, binaries
from trimtab.store.ledger import Ledger
from trimtab.store.migrations import MIGRATIONS

TWINS = int(os.environ.get("TRIMTAB_TWINS", "10"))


def twin(say: Say, location: str, go: Event, name: str) -> None:
    """Open the ledger when told to, and write."""
    say("here")
    go.wait()
    with Ledger.open(location) as ledger:
        perform(ledger, name, keyed=True)
    say("up")


class Roomy(Postgres):
    """A server with room for all of them."""

    def start(self) -> None:
        """Start it."""
        conf = self.data / "postgresql.conf"
        if "max_connections = 300" not in conf.read_text():
            conf.write_text(conf.read_text() + "\nmax_connections = 300\n")
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return where a new ledger may be made."""
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.db")
        return
    bins = binaries()
    if bins is None:
        pytest.skip("PostgreSQL is not installed")
    if TWINS <= 25:
        server: Postgres = request.getfixturevalue("postgres")
        yield server.new_ledger()
        return
    server = Roomy(bins)
    yield server.new_ledger()
    server.close()


def test_all_come_up(location: str) -> None:
    """Each process that opens the new ledger finds it, at the newest schema, and writes to it."""
    go = context().Event()
    twins = [Child(twin, location, go, f"publish/t{number}") for number in range(TWINS)]
    for one in twins:
        one.hear()
    go.set()
    assert [one.end() for one in twins] == [["here", "up"]] * TWINS
    with Ledger.open(location) as ledger:
        assert sorted(examine(ledger)) == sorted(f"publish/t{number}" for number in range(TWINS))
        sql = "SELECT level FROM schema_level" if "://" in location else "PRAGMA user_version"
        assert ledger.query(sql) == [(len(MIGRATIONS),)]
    print(f"twins: {TWINS} of {TWINS} came up")
