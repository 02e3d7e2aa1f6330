"""Where things lie in a store's folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from stat import S_ISDIR

from trimtab.core.errors import Unavailable, WrongUse

_FOLDERS = ("blobs", "tables", "intake", "routes", "run", "logs", "snapshots", "cache")
_SHORT = 60


class Home:
    """The folder of a store; opening makes what is missing, for the owner's eyes only.

    Attributes:
        root: the folder.
        ledger_url: says where the ledger lies, if not in ``ledger``.
        artifacts: says where blobs and tables lie, if not in ``blobs`` and ``tables``.
        ledger, blobs, tables, intake, routes, run, logs, snapshots, cache, token: paths below it.
        sockets: a short folder elsewhere, because a unix socket's path must be short.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in _FOLDERS:
                (self.root / name).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise WrongUse(
                f"the store cannot be made: {error.strerror}",
                where=str(error.filename or self.root),
                fix="choose another folder (`store:` in trimtab.yaml, or --dir), or mend its permissions",
            ) from error
        self.ledger = self.root / "ledger.db"
        self.ledger_url = self.root / "ledger.url"
        self.artifacts = self.root / "artifacts.json"
        self.blobs = self.root / "blobs"
        self.tables = self.root / "tables"
        self.intake = self.root / "intake"
        self.routes = self.root / "routes"
        self.run = self.root / "run"
        self.logs = self.root / "logs"
        self.snapshots = self.root / "snapshots"
        self.cache = self.root / "cache"
        self.token = self.root / "token"

    @property
    def sockets(self) -> Path:
        """The short folder for unix sockets, made on first use.

        Raises:
            Unavailable: the folder is there and belongs to somebody else.
        """
        mark = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        name = f"trimtab-{os.getuid()}-{mark}"
        path = Path(tempfile.gettempdir()) / name
        if len(os.fsencode(path)) > _SHORT:
            path = Path("/tmp") / name  # noqa: S108 - checked below to be ours alone
        path.mkdir(exist_ok=True, mode=0o700)
        stat = path.lstat()
        if not S_ISDIR(stat.st_mode) or stat.st_uid != os.getuid() or stat.st_mode & 0o077:
            raise Unavailable(f"{path} belongs to somebody else or is open to others", fix="remove it")
        return path
