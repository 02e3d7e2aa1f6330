"""Parts of a bronze table: whole batches, written again only where one was replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trimtab as tt
from tests.data.conftest import Bench
from trimtab import check as ck
from trimtab.core.nouns import Version
from trimtab.data.frames import load
from trimtab.store.store import open_store


@tt.source(path="data/*.csv")
def raw() -> None:
    """Rows as received."""


def files_of(bench: Bench, version: Version) -> set[str]:
    """Return the names of a version's Parquet files."""
    return {path.name for path in bench.store.tables.files(version.location)}


def test_a_replaced_batch_touches_its_part_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other parts are taken over as they are; the part's other batches are written again."""
    monkeypatch.setattr("trimtab.data.parts.PART_ROWS", 2)
    for name in "abcde":
        bench.write(f"data/{name}.csv", f"id\n{name}\n")
    first = bench.run(raw)
    assert len(first.meta["parts"]) == 3 and files_of(bench, first) == set(first.meta["parts"])
    bench.write("data/c.csv", "id\nC\nCC\n")
    second = bench.run(raw)
    assert second.meta["parts"][0] == first.meta["parts"][0] and second.meta["parts"][2] == first.meta["parts"][2]
    assert second.meta["parts"][1] != first.meta["parts"][1] and len(second.meta["parts"]) == 4
    assert files_of(bench, second) == set(second.meta["parts"])
    assert load(bench.store, second)["id"].to_list() == ["a", "b", "d", "e", "C", "CC"]
    assert load(bench.store, first)["id"].to_list() == ["a", "b", "c", "d", "e"]
    assert {batch["file"] for batch in second.meta["batches"].values()} == set(second.meta["parts"])


CHANGES = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 3), max_size=3), min_size=1),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, checked=st.booleans())
def test_any_history_of_files_keeps_the_newest_of_each(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, list[int]]], checked: bool
) -> None:
    """However files come, change and repeat values, published and quarantined rows are those of the newest files."""
    root: Path = tmp_path_factory.mktemp("history")
    checks = [ck.unique("id", at_most=1.0)] if checked else []

    def raw() -> None: ...

    declared = tt.source(path="data/*.csv", checks=checks)(raw)
    bench = Bench(root / "project", open_store(root / "store"))
    now: dict[str, list[int]] = {}
    received: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimtab.data.parts.PART_ROWS", 2)
        for change in changes:
            for name in sorted(change):
                if now.get(name) != change[name]:
                    received = [*[other for other in received if other != name], name]
                now[name] = change[name]
                bench.write(f"data/{name}.csv", "id\n" + "".join(f"{value}\n" for value in change[name]))
            version = bench.run(declared)
            rows = [str(value) for name in received for value in now[name]]
            kept = list(dict.fromkeys(rows)) if checked else rows
            assert load(bench.store, version)["id"].to_list() == kept
            assert version.meta["quarantined"] == len(rows) - len(kept)
            assert files_of(bench, version) == set(version.meta["parts"])
    bench.store.close()
