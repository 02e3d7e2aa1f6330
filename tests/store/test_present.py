"""Whether what a version stands for is still there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.object_servers import ObjectServer
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data
from trimtab.store.present import missing
from trimtab.store.store import Store, open_store
from trimtab.testing.tables import table


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store in a folder and one in an object store."""
    if request.param == "folder":
        return open_store(tmp_path / "store")
    s3: ObjectServer = request.getfixturevalue("s3")
    monkeypatch.setenv("TEST_PRESENT_KEY", s3.secret)
    options = {**s3.options, "aws_secret_access_key": "${TEST_PRESENT_KEY}"}
    return open_store(tmp_path / "store", artifacts=s3.new_root(), options=options)


def _version(store: Store, ident: str, rows: list[int], mode: str = "append") -> Data:
    staged = store.tables.stage(ident, table(x=rows))
    return store.tables.commit(
        [staged],
        table_id=ident,
        mode=mode,  # type: ignore[arg-type]
        run_id=new_id("run"),
    )


def test_a_lost_blob_is_named(store: Store) -> None:
    """A version of blobs is there while each blob is."""
    digests = [store.blobs.put(name.encode()) for name in "abc"]
    location: Data = {"files": {"a": digests[0], "b": digests[1]}, "blob": digests[2]}
    assert missing(store, location) == "" == missing(store, {})
    store.blobs.delete(digests[1])
    assert missing(store, location) == f"blob {digests[1]}"
    assert missing(store, {"blob": "no digest"}) == "blob no digest"
    store.close()


def test_a_lost_file_of_a_table_is_named(store: Store) -> None:
    """A version of a table is there while its commit and each of its files are; others do not matter."""
    ident = new_id("ast")
    versions = [_version(store, ident, [number]) for number in range(2)]
    replaced = _version(store, ident, [9], "overwrite")
    assert [missing(store, one) for one in (*versions, replaced)] == ["", "", ""]
    first = store.tables.files(versions[0])[0].name
    store.tables._files.delete(f"{ident}/{first}")
    assert [missing(store, one) for one in (*versions, replaced)] == [f"{ident}/{first}"] * 2 + [""]
    unknown = {"table": ident, "delta_version": 17}
    assert missing(store, unknown) == f"version 17 of table {ident}"
    assert missing(store, {**unknown, "table": "../x"}) == "version 17 of table ../x"
    store.tables.remove(ident)
    store.tables.remove(ident)
    assert missing(store, replaced) == f"version {replaced['delta_version']} of table {ident}"
    assert store.tables.latest(ident) is None
    store.close()


def test_asking_is_light(tmp_path: Path) -> None:
    """No engine is imported to look at a folder."""
    ident = new_id("ast")
    with open_store(tmp_path) as store:
        made = _version(store, ident, [1])
    code = (
        "import sys; from pathlib import Path; from trimtab.store.store import open_store\n"
        "from trimtab.store.present import missing\n"
        f"with open_store(Path(sys.argv[1])) as store: assert missing(store, {made!r}) == ''\n"
        "print({'polars', 'pyarrow', 'deltalake', 'duckdb', 'numpy', 'obstore'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
