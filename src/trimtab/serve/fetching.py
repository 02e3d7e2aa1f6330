"""What a deployment's worker needs on this machine: its model's files, golden rows and the code that made it.

Where blobs lie in an object store they are fetched in the background, so that a large model, or a store that does
not answer, keeps nothing else waiting.
"""

from __future__ import annotations

import threading

from trimtab.core.clock import monotonic
from trimtab.core.errors import Unavailable
from trimtab.core.nouns import Deployment, Run
from trimtab.pipeline.manifest import load_manifest, snapshot_folder
from trimtab.serve.routes import socket_of
from trimtab.serve.worker import Settings
from trimtab.store import facts, live
from trimtab.store.store import Store

PAUSE_S = 5.0


class _Fetch:
    """One deployment's settings, made by a thread of its own that no one has to wait for."""

    def __init__(self, store: Store, deployment: Deployment) -> None:
        self.settings: Settings | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(store, deployment), daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """It has ended, well or not."""
        return not self._thread.is_alive()

    def _run(self, store: Store, deployment: Deployment) -> None:
        try:
            self.settings = settings_of(store, deployment)
        except BaseException as error:  # told to whoever asks
            self.error = error


class Fetching:
    """Fetches for many deployments at once; for one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._at_work: dict[str, _Fetch] = {}
        self._pauses: dict[str, float] = {}

    @property
    def busy(self) -> bool:
        """Something is under way or will be tried again: ask again soon."""
        return bool(self._at_work or self._pauses)

    def settings(self, deployment: Deployment) -> Settings | None:
        """Return what a deployment's worker needs to know, or None while it is under way.

        Raises:
            Unavailable: the object store does not answer; it is tried again when this is asked for again, after a
                pause.
            NotFound, Corrupt: see ``settings_of``.
        """
        if not self._store.roots.remote:
            return settings_of(self._store, deployment)
        if monotonic() < self._pauses.get(deployment.id, 0.0):
            return None
        fetch = self._at_work.get(deployment.id)
        if fetch is None:
            fetch = self._at_work[deployment.id] = _Fetch(self._store, deployment)
        if not fetch.done:
            return None
        self.forget(deployment)
        if isinstance(fetch.error, Unavailable):
            self._pauses[deployment.id] = monotonic() + PAUSE_S
        if fetch.error is not None:
            raise fetch.error
        return fetch.settings

    def forget(self, deployment: Deployment) -> None:
        """Give up what is under way for a deployment."""
        self._at_work.pop(deployment.id, None)
        self._pauses.pop(deployment.id, None)


def settings_of(store: Store, deployment: Deployment) -> Settings:
    """Return what a deployment's worker needs to know; files that lie elsewhere are fetched and compared.

    Raises:
        NotFound: the version or one of its files is not in this store.
        Corrupt: a file has other content.
        Unavailable: the object store does not answer.
    """
    ledger, blobs = store.ledger, store.blobs
    version = facts.get_version(ledger, deployment.version_id)
    endpoint = live.get_endpoint(ledger, deployment.endpoint_id)
    golden = str(version.meta.get("golden") or "")
    files = {name: str(blobs.path(digest)) for name, digest in version.location["files"].items()}
    return Settings(
        deployment_id=deployment.id,
        endpoint=endpoint.name,
        number=deployment.number,
        version=version.ref,
        socket=str(socket_of(store.home, deployment.id)),
        files=files,
        meta=version.meta,
        granted=all(facts.is_granted(ledger, digest) for digest in version.location["files"].values()),
        golden=str(blobs.path(golden)) if golden else "",
        snapshot=_snapshot(store, facts.get_run(ledger, version.run_id)),
        threads=int(deployment.runtime.get("threads") or endpoint.spec.get("threads") or 1),
    )


def _snapshot(store: Store, run: Run | None) -> str:
    """Return the folder with the code that made a version; where another machine ran it, it is made here."""
    code = run.code if run else {}
    if not code.get("snapshot"):
        return ""
    folder = store.home.snapshots / str(code["snapshot"]).removeprefix("sha256:")
    if not folder.is_dir() and code.get("manifest"):
        return str(snapshot_folder(store, load_manifest(store, str(code["manifest"]))))
    return str(folder)
