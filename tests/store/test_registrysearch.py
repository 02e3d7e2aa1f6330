"""Searches of registered models and versions, in both databases."""

from __future__ import annotations

import time

import pytest

from tests.store.builders import make, write
from tests.store.test_registry import add, register
from trimtab.core.errors import BadInput
from trimtab.store import facts, registry
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.registry import PROMPT
from trimtab.store.registrysearch import search_models, search_versions


def names(ledger: Ledger, filter: str = "", *order: str) -> list[str]:
    """Return the names that a search finds."""
    return [one.name for one in search_models(ledger, filter=filter, order=order)[0]]


def numbers(ledger: Ledger, filter: str = "", *order: str) -> list[tuple[str, int]]:
    """Return the versions that a search finds."""
    return [(one.model, one.number) for one in search_versions(ledger, filter=filter, order=order)[0]]


@pytest.fixture
def scene(ledger: Ledger) -> Ledger:
    """Return a ledger with models, a prompt, and a model of the pipeline."""
    for at, (name, tags) in enumerate(
        {"cats": {"team": "red"}, "dogs": {"team": "blue", "x": "1"}, "Cars": {}}.items()
    ):
        register(ledger, name, tags=tags, now_ms=100 - at)
    register(ledger, "hello", tags={PROMPT: "true", "team": "red"})
    add(ledger, "cats", run_id="r1", source="s3://a/1", tags={"v": "1"}, now_ms=200)
    add(ledger, "cats", run_id="r2", source="s3://a/2", now_ms=300)
    add(ledger, "dogs", run_id="r1", source="s3://b/1", now_ms=250)
    add(ledger, "hello", source="prompt-template", tags={PROMPT: "true"}, now_ms=260)
    ledger.write(lambda tx: make(tx, "delays", kind="model"), what="make")
    return ledger


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("", ["Cars", "cats", "dogs"]),
        ("name = 'cats'", ["cats"]),
        ("name LIKE 'ca%'", ["cats"]),
        ("name ILIKE 'ca%'", ["Cars", "cats"]),
        ("tags.team = 'red'", ["cats"]),
        ("tag.team != 'red'", ["dogs"]),
        ("tags.team = 'blue' AND tags.x = '1'", ["dogs"]),
        (f"tags.`{PROMPT}` = 'true'", ["hello"]),
        (f"tags.`{PROMPT}` != 'FALSE' AND tags.team = 'red'", ["hello"]),
        (f"tags.`{PROMPT}` = 'false'", ["Cars", "cats", "dogs"]),
        (f"tags.`{PROMPT}` != 'true' AND tags.team = 'red'", ["cats"]),
        ("name = 'delays'", []),
    ],
)
def test_filters_of_models(scene: Ledger, filter: str, found: list[str]) -> None:
    """Prompts come only where they are asked for, and the pipeline's models never."""
    assert names(scene, filter) == found


def test_models_in_order(scene: Ledger) -> None:
    """By name or by the time of the last change, and by name where that ties."""
    assert names(scene, "", "name DESC") == ["dogs", "cats", "Cars"]
    assert names(scene, "", "last_updated_timestamp") == ["Cars", "dogs", "cats"]
    assert names(scene, "", "timestamp DESC") == ["cats", "dogs", "Cars"]
    for bad in ("creation_timestamp", "stage"):
        with pytest.raises(BadInput, match="Invalid order by key"):
            names(scene, "", bad)


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("", [("cats", 2), ("dogs", 1), ("cats", 1)]),
        ("name = 'cats'", [("cats", 2), ("cats", 1)]),
        ("run_id = 'r1'", [("dogs", 1), ("cats", 1)]),
        ("run_id IN ('r1', 'r2')", [("cats", 2), ("dogs", 1), ("cats", 1)]),
        ("source_path LIKE 's3://a/%' AND version_number > 1", [("cats", 2)]),
        ("tags.v = '1'", [("cats", 1)]),
        (f"name = 'hello' AND tag.`{PROMPT}` = 'true'", [("hello", 1)]),
        ("name = 'hello'", []),
    ],
)
def test_filters_of_versions(scene: Ledger, filter: str, found: list[tuple[str, int]]) -> None:
    """The last changed comes first."""
    assert numbers(scene, filter) == found


def test_versions_in_order_without_the_deleted(scene: Ledger) -> None:
    """Names break ties, then the newest version; what is deleted is found no more."""
    assert numbers(scene, "", "creation_timestamp") == [("cats", 1), ("dogs", 1), ("cats", 2)]
    assert numbers(scene, "", "version_number") == [("cats", 1), ("dogs", 1), ("cats", 2)]
    write(scene, registry.delete_version, "cats", 2, now_ms=400)
    assert numbers(scene) == [("dogs", 1), ("cats", 1)]
    write(scene, registry.delete_registered, "dogs")
    assert numbers(scene) == [("cats", 1)]
    version = registry.get_version(scene, "cats", 1)
    write(scene, facts.set_alias, "cats", "best", version.id)
    assert search_versions(scene)[0][0].aliases == ["best"]
    assert search_models(scene, filter="name='cats'")[0][0].aliases == {"best": 1}


def test_pages_end_without_a_token(scene: Ledger) -> None:
    """Pages of any size hold everything once; a token goes with its query."""
    seen, token = list[tuple[str, int]](), ""
    while True:
        page, token = search_versions(scene, most=1, token=token)
        seen += [(one.model, one.number) for one in page]
        if not token:
            break
    assert seen == numbers(scene)
    models, token = search_models(scene, most=2)
    assert [one.name for one in models] == ["Cars", "cats"]
    assert [one.name for one in search_models(scene, most=2, token=token)[0]] == ["dogs"]
    with pytest.raises(BadInput, match="another query"):
        search_models(scene, filter="name != 'x'", token=token)
    with pytest.raises(BadInput, match="another query"):
        search_versions(scene, token=token)


def test_many_versions_are_found_at_once(ledger: Ledger) -> None:
    """Two thousand versions with tags: a filter by tag, an order and a page stay far below a second."""

    def fill(tx: Tx) -> None:
        for model in range(10):
            registry.create_registered(tx, f"m{model}", now_ms=1)
        for place in range(2000):
            tags = {"v": str(place % 7), "w": "x"}
            registry.create_version(tx, f"m{place % 10}", source="s3://b", tags=tags, now_ms=place)

    ledger.write(fill, what="fill")
    begun = time.perf_counter()
    found, token = search_versions(ledger, filter="tags.v = '3' AND name != 'm1'", order=["version_number"], most=100)
    assert (len(found), bool(token)) == (100, True)
    assert len(search_models(ledger)[0]) == 10
    assert time.perf_counter() - begun < 5
