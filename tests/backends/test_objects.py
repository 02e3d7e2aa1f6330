"""Object stores: the conformance suites on moto's S3 and on Azurite, two writers, credentials, faults and secrets."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.backends.object_servers import Azurite, ObjectServer
from trimtab.backends.objects import ObjectBlobs, ObjectFiles, Place
from trimtab.core.clock import wall_seconds
from trimtab.core.digest import digest_bytes
from trimtab.core.errors import Conflict, Corrupt, Fault, NotFound, TrimtabError, Unavailable, WrongUse
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store.blobs import Blobs, LocalBlobs, LocalFiles, open_blobs, open_files, trim_cache
from trimtab.store.tables import DeltaTables, Tables, open_tables
from trimtab.testing.blobs import BlobsConformance
from trimtab.testing.tables import TablesConformance, TwoWriters, table

QUICK = {"max_retries": "0", "retry_timeout": "2s"}


@pytest.fixture(params=["s3", "azure"])
def server(request: pytest.FixtureRequest) -> ObjectServer:
    """Return each of the servers."""
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def blobs(server: ObjectServer, tmp_path: Path) -> Blobs:
    """Return new blobs on each server."""
    return open_blobs(server.new_root(), server.options, cache=tmp_path / "cache")


@pytest.fixture
def tables(server: ObjectServer, tmp_path: Path) -> DeltaTables:
    """Return new tables on each server."""
    return open_tables(server.new_root(), server.options, cache=tmp_path / "cache")


class TestS3Blobs(BlobsConformance):
    """Blobs in S3 keep the contract."""

    @pytest.fixture
    def blobs(self, s3: ObjectServer, tmp_path: Path) -> Blobs:
        """Return blobs below a new prefix."""
        return open_blobs(s3.new_root(), s3.options, cache=tmp_path / "cache")


class TestAzureBlobs(BlobsConformance):
    """Blobs in Azure Blob Storage keep the contract."""

    @pytest.fixture
    def blobs(self, azure: Azurite, tmp_path: Path) -> Blobs:
        """Return blobs below a new prefix."""
        return open_blobs(azure.new_root(), azure.options, cache=tmp_path / "cache")


class TestS3Tables(TablesConformance, TwoWriters):
    """Delta tables in S3 keep the contract, also of two writers at once."""

    @pytest.fixture
    def tables(self, s3: ObjectServer, tmp_path: Path) -> Tables:
        """Return tables below a new prefix."""
        return open_tables(s3.new_root(), s3.options, cache=tmp_path / "cache")

    @pytest.fixture
    def place(self, s3: ObjectServer, tmp_path: Path) -> tuple[str, dict[str, str], Path]:
        """Return where two processes open the same tables."""
        return s3.new_root(), s3.options, tmp_path


class TestAzureTables(TablesConformance, TwoWriters):
    """Delta tables in Azure Blob Storage keep the contract, also of two writers at once."""

    @pytest.fixture
    def tables(self, azure: Azurite, tmp_path: Path) -> Tables:
        """Return tables below a new prefix."""
        return open_tables(azure.new_root(), azure.options, cache=tmp_path / "cache")

    @pytest.fixture
    def place(self, azure: Azurite, tmp_path: Path) -> tuple[str, dict[str, str], Path]:
        """Return where two processes open the same tables."""
        return azure.new_root(), azure.options, tmp_path


def _put(tables: DeltaTables, ident: str, frame: Any, mode: Any = "overwrite", **options: Any) -> Data:
    run_id = options.pop("run_id", None) or new_id("run")
    return tables.commit([tables.stage(ident, frame)], table_id=ident, mode=mode, run_id=run_id, **options)


# Blobs


def test_equal_content_is_written_once(server: ObjectServer, tmp_path: Path) -> None:
    """The second writer of equal bytes writes nothing, however large they are."""
    place = Place(server.new_root(), server.options)
    assert [place.put("a/x", b"x" * 10), place.put("a/x", b"y" * 10)] == [True, False]
    assert place.get("a/x") == b"x" * 10
    blobs = ObjectBlobs(place.where, server.options, tmp_path)
    for content in (b"small", b"middle" * 100_000, b"large" * 1_800_000):
        digest = blobs.put(content)
        key = f"{digest[7:9]}/{digest[7:]}"
        before = place.head(key)
        (tmp_path / "file").write_bytes(content)
        assert blobs.put(content) == blobs.put_file(tmp_path / "file") == digest
        assert (place.head(key)["e_tag"], place.head(key)["last_modified"]) == (
            before["e_tag"],
            before["last_modified"],
        )
    place.put("zz/none-of-ours", b"")
    assert len(list(place.all_below(""))) == 5 and len(list(blobs.kept())) == 3


def test_a_changed_blob_is_told(server: ObjectServer, tmp_path: Path) -> None:
    """Bytes that are no longer what their digest says are not returned, and no local copy of them is kept."""
    root = server.new_root()
    blobs = open_blobs(root, server.options, cache=tmp_path)
    digest = digest_bytes(b"content")
    Place(root, server.options).put(f"{digest[7:9]}/{digest[7:]}", b"kontent")
    for read in (blobs.get, blobs.path):
        with pytest.raises(Corrupt, match=r"other content|another digest"):
            read(digest)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_that_changes_leaves_nothing(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file that is written to while it is put is refused, and nothing of it can be seen."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 9_000_000)
    seen = digest_bytes(b"b" * 9_000_000)
    monkeypatch.setattr("trimtab.backends.objects.digest_file", lambda _: seen)
    with pytest.raises(Conflict, match="changed while"):
        blobs.put_file(path)
    assert list(blobs.kept()) == [] and not blobs.has(seen)


def test_local_copies_go_when_nobody_asks(blobs: Blobs, tmp_path: Path) -> None:
    """A local copy is made once, read-only, and removed when it was not asked for since a time."""
    digest = blobs.put(b"content")
    path = blobs.path(digest)
    assert path.stat().st_mode & 0o222 == 0 and blobs.path(digest) == path
    assert trim_cache(tmp_path / "cache", wall_seconds() - 3600) == 0
    assert trim_cache(tmp_path / "cache", wall_seconds() + 3600) == 1
    assert not path.exists() and blobs.path(digest).read_bytes() == b"content"


# Tables


def test_any_delta_reader_reads_every_version(server: ObjectServer, tables: DeltaTables) -> None:
    """A plain Delta reader with the same options sees each version by its number."""
    ident = new_id("ast")
    locations = [_put(tables, ident, table(x=[number])) for number in range(3)]
    for number, location in enumerate(locations):
        plain = need("deltalake").DeltaTable(
            tables.uri(ident), version=location["delta_version"], storage_options=server.options
        )
        assert need("pyarrow").table(plain.to_pyarrow_table()).to_pydict() == {"x": [number]}


def test_local_copies_feed_engines_without_a_network(tables: DeltaTables) -> None:
    """An engine that knows no object store, such as DuckDB here, reads a version from local copies."""
    location = _put(tables, new_id("ast"), table(x=list(range(1000))))
    paths = [str(path) for path in tables.files(location)]
    assert need("duckdb").sql(f"SELECT sum(x) FROM read_parquet({paths})").fetchall() == [(499_500,)]


def test_a_commit_without_a_ledger_row_is_found_or_dropped(
    server: ObjectServer, tables: DeltaTables, tmp_path: Path
) -> None:
    """After a kill between commit and ledger row another process finds the commit by its run, or drops it."""
    ident, kept, lost = new_id("ast"), new_id("run"), new_id("run")
    first = _put(tables, ident, table(x=[1]), run_id=kept)
    code = (
        "import json, os, sys, pyarrow\n"
        "from pathlib import Path\n"
        "from trimtab.store.tables import open_tables\n"
        "root, options, cache, ident, run = json.loads(sys.stdin.read())\n"
        "tables = open_tables(root, options, cache=Path(cache))\n"
        "staged = tables.stage(ident, pyarrow.table({'x': [2]}))\n"
        "tables.commit([staged], table_id=ident, mode='append', run_id=run)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = tables.uri(ident).rpartition("/")[0]
    request = json.dumps([root, server.options, str(tmp_path / "other"), ident, lost])
    done = subprocess.run([sys.executable, "-c", code], input=request, text=True, capture_output=True, timeout=60)
    assert done.returncode == -9, done.stderr
    found = tables.find_commit(ident, lost)
    assert found is not None and found["rows"] == 2
    tables.rollback_to(ident, first["delta_version"])
    assert tables.find_commit(ident, lost) is None and tables.find_commit(ident, kept) == first
    assert _put(tables, ident, table(x=[3]), "append")["rows"] == 2


def test_overwrites_that_collide_are_told(tables: DeltaTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two overwrites that began from the same version the second one is refused, and nothing is lost."""
    ident = new_id("ast")
    _put(tables, ident, table(x=[1]))
    staged = tables.stage(ident, table(x=[2]))
    from_before = tables._open(ident)
    _put(tables, ident, table(x=[3]))
    current, opened = tables._open, [from_before]
    monkeypatch.setattr(tables, "_open", lambda table_id: opened.pop() if opened else current(table_id))
    with pytest.raises(Conflict, match="somebody else"):
        tables.commit([staged], table_id=ident, mode="overwrite", run_id=new_id("run"))
    newest = tables.latest(ident)
    assert newest is not None
    assert tables.arrow(tables.location(ident, newest)).to_pydict() == {"x": [3]}


def test_a_missing_or_changed_file_is_told(server: ObjectServer, tables: DeltaTables, tmp_path: Path) -> None:
    """A file that is gone or has other bytes is an error that names it."""
    location = _put(tables, new_id("ast"), table(x=[1, 2, 3]))
    tables.verify(location)
    where = f"{tables.uri(location['table'])}/{tables.files(location)[0].name}"
    place = Place(where.rpartition("/")[0], server.options)
    name = where.rpartition("/")[2]
    place.delete(name)
    for read in (tables.arrow, tables.scan, tables.files):
        with pytest.raises(Corrupt, match="is missing") as caught:
            read(location)
        assert caught.value.where == where
    place.put(name, b"PAR1")
    with pytest.raises(Corrupt, match="other content"):
        tables.verify(location)
    trim_cache(tmp_path / "cache", wall_seconds() + 3600)
    with pytest.raises(Corrupt, match="another digest"):
        tables.arrow(location)


# Credentials


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in values.items():
            patch.setenv(key.upper(), value)
        yield


def test_credentials_may_come_from_the_environment(server: ObjectServer, tmp_path: Path) -> None:
    """What is no option is taken from the environment, for blobs and for tables."""
    root, network = server.new_root(), {"allow_http": "true"}
    values = {key: value for key, value in server.options.items() if key not in network}
    with _environment(values):
        blobs = open_blobs(root, network, cache=tmp_path)
        assert blobs.get(blobs.put(b"x")) == b"x"
        tables = open_tables(root, network, cache=tmp_path)
        location = _put(tables, new_id("ast"), table(x=[1]))
        assert tables.arrow(location).to_pydict() == {"x": [1]}
        assert tables.scan(location).collect().to_dict(as_series=False) == {"x": [1]}


def test_azure_takes_a_shared_access_signature(azure: Azurite, tmp_path: Path) -> None:
    """Blobs and tables work with a signature in place of a key; one that may not write is refused."""
    base = {key: value for key, value in azure.options.items() if key != "azure_storage_account_key"}
    options = {**base, "azure_storage_sas_token": azure.signature()}
    root = azure.new_root()
    blobs = open_blobs(root, options, cache=tmp_path)
    digest = blobs.put(b"x" * 9_000_000)
    assert blobs.size(digest) == 9_000_000
    tables = open_tables(root, options, cache=tmp_path)
    location = _put(tables, new_id("ast"), table(x=[1]))
    assert tables.scan(location).collect().to_dict(as_series=False) == {"x": [1]}
    reader = open_blobs(root, {**base, "azure_storage_sas_token": azure.signature("rl"), **QUICK}, cache=tmp_path)
    assert reader.size(digest) == 9_000_000
    with pytest.raises(Unavailable, match="refuses"):
        reader.put(b"y")


def test_azure_asks_the_managed_identity(tmp_path: Path) -> None:
    """Without a key or signature the token comes from the machine's identity."""
    asked: list[str] = []

    class Cloud(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            token = self.path.startswith("/identity")
            body = b'{"access_token": "TOKEN-OF-THE-MACHINE", "expires_on": "9999999999", "token_type": "Bearer"}'
            self.send_response(200 if token else 404)
            self.send_header("Content-Length", str(len(body)) if token else "0")
            self.end_headers()
            self.wfile.write(body if token else b"")

        do_HEAD = do_GET

        def log_message(self, *words: Any) -> None:
            pass

    cloud = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    threading.Thread(target=cloud.serve_forever, daemon=True).start()
    try:
        options = {
            "azure_storage_account_name": "acct",
            "azure_storage_endpoint": f"http://127.0.0.1:{cloud.server_port}",
            "azure_msi_endpoint": f"http://127.0.0.1:{cloud.server_port}/identity",
            "allow_http": "true",
        }
        assert not open_blobs("az://box/prefix", options, cache=tmp_path).has(digest_bytes(b"x"))
    finally:
        cloud.shutdown()
        cloud.server_close()
    assert asked == ["", "Bearer TOKEN-OF-THE-MACHINE"]


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hunter2hunter2@bucket/p", "az://box/p?sv=1&sig=hunter2hunter2", "gs://bucket/p#hunter2hunter2",
        "s3://hunter2hunter2@bucket/p",
    ],
)  # fmt: skip
def test_a_url_holds_no_credentials(url: str, tmp_path: Path) -> None:
    """A URL with a key or a signature is refused, and the refusal does not repeat it."""
    for opened in (open_blobs, open_tables):
        with pytest.raises(WrongUse, match="names a place and nothing else") as caught:
            opened(url, cache=tmp_path)
        assert "hunter2" not in str(caught.value)


def _told(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error)) + repr(error)
    return text + json.dumps(error.as_data()) if isinstance(error, TrimtabError) else text


@pytest.mark.parametrize(  # moto lets everybody in
    ("server", "fault"),
    [("azure", "refused"), *((name, fault) for name in ("s3", "azure") for fault in ("gone", "no bucket"))],
    indirect=["server"],
)
def test_no_error_and_no_log_holds_a_secret(
    server: ObjectServer,
    fault: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whatever goes wrong is a fault that says where and what to do, and never the planted key or signature."""
    caplog.set_level(logging.DEBUG)
    planted = base64.b64encode(b"PLANTED-SECRET-" * 4).decode()
    keys = {"azure_storage_account_key", "aws_secret_access_key"}
    secrets = [planted, server.secret]
    options = {key: planted if key in keys and fault == "refused" else value for key, value in server.options.items()}
    if fault == "gone":
        options = {key: value.replace(str(server.port), "1") for key, value in options.items()}
    if isinstance(server, Azurite) and fault == "gone":
        del options["azure_storage_account_key"]
        options["azure_storage_sas_token"] = server.signature()
        secrets.append(server.signature().rpartition("sig=")[2])
    root = "/".join([f"{server.scheme}://nowhere-at-all", "p"]) if fault == "no bucket" else server.new_root()
    blobs, tables = (opened(root, {**options, **QUICK}, cache=tmp_path) for opened in (open_blobs, open_tables))
    assert isinstance(blobs, ObjectBlobs) and isinstance(tables, DeltaTables)
    acts: list[Any] = [lambda: blobs.put(b"x"), lambda: tables.stage(new_id("ast"), table(x=[1]))]
    if fault != "no bucket":
        digest = digest_bytes(b"x")
        acts += [lambda: blobs.get(digest), lambda: blobs.has(digest), lambda: list(blobs.kept()),
                 lambda: blobs.path(digest), lambda: tables.latest(new_id("ast"))]  # fmt: skip
    for act in acts:
        with pytest.raises(Unavailable) as caught:
            act()
        assert caught.value.where.startswith(root) and caught.value.fix
        assert not [secret for secret in secrets if secret in _told(caught.value)]
    for thing in (blobs, tables, tables._files):
        assert not [secret for secret in secrets if secret in repr(thing)]
    written = caplog.text + "".join(capfd.readouterr())
    assert not [secret for secret in secrets if secret in written]


def test_a_fault_of_the_engine_is_told(server: ObjectServer, tables: DeltaTables, tmp_path: Path) -> None:
    """When the store goes away between two questions, the table engine's error is a fault without a secret."""
    location = _put(tables, new_id("ast"), table(x=[1]))
    gone = {key: value.replace(str(server.port), "1") for key, value in server.options.items()}
    tables._options = {**gone, **QUICK}
    for act in (lambda: tables.latest(location["table"]), lambda: tables.arrow(location)):
        with pytest.raises(Unavailable, match="does not answer") as caught:
            act()
        assert server.secret not in _told(caught.value)
    ident = new_id("ast")
    told = tables.stage(ident, table(x=[1]))
    with pytest.raises((Unavailable, Fault)) as caught_too:
        tables.commit([told], table_id=ident, mode="append", run_id=new_id("run"))
    assert server.secret not in _told(caught_too.value)


# Opening


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    """A path, as text or not, opens a folder; so does one that has two slashes in it."""
    assert isinstance(open_blobs(tmp_path), LocalBlobs) and isinstance(open_blobs(str(tmp_path)), LocalBlobs)
    assert isinstance(open_files(tmp_path / "s3:" / "x"), LocalFiles)
    tables = open_tables(str(tmp_path))
    assert tables.arrow(_put(tables, new_id("ast"), table(x=[1]))).num_rows == 1


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/a/b", "gs://bucket/a/b", "gs://bucket", "az://box/a", "abfs://box/a", "abfss://box@acct.dfs.core.windows.net/a"],
)  # fmt: skip
def test_every_cloud_is_opened_by_its_scheme(url: str, tmp_path: Path) -> None:
    """Each scheme has a back end; the account may be in the URL, and opening asks nobody."""
    account = {} if "@" in url or not url.startswith(("az", "abfs")) else {"azure_storage_account_name": "acct"}
    blobs, files = open_blobs(url, account, cache=tmp_path), open_files(url, account, cache=tmp_path)
    assert isinstance(blobs, ObjectBlobs) and isinstance(files, ObjectFiles)
    assert repr(blobs) == f"ObjectBlobs({url!r})" and files.uri("x") == f"{url}/x"
    assert "a/b" not in url or files._place.store.prefix == "a/b"


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """An unknown scheme, option, number or place is named with what to do, and values are not repeated."""
    with pytest.raises(NotFound, match="did you mean 's3'"):
        open_blobs("s33://bucket")
    with pytest.raises(WrongUse, match="aws_regoin"):
        open_blobs("s3://bucket", {"aws_regoin": "hunter2hunter2"}, cache=tmp_path)
    with pytest.raises(WrongUse, match="retry_timeout looks like"):
        open_blobs("s3://bucket", {"max_retries": "often"}, cache=tmp_path)
    for url in ("s3:///prefix", "s3://bucket/../x"):
        with pytest.raises(WrongUse, match="cannot be read"):
            open_blobs(url, cache=tmp_path)
    for unsafe in ({"aws_s3_allow_unsafe_rename": "true"}, {"AWS_S3_ALLOW_UNSAFE_RENAME": "True"}):
        with pytest.raises(WrongUse, match="overwrite each other"):
            open_tables("s3://bucket", unsafe, cache=tmp_path)
    with _environment({"AWS_S3_ALLOW_UNSAFE_RENAME": "true"}), pytest.raises(WrongUse, match="overwrite each other"):
        open_tables("s3://bucket", cache=tmp_path)
    assert os.environ.get("AWS_S3_ALLOW_UNSAFE_RENAME") is None
