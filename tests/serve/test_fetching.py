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


@pytest.fixture
def store(tmp_path: Path, s3: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Return a store whose blobs lie in an object store."""
    monkeypatch.setenv("TEST_FETCH_KEY", s3.secret)
    options = {**s3.options, "aws_secret_access_key": "${TEST_FETCH_KEY}", "max_retries": "0", "retry_timeout": "1s"}
    with open_store(tmp_path / "store", artifacts=s3.new_root(), options=options) as opened:
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
    store: Store, s3: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and tried again after a pause; what is lost is told as lost."""
    deployment, under_way = _deployment(store), Fetching(store)
    monkeypatch.setattr(fetching, "PAUSE_S", 0.2)
    blobs = store.blobs
    nowhere = {**s3.options, "aws_endpoint_url": "http://127.0.0.1:1", "max_retries": "0", "retry_timeout": "1s"}
    store.blobs = open_blobs(f"{store.roots.at}/blobs", nowhere, cache=store.home.cache / "objects")
    with pytest.raises(Unavailable, match="does not answer"):
        _wait(under_way, deployment)
    assert under_way.busy and under_way.settings(deployment) is None
    store.blobs = blobs
    assert _wait(under_way, deployment).files
    blobs.delete(facts.get_version(store.ledger, deployment.version_id).location["files"]["model"])
    with pytest.raises(NotFound, match="not in this store"):
        _wait(under_way, deployment)
