"""Where a store's blobs and tables lie."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.backends.object_servers import ObjectServer
from trimtab.core.clock import wall_seconds
from trimtab.core.errors import Conflict, Corrupt, NotFound, Unavailable, WrongUse
from trimtab.core.ids import new_id
from trimtab.store.roots import checked_options, resolve
from trimtab.store.store import Store, open_store
from trimtab.testing.tables import table

KEY = "TEST_ROOTS_KEY"
QUICK = {"max_retries": "0", "retry_timeout": "2s"}


@pytest.fixture
def options(s3: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return options that name the variable with the key."""
    monkeypatch.setenv(KEY, s3.secret)
    return {**s3.options, **QUICK, "aws_secret_access_key": f"${{{KEY}}}"}


def _put(store: Store, ident: str, run_id: str, mode: str = "overwrite") -> object:
    staged = store.tables.stage(ident, table(run=[run_id]))
    return store.tables.commit([staged], table_id=ident, mode=mode, run_id=run_id)  # type: ignore[arg-type]


def test_a_folder_elsewhere_is_remembered(tmp_path: Path) -> None:
    """Blobs and tables lie where they were told to, for whoever opens the folder later, and nowhere else."""
    ident = new_id("ast")
    with open_store(tmp_path / "store", artifacts=str(tmp_path / "kept")) as store:
        digest = store.blobs.put(b"content")
        _put(store, ident, "run-1")
    with open_store(tmp_path / "store") as store:
        assert store.blobs.path(digest).is_relative_to(tmp_path / "kept" / "blobs")
        assert store.tables.uri(ident) == str(tmp_path / "kept" / "tables" / ident)
        assert not any(store.home.blobs.iterdir()) and not any(store.home.tables.iterdir())
    with open_store(tmp_path / "store", artifacts=tmp_path / "kept" / ".." / "kept") as store:
        assert store.blobs.get(digest) == b"content"
    for other in (tmp_path / "other", "s3://bucket/prefix", tmp_path / "store"):
        with pytest.raises(Conflict, match="lie in"):
            open_store(tmp_path / "store", artifacts=other)
    assert not (tmp_path / "other").exists()


def test_what_a_store_holds_is_never_moved(tmp_path: Path) -> None:
    """A store that has blobs of its own keeps them; an empty one may be given another place."""
    with open_store(tmp_path, artifacts=tmp_path) as store:
        assert not store.home.artifacts.exists()
    open_store(tmp_path, artifacts=tmp_path / "first").close()
    shutil.rmtree(tmp_path)
    with open_store(tmp_path) as store:
        store.blobs.put(b"content")
    with pytest.raises(Conflict, match="use another --dir"):
        open_store(tmp_path, artifacts=tmp_path / "elsewhere")


def test_a_lost_ledger_beside_a_place_that_is_remembered_is_told(tmp_path: Path) -> None:
    """A folder that remembers where its blobs lie is no new store."""
    open_store(tmp_path / "store", artifacts=tmp_path / "kept").close()
    for path in (tmp_path / "store").glob("ledger.db*"):
        path.unlink()
    with pytest.raises(Corrupt, match=r"artifacts\.json is not"):
        open_store(tmp_path / "store")
    (tmp_path / "store" / "artifacts.json").write_text("{")
    with pytest.raises(Corrupt, match="cannot be read"):
        open_store(tmp_path / "store")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A place where nothing can be written is not remembered."""
    with pytest.raises(WrongUse, match="cannot be made"):
        open_store(tmp_path, artifacts="/proc/none")
    with open_store(tmp_path) as store:
        assert not store.home.artifacts.exists()


def test_an_object_store_is_remembered_without_its_key(
    tmp_path: Path, s3: ObjectServer, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder keeps the URL, the region and the name of the variable; the key is asked for each time."""
    root, ident = s3.new_root(), new_id("ast")
    with open_store(tmp_path, artifacts=f"{root}/", options=options) as store:
        digest = store.blobs.put(b"content")
        _put(store, ident, "run-1")
        assert s3.secret not in repr(store.roots) and store.roots.variables == {KEY}
    told = (tmp_path / "artifacts.json").read_text()
    assert s3.secret not in told and json.loads(told)["at"] == root
    assert (tmp_path / "artifacts.json").stat().st_mode & 0o077 == 0
    with open_store(tmp_path) as store:
        assert store.blobs.path(digest).read_bytes() == b"content" and store.tables.latest(ident) is not None
        assert not any(store.home.blobs.iterdir()) and not any(store.home.tables.iterdir())
        assert store.trim_cache(wall_seconds() - 3600) == 0 and store.trim_cache(wall_seconds() + 3600) == 1
    monkeypatch.delenv(KEY)
    with open_store(tmp_path) as store, pytest.raises(WrongUse, match=f"{KEY} is not set"):
        store.blobs.get(digest)


def test_options_change_and_the_place_does_not(tmp_path: Path, s3: ObjectServer, options: dict[str, str]) -> None:
    """Who gives the place with other options changes what is remembered; without options nothing changes."""
    root = s3.new_root()
    open_store(tmp_path, artifacts=root, options=options).close()
    with open_store(tmp_path, artifacts=root, options={**options, "timeout": "9s"}) as store:
        assert store.roots.options["timeout"] == "9s"
    with open_store(tmp_path, artifacts=root) as store:
        assert store.roots.options["timeout"] == "9s"
    with pytest.raises(Conflict, match="lie in"):
        open_store(tmp_path, artifacts=s3.new_root(), options=options)
    with pytest.raises(WrongUse, match="none is named"):
        open_store(tmp_path, options=options)


def test_a_place_that_does_not_answer_is_not_remembered(
    tmp_path: Path, s3: ObjectServer, options: dict[str, str]
) -> None:
    """A wrong bucket or scheme is told before anything is written, and can be corrected."""
    with pytest.raises(Unavailable, match="not there"):
        open_store(tmp_path, artifacts="s3://nowhere-at-all/p", options=options)
    with pytest.raises(NotFound, match="did you mean"):
        open_store(tmp_path, artifacts="s33://bucket/p")
    with open_store(tmp_path, artifacts=s3.new_root(), options=options) as store:
        assert store.roots.remote


def test_two_stores_write_one_table_at_once(tmp_path: Path, s3: ObjectServer, options: dict[str, str]) -> None:
    """Two folders with one place commit to one table without losing or doubling a commit."""
    root, ident = s3.new_root(), new_id("ast")
    stores = [open_store(tmp_path / str(number), artifacts=root, options=options) for number in range(2)]
    _put(stores[0], ident, "first")

    def write(store: Store, who: str) -> None:
        for number in range(3):
            while True:
                try:
                    _put(store, ident, f"{who}.{number}", "append")
                    break
                except Conflict:
                    continue

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, stores, "ab"))
    for store in stores:
        number = store.tables.latest(ident)
        assert number is not None
        rows = store.tables.arrow(store.tables.location(ident, number))["run"].to_pylist()
        assert sorted(rows) == ["a.0", "a.1", "a.2", "b.0", "b.1", "b.2", "first"]
        store.close()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("aws_secret_access_key", "plain"),
        ("AWS_SESSION_TOKEN", "${A}b"),
        ("azure_storage_account_key", "plain"),
        ("azure_storage_sas_key", "sv=1&sig=x"),
        ("azure_client_secret", "plain"),
        ("aws_sse_customer_key_base64", "plain"),
        ("google_service_account_key", "{}"),
        ("proxy_url", "http://user:word@proxy"),
        ("azure_storage_endpoint", "https://a.b/c?sig=x"),
    ],
)
def test_a_secret_in_an_option_is_refused_and_not_told(key: str, value: str) -> None:
    """What is written down holds the names of variables, never secrets."""
    with pytest.raises(WrongUse, match="holds a secret") as caught:
        checked_options({key: value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://key:hidden@bucket/p", "az://container/p?sig=hidden", "s3://bucket/p#hidden"])
def test_a_secret_in_a_url_is_refused_and_not_told(tmp_path: Path, url: str) -> None:
    """A URL is printed and remembered, so it holds no credentials; also where another place is known."""
    for _ in range(2):
        with pytest.raises(WrongUse, match="and nothing else") as caught:
            open_store(tmp_path, artifacts=url)
        assert "hidden" not in str(caught.value)
        open_store(tmp_path, artifacts=tmp_path / "kept").close()


def test_options_say_what_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions, ids, endpoints and names of files are written as they are; variables are read when they are needed."""
    plain = {
        "aws_access_key_id": "AKIA", "aws_region": "eu-central-1", "azure_federated_token_file": "/run/token",
        "aws_endpoint_url": "http://127.0.0.1:9000", "aws_skip_signature": "true", "aws_sse_kms_key_id": "id",
    }  # fmt: skip
    assert checked_options(plain) == plain
    monkeypatch.setenv("A_ZONE", "eu")
    assert resolve({"aws_region": "${A_ZONE}-central-1"}) == {"aws_region": "eu-central-1"}
    monkeypatch.setenv("A_ZONE", "")
    with pytest.raises(WrongUse, match="A_ZONE is not set"):
        resolve({"aws_region": "${A_ZONE}"})
    assert "A_ZONE" in os.environ
