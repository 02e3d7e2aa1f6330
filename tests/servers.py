"""A PostgreSQL server of the tests' own, on a unix socket in a folder that goes with it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest installed, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


class Postgres:
    """A running server.

    Args:
        bins: where its programs are.
        durable: as in production; otherwise it never waits for the disk, which most tests need not.
    """

    def __init__(self, bins: Path, *, durable: bool = False) -> None:
        self._bins = bins
        self._durable = durable
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else ""
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", "trimtab", "-E", "UTF8", "--locale=C.UTF-8")
        self.start()

    @property
    def data(self) -> Path:
        """The server's data."""
        return self.folder / "data"

    def start(self) -> None:
        """Start it, reachable by its socket only."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c max_connections=60"
        if not self._durable:
            options += " -c fsync=off -c full_page_writes=off"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; ``immediate`` is a crash."""
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    @property
    def url(self) -> str:
        """The server's own database."""
        return f"postgresql://trimtab@{quote(str(self.folder), safe='')}/postgres"

    def new_ledger(self) -> str:
        """Return the URL of a ledger that is not there yet."""
        return f"{self.url}?schema=t{uuid4().hex[:12]}"

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        argv = [str(self._bins / program), *words]
        user = pwd.getpwnam(self._user).pw_uid if self._user else None
        done = subprocess.run(argv, user=user, cwd=self.folder, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")
