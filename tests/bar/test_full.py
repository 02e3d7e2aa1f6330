"""A disk that is full: writes are refused at once and in plain words, nothing is lost, and space is all it takes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.bar.acts import KINDS, examine, perform
from tests.servers import Postgres, binaries
from trimtab.core.errors import Fault
from trimtab.store.ledger import Ledger

ROUNDS = 3


@pytest.fixture
def small() -> Iterator[Path]:
    """Return a folder on a file system of 8 MB."""
    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    folder = Path(tempfile.mkdtemp(prefix="small-", dir="/tmp"))
    folder.chmod(0o755)
    argv = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, small: Path) -> Iterator[str]:
    """Return where a ledger may be made on the small file system: a file, or the tables of a server."""
    if request.param == "sqlite":
        yield str(small / "ledger.db")
        return
    bins = binaries()
    if bins is None:
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(bins)
    try:
        (small / "tables").mkdir()
        shutil.chown(small / "tables", "postgres")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{small / 'tables'}'".encode())
        yield f"{server.new_ledger()}&options=-c%20default_tablespace%3Dsmall"
    finally:
        server.close()


def _fill(path: Path, spare: int) -> None:
    """Take all the space that there is, but for some bytes."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            try:
                file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                break
        file.truncate(max(0, file.tell() - spare))


def _try_all(ledger: Ledger, names: list[str]) -> dict[str, BaseException | None]:
    """Carry out acts from four threads; return what came of each. None takes a second."""
    outcomes: dict[str, BaseException | None] = {}
    slow: list[float] = []

    def run(mine: list[str]) -> None:
        for name in mine:
            began = time.monotonic()
            try:
                perform(ledger, name, keyed=True)
                outcomes[name] = None
            except Exception as error:
                outcomes[name] = error
            slow.append(time.monotonic() - began)

    threads = [threading.Thread(target=run, args=(names[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(slow) < 1
    return outcomes


def _read_elsewhere(location: str, ledger: Ledger) -> list[str]:
    """Read from a thread that has not read before, and from another opening."""
    found: list[list[str]] = []
    thread = threading.Thread(target=lambda: found.append(examine(ledger)))
    thread.start()
    thread.join()
    with Ledger.open(location) as other:
        assert examine(other) == found[0]
    return found[0]


@pytest.mark.parametrize("spare", [0, 100_000])
def test_a_full_disk_refuses_and_recovers(location: str, small: Path, spare: int) -> None:
    """On a full disk each write is refused within a second or stands; with space again the same ledger goes on."""
    refused = 0
    acknowledged: set[str] = set()
    with Ledger.open(location) as ledger:
        for number in range(ROUNDS):
            names = [f"{kind}/{number}.{count}" for count in range(12) for kind in KINDS]
            acknowledged |= {perform(ledger, name, keyed=True) for name in names[:8]}
            _fill(small / "ballast", spare)
            outcomes = _try_all(ledger, names[8:])
            errors = [error for error in outcomes.values() if error is not None]
            refused += len(errors)
            for error in errors:
                assert isinstance(error, Fault), repr(error)
                assert "full" in str(error) or "No space left" in str(error)
            acknowledged |= {name for name, error in outcomes.items() if error is None}
            assert acknowledged <= set(examine(ledger))
            assert acknowledged <= set(_read_elsewhere(location, ledger))
            (small / "ballast").unlink()
            for name in names[8:]:
                perform(ledger, name, keyed=True)
            acknowledged |= set(names)
            assert set(examine(ledger)) == acknowledged
        if "://" not in location:
            assert ledger.query("PRAGMA integrity_check") == [("ok",)]
        print(f"full disk: {refused} writes refused ({errors[-1] if errors else ''}), {len(acknowledged)} stand")
    assert refused > ROUNDS
