"""What a deployment's worker needs, fetched from an object store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.object_servers import ObjectServer
from tests.serve.stand import make_version
from tests.store.builders import START
from trimtab.core.clock import monotonic
from trimtab.core.errors import NotFound, Unavailable
from trimtab.core.nouns import Deployment
from trimtab.serve import fetching
from trimtab.serve.fetching import Fetching
from trimtab.serve.worker import Settings
from trimtab.store import facts, live
from trimtab.store.blobs import open_blobs
from trimtab.store.store import Store, open_store

QUICK = {"max_retries": "0", "retry_timeout": "1s"}


@pytest.fixture(params=["s3", "azure"])
def objects(request: pytest.FixtureRequest) -> ObjectServer:
    """Return each of the servers."""
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(tmp_path: Path, objects: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Return a store whose blobs lie in an object store."""
    monkeypatch.setenv("TEST_FETCH_KEY", objects.secret)
    options = {key: "${TEST_FETCH_KEY}" if value == objects.secret else value for key, value in objects.options.items()}
    with open_store(tmp_path / "store", artifacts=objects.new_root(), options={**options, **QUICK}) as opened:
        yield opened


def _deployment(store: Store) -> Deployment:
    version = make_version(store)
    return store.ledger.write(
        lambda tx: live.add_deployment(
            tx, endpoint_id=live.put_endpoint(tx, name="api", spec={}, at=START).id, version_id=version.id, runtime={},
            at=START,
        ),
        what="deploy",
    )  # fmt: skip


def _wait(fetching: Fetching, deployment: Deployment) -> Settings:
    until = monotonic() + 20
    while monotonic() < until:
        found = fetching.settings(deployment)
        if found is not None:
            return found
        time.sleep(0.01)
    raise AssertionError("nothing came within 20 s")


def test_files_come_in_the_background(store: Store) -> None:
    """Who asks gets nothing at first, and then local files that were compared with their digests."""
    deployment, under_way = _deployment(store), Fetching(store)
    assert not under_way.busy and under_way.settings(deployment) is None
    settings = _wait(under_way, deployment)
    assert settings.deployment_id == deployment.id and not under_way.busy
    assert [path for path in settings.files.values() if not Path(path).is_relative_to(store.home.cache)] == []
    under_way.settings(deployment)
    under_way.forget(deployment)
    assert not under_way.busy


def test_a_store_that_does_not_answer_is_asked_again(
    store: Store, objects: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and tried again after a pause; what is lost is told as lost."""
    deployment, under_way = _deployment(store), Fetching(store)
    monkeypatch.setattr(fetching, "PAUSE_S", 0.2)
    blobs = store.blobs
    nowhere = {key: value.replace(f":{objects.port}", ":1") for key, value in objects.options.items()} | QUICK
    store.blobs = open_blobs(f"{store.roots.at}/blobs", nowhere, cache=store.home.cache / "objects")
    with pytest.raises(Unavailable, match="does not answer"):
        _wait(under_way, deployment)
    assert under_way.busy and under_way.settings(deployment) is None
    store.blobs = blobs
    assert _wait(under_way, deployment).files
    blobs.delete(facts.get_version(store.ledger, deployment.version_id).location["files"]["model"])
    with pytest.raises(NotFound, match="not in this store"):
        _wait(under_way, deployment)
