"""The routing table as files: whoever commits traffic publishes, the router loads the highest epoch.

``routes/<epoch>.json`` is written beside its place, synced and renamed, so that a reader sees whole tables only. A
table holds everything that the router needs, so that it needs no ledger.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
from msgspec import Struct, field

from trimtab.core.clock import parse_duration, wall_seconds
from trimtab.core.nouns import Deployment, Endpoint
from trimtab.store import facts, live
from trimtab.store.blobs import sync_folder
from trimtab.store.layout import Home
from trimtab.store.ledger import Reader
from trimtab.store.store import Store

KEPT = 5
RACY_NS = 50_000_000
"""A folder's time is too coarse to tell two changes within this apart."""


class Target(Struct, frozen=True, kw_only=True):
    """A deployment that requests can go to.

    Attributes:
        socket: the unix socket that its worker listens on.
        share: percent of the traffic.
        state: as in the ledger; a failed one is answered for with its ``reason``.
    """

    id: str
    number: int
    version: str
    version_id: str
    socket: str
    share: float
    state: str = "ready"
    reason: str = ""


class Route(Struct, frozen=True, kw_only=True):
    """How requests to one endpoint find a deployment.

    Attributes:
        salt: of the split.
        sticky: the request header that names the session, or an empty string.
        timeout_s: real seconds after which a request is answered with 504.
        candidate: id of the deployment that a rollout is judging, or None.
        deployments: oldest first, the candidate last.
    """

    id: str
    salt: str
    sticky: str
    timeout_s: float
    candidate: str | None
    deployments: list[Target]


class Table(Struct, frozen=True, kw_only=True):
    """All routes of one environment; a later epoch replaces an earlier one as a whole."""

    epoch: int
    endpoints: dict[str, Route] = field(default_factory=dict)


def table_of(reader: Reader, home: Home) -> Table:
    """Return the table that the ledger's facts make; its epoch is 0."""
    routes = {endpoint.name: _route(reader, home, endpoint) for endpoint in live.list_endpoints(reader)}
    return Table(epoch=0, endpoints=routes)


def _route(reader: Reader, home: Home, endpoint: Endpoint) -> Route:
    active = live.active_rollout(reader, endpoint.id)
    judged = active is not None and active.state in ("starting", "stepping", "paused") and bool(active.stable_id)
    candidate = active.candidate_id if active is not None and judged else None
    known = [one for one in live.list_deployments(reader, endpoint.id) if one.desired == "up"]
    known.sort(key=lambda one: (one.id == candidate, one.number))
    return Route(
        id=endpoint.id,
        salt=str(endpoint.spec.get("salt") or endpoint.id),
        sticky=str(endpoint.spec.get("sticky") or ""),
        timeout_s=parse_duration(endpoint.spec.get("timeout") or "30s").total_seconds(),
        candidate=candidate,
        deployments=[_target(reader, home, endpoint, one) for one in known],
    )


def _target(reader: Reader, home: Home, endpoint: Endpoint, deployment: Deployment) -> Target:
    return Target(
        id=deployment.id,
        number=deployment.number,
        version=facts.get_version(reader, deployment.version_id).ref,
        version_id=deployment.version_id,
        socket=str(socket_of(home, deployment.id)),
        share=endpoint.traffic.get(deployment.id, 0.0),
        state=deployment.state,
        reason=deployment.reason,
    )


def socket_of(home: Home, deployment_id: str) -> Path:
    """Return the unix socket of a deployment's worker; its path is short."""
    return home.sockets / f"{deployment_id[-16:]}.sock"


def publish(store: Store) -> int:
    """Write the table of what is committed now, if it differs from the newest one, and return its epoch.

    Processes that publish at once take turns; the last one writes the newest facts.
    """
    folder = store.home.routes
    with (folder / "publish.lock").open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        newest = load(folder)
        made = table_of(store.ledger, store.home)
        if newest is not None and newest.endpoints == made.endpoints:
            return newest.epoch
        epoch = max(epochs(folder), default=0) + 1
        _write(folder, msgspec.structs.replace(made, epoch=epoch))
        for old in epochs(folder)[:-KEPT]:
            _path(folder, old).unlink(missing_ok=True)
        return epoch


def _write(folder: Path, table: Table) -> None:
    temporary = folder / f"next.{os.getpid()}"
    with temporary.open("wb") as out:
        out.write(msgspec.json.encode(table))
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(_path(folder, table.epoch))
    sync_folder(folder)


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch}.json"


def epochs(folder: Path) -> list[int]:
    """Return the epochs that are there, rising."""
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())


def load(folder: Path) -> Table | None:
    """Return the newest table that can be read, or None where there is none."""
    for epoch in reversed(epochs(folder)):
        try:
            return msgspec.json.decode(_path(folder, epoch).read_bytes(), type=Table)
        except (OSError, msgspec.DecodeError):
            # A newer publisher removed it meanwhile, or the disk lost its end: the one before it still holds.
            continue
    return None


class Watcher:
    """Tells cheaply whether the newest table may have changed; asked before each request.

    Looking at the folder's time costs about a microsecond, so a change counts for the next request after it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._seen = -1

    def changed(self) -> bool:
        """Return whether the folder may have changed since the last call that returned True."""
        try:
            stamp = os.stat(self._folder).st_mtime_ns  # noqa: PTH116 - a Path's stat costs three times as much
        except OSError:
            return False
        if stamp == self._seen:
            return False
        # Within the clock's grain another change could have left the same time: then look again next time.
        self._seen = stamp if wall_seconds() * 1e9 - stamp > RACY_NS else -1
        return True
