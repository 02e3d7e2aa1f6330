"""Assets, versions, references, runs, edges, metrics, verdicts, the cache and grants."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.store.builders import START, at, begin, make, write
from trimtab.core.errors import Conflict, NotFound, WrongUse
from trimtab.core.ids import new_id
from trimtab.core.nouns import Run, Verdict
from trimtab.store import facts, live
from trimtab.store.facts import CacheEntry
from trimtab.store.ledger import Ledger, Tx, within


def _put(ledger: Ledger, name: str, kind: str = "table", **spec: Any) -> Any:
    return write(ledger, facts.put_asset, name=name, kind=kind, spec=spec, at=START)


def test_an_asset_is_kept_and_updated(ledger: Ledger) -> None:
    """Putting an asset again keeps its id and takes over a changed spec; equal specs change nothing."""
    first = _put(ledger, "flights", owner="a")
    assert facts.find_asset(ledger, "flights") == first
    assert _put(ledger, "flights", owner="a") == first
    changed = _put(ledger, "flights", owner="b")
    assert (changed.id, changed.spec) == (first.id, {"owner": "b"})
    assert facts.find_asset(ledger, "flights") == changed
    assert facts.find_asset(ledger, "weather") is None


def test_an_asset_keeps_its_kind(ledger: Ledger) -> None:
    """A name that belongs to an asset of another kind is refused."""
    _put(ledger, "flights")
    with pytest.raises(Conflict, match="is a table already and cannot become a model"):
        _put(ledger, "flights", kind="model")


def test_assets_and_endpoints_share_one_name_space(ledger: Ledger) -> None:
    """An asset cannot take an endpoint's name, nor an endpoint an asset's."""
    write(ledger, live.put_endpoint, name="delay_api", spec={}, at=START)
    _put(ledger, "delay_api.calls")
    with pytest.raises(Conflict, match="'delay_api' is an endpoint already"):
        _put(ledger, "delay_api")
    _put(ledger, "delays", kind="model")
    with pytest.raises(Conflict, match="'delays' is a model already"):
        write(ledger, live.put_endpoint, name="delays", spec={}, at=START)


def test_assets_are_listed_by_name_and_kind(ledger: Ledger) -> None:
    """All assets, or those of a kind, come in the order of their names."""
    for name, kind in (("b", "table"), ("a", "table"), ("m", "model")):
        _put(ledger, name, kind)
    assert [asset.name for asset in facts.list_assets(ledger)] == ["a", "b", "m"]
    assert [asset.name for asset in facts.list_assets(ledger, "table")] == ["a", "b"]


def test_versions_count_up_and_the_newest_published_is_current(ledger: Ledger) -> None:
    """Numbers count within the asset; current is the newest published one, newest is any."""
    first = write(ledger, make, "flights", meta={"rows": 3, "min": -0.0}, location={"table": "t"})
    second = write(ledger, make, "flights", state="refused")
    assert (first.number, second.number, first.ref) == (1, 2, "flights:1")
    assert facts.current(ledger, "flights") == first
    assert facts.newest(ledger, "flights") == second
    assert facts.list_versions(ledger, "flights") == [first, second]
    assert facts.get_version(ledger, first.id) == first
    assert facts.current(ledger, "nothing") is None
    with pytest.raises(NotFound, match="there is no version"):
        facts.get_version(ledger, new_id("ver"))


def test_a_candidate_is_decided_once(ledger: Ledger) -> None:
    """A candidate becomes published or refused, and nothing else becomes anything."""
    version = write(ledger, make, "flights", state="candidate")
    assert facts.current(ledger, "flights") is None
    write(ledger, facts.set_version_state, version.id, "published")
    assert facts.current(ledger, "flights") is not None
    for state in ("refused", "published", "candidate"):
        with pytest.raises(Conflict, match="is published and cannot become"):
            write(ledger, facts.set_version_state, version.id, state)
    with pytest.raises(WrongUse, match="not a version's state"):
        write(ledger, make, "flights", state="good")


def test_references_resolve(ledger: Ledger) -> None:
    """A name, a number, an alias and an id each find their version."""
    first, second = write(ledger, make, "flights"), write(ledger, make, "flights")
    write(ledger, facts.set_alias, "flights", "champion", first.id)
    assert facts.resolve(ledger, "flights") == second
    assert facts.resolve(ledger, "flights:1") == first
    assert facts.resolve(ledger, "flights@champion") == first
    assert facts.resolve(ledger, first.id) == first
    candidate = write(ledger, make, "weather", state="candidate")
    assert facts.resolve(ledger, "weather") == candidate


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("flight", "no asset 'flight'; did you mean 'flights'"),
        ("flights:7", "no version 7"),
        ("flights@champoin", "no alias 'champoin'; did you mean 'champion'"),
        ("empty", "was never made"),
        ("other/dev/flights", "no asset 'flights'"),
        ("ver_" + "0" * 32, "no version ver_0000"),
    ],
)
def test_a_reference_to_nothing_says_what_there_is(ledger: Ledger, ref: str, words: str) -> None:
    """A reference that finds nothing names what is missing and what comes closest."""
    version = write(ledger, make, "flights")
    write(ledger, facts.set_alias, "flights", "champion", version.id)
    _put(ledger, "empty")
    with pytest.raises(NotFound, match=words):
        facts.resolve(ledger, ref)


def test_environments_keep_their_own_current_versions_and_aliases(ledger: Ledger) -> None:
    """Each environment has its own versions and aliases; numbers count over all of them."""
    with Ledger.open(ledger.where, environment="prod") as prod:
        dev_version, prod_version = write(ledger, make, "flights"), write(prod, make, "flights")
        write(prod, facts.set_alias, "flights", "champion", dev_version.id)
        assert (dev_version.number, prod_version.number) == (1, 2)
        assert facts.current(ledger, "flights") == dev_version
        assert facts.current(prod, "flights") == prod_version
        assert facts.resolve(ledger, "prod/flights") == prod_version
        assert facts.resolve(ledger, "default/prod/flights@champion") == dev_version
        assert facts.resolve(ledger, "flights:2") == prod_version
        assert facts.alias_of(ledger, "flights", "champion") is None
        assert within(ledger, environment="dev") is ledger


def test_workspaces_do_not_see_each_other(ledger: Ledger) -> None:
    """The same name in two workspaces is two assets."""
    mine = write(ledger, make, "flights")
    with Ledger.open(ledger.where, workspace="other") as other:
        assert facts.find_asset(other, "flights") is None
        theirs = write(other, make, "flights", kind="model")
        assert theirs.asset_id != mine.asset_id
        assert facts.list_runs(other) != facts.list_runs(ledger)
        assert len(facts.list_runs(other)) == 1


def test_an_alias_moves_by_compare_and_set(ledger: Ledger) -> None:
    """An alias moves when what was expected stands there, and not otherwise."""
    first, second = write(ledger, make, "delays"), write(ledger, make, "delays")
    write(ledger, facts.set_alias, "delays", "champion", first.id, expect=None)
    with pytest.raises(Conflict, match="delays@champion is delays:1, not what was expected"):
        write(ledger, facts.set_alias, "delays", "champion", second.id, expect=None)
    write(ledger, facts.set_alias, "delays", "champion", second.id, expect=first.id)
    assert facts.aliases(ledger, "delays") == {"champion": second.id}
    assert facts.alias_of(ledger, "delays", "champion") == second


def test_an_alias_stays_within_its_asset_and_off_environments(ledger: Ledger) -> None:
    """An alias cannot point to another asset's version or be called like an environment."""
    version = write(ledger, make, "delays")
    with pytest.raises(WrongUse, match="not a version of flights"):
        write(ledger, facts.set_alias, "flights", "champion", version.id)
    with pytest.raises(WrongUse, match="environment 'prod'"):
        write(ledger, facts.set_alias, "delays", "prod", version.id)


def test_a_run_is_kept_whole(ledger: Ledger) -> None:
    """A run comes back with everything it was started and ended with."""
    run = write(
        ledger, begin, key="k", key_fields={"code": {"a": "1"}}, seed=3, params={"x": 1.5}, code={"dirty": True},
        runtime={"lock": "l"}, actor="me", parent_id="p", attempt=2, facts={"rows": 1},
    )  # fmt: skip
    assert facts.get_run(ledger, run.id) == run
    write(
        ledger, facts.finish_run, run.id, state="failed", ended_at=at(1), error={"type": "X"}, facts={"seconds": 2.0},
        params={"y": None}, log="here",
    )  # fmt: skip
    ended = facts.get_run(ledger, run.id)
    assert ended is not None
    assert (ended.state, ended.ended_at, ended.error, ended.log) == ("failed", at(1), {"type": "X"}, "here")
    assert ended.facts == {"rows": 1, "seconds": 2.0}
    assert ended.params == {"x": 1.5, "y": None}
    assert facts.get_run(ledger, new_id("run")) is None


@pytest.mark.parametrize("state", ["done", "failed", "cancelled", "lost"])
def test_a_run_ends_once(ledger: Ledger, state: str) -> None:
    """A running run ends in one of four states, and then never again."""
    run = write(ledger, begin)
    write(ledger, facts.finish_run, run.id, state=state, ended_at=START)
    with pytest.raises(Conflict, match=f"is {state} and cannot become done"):
        write(ledger, facts.finish_run, run.id, state="done", ended_at=START)


def test_a_run_cannot_end_before_it_started_or_in_no_state(ledger: Ledger) -> None:
    """Ends that make no sense are refused and leave the run running."""
    run = write(ledger, begin)
    with pytest.raises(Conflict, match="before it started"):
        write(ledger, facts.finish_run, run.id, state="done", ended_at=at(-1))
    with pytest.raises(Conflict, match="cannot become running"):
        write(ledger, facts.finish_run, run.id, state="running", ended_at=START)
    with pytest.raises(NotFound):
        write(ledger, facts.finish_run, new_id("run"), state="done", ended_at=START)
    kept = facts.get_run(ledger, run.id)
    assert kept is not None
    assert kept.state == "running"


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "done"},
        {"ended_at": START},
        {"state": "gone", "ended_at": START},
        {"state": "done", "ended_at": at(-1)},
    ],
)
def test_a_run_starts_in_a_state_that_goes_with_its_end(ledger: Ledger, fields: dict[str, Any]) -> None:
    """A run that has ended says when, a running one does not, and no run is in an unknown state."""
    with pytest.raises(WrongUse):
        write(ledger, begin, **fields)
    assert facts.list_runs(ledger) == []


def test_runs_are_listed_newest_first(ledger: Ledger) -> None:
    """Runs can be picked by kind, name, state and parent, and are limited from the newest."""
    old = write(ledger, begin)
    new = write(ledger, begin, name="delays", kind="gate", parent_id=old.id)
    assert facts.list_runs(ledger) == [new, old]
    assert facts.list_runs(ledger, limit=1) == [new]
    assert facts.list_runs(ledger, kind="make") == [old]
    assert facts.list_runs(ledger, name="delays", state="running") == [new]
    assert facts.list_runs(ledger, parent=old.id) == [new]
    assert facts.list_runs(ledger, state="done") == []


def test_edges_of_a_run(ledger: Ledger) -> None:
    """A run knows what it used, by role, and what it made; a version knows its users."""
    flights, weather = write(ledger, make, "flights"), write(ledger, make, "weather")
    made = write(ledger, make, "joined", [(weather, "weather"), (flights, "flights")])
    assert facts.used_by(ledger, made.run_id) == [(flights, "flights"), (weather, "weather")]
    assert facts.made_by(ledger, made.run_id) == [made]
    assert [run.id for run in facts.users_of(ledger, flights.id)] == [made.run_id]


def test_an_edge_to_nothing_is_refused(ledger: Ledger) -> None:
    """An edge to a version or from a run that does not exist is refused, and the request undone."""
    version = write(ledger, make, "flights")
    for run_id, version_id in ((new_id("run"), version.id), (version.run_id, new_id("ver"))):
        with pytest.raises(Conflict, match=r"(?i)foreign key"):
            write(ledger, facts.add_used, run_id, [(version_id, "x")])


def test_lineage_goes_both_ways_with_the_least_depth(ledger: Ledger) -> None:
    """Ancestors and descendants come nearest first, each with its run, role and least depth."""

    def build(tx: Tx) -> dict[str, Any]:
        source = make(tx, "source", kind="source")
        silver = make(tx, "silver", [(source, "source")])
        gold = make(tx, "gold", [(silver, "silver"), (source, "source")])
        model = make(tx, "model", [(gold, "gold")], kind="model")
        other = make(tx, "other")
        return {"source": source, "silver": silver, "gold": gold, "model": model, "other": other}

    made = ledger.write(build, what="build")
    up = [(edge.version.asset, edge.role, edge.depth) for edge in facts.ancestors(ledger, made["model"].id)]
    assert up[0] == ("gold", "gold", 1)
    assert set(up[1:3]) == {("silver", "silver", 2), ("source", "source", 2)}
    assert up[3:] == [("source", "source", 3)]
    down = [(edge.version.asset, edge.role, edge.depth) for edge in facts.descendants(ledger, made["source"].id)]
    assert set(down[:2]) == {("silver", "source", 1), ("gold", "source", 1)}
    assert set(down[2:]) == {("gold", "silver", 2), ("model", "gold", 2)}
    edge = facts.ancestors(ledger, made["model"].id)[0]
    assert edge.run.id == made["model"].run_id
    assert facts.ancestors(ledger, made["other"].id) == facts.descendants(ledger, made["other"].id) == []


def test_lineage_is_never_cut_short(ledger: Ledger) -> None:
    """A chain of a thousand versions, each made from the one before, is walked to its ends."""

    def build(tx: Tx) -> tuple[str, str]:
        first = last = make(tx, "log")
        for _ in range(1000):
            last = make(tx, "log", [(last, "previous")])
        return first.id, last.id

    first, last = ledger.write(build, what="build")
    up, down = facts.ancestors(ledger, last), facts.descendants(ledger, first)
    assert len(up) == len(down) == 1000
    assert (up[-1].version.id, up[-1].depth) == (first, 1000)
    assert (down[-1].version.id, down[-1].depth) == (last, 1000)


def test_a_wide_lattice_is_walked_once_per_edge(ledger: Ledger) -> None:
    """Layers that all use each other have very many paths, and still each edge is told once."""

    def build(tx: Tx) -> str:
        layer = [make(tx, f"a{n}") for n in range(3)]
        for depth in range(30):
            layer = [make(tx, f"l{depth}_{n}", [(one, str(i)) for i, one in enumerate(layer)]) for n in range(3)]
        return layer[0].id

    top = ledger.write(build, what="build")
    edges = facts.ancestors(ledger, top)
    assert len(edges) == 3 + 29 * 9
    assert max(edge.depth for edge in edges) == 30


@pytest.mark.parametrize("value", [0.1, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e308, 2.0**53 + 2])
def test_metrics_are_kept_exactly(ledger: Ledger, value: float) -> None:
    """The last value of a metric comes back exactly, also when it is no ordinary number."""
    run = write(ledger, begin)
    write(ledger, facts.add_metrics, run.id, [("loss", 0, 9.0), ("loss", 1, value), ("auc", 0, 0.5)], START)
    found = facts.metrics_of(ledger, run.id)
    assert math.copysign(1.0, found["loss"]) == math.copysign(1.0, value)
    assert found["loss"] == value or (math.isnan(value) and math.isnan(found["loss"]))
    assert found["auc"] == 0.5


def test_verdicts_are_found_by_subject_and_run(ledger: Ledger) -> None:
    """A verdict gets an id and is found by what it is about and by who gave it."""
    verdict = Verdict(
        check="auc", status="fail", subject="ver_1", evidence={"auc": math.nan}, reason="low", at=START, run_id="run_1"
    )
    kept = write(ledger, facts.add_verdict, verdict)
    assert kept.id.startswith("vrd_")
    for found in (facts.verdicts_of(ledger, "ver_1"), facts.verdicts_by(ledger, "run_1")):
        assert [one.id for one in found] == [kept.id]
        assert math.isnan(found[0].evidence["auc"])
    assert facts.verdicts_of(ledger, "ver_2") == []


def test_the_newest_cache_entry_stands(ledger: Ledger) -> None:
    """A key finds its newest entry, a step its newest key, each in its own environment."""

    def entry(key: str, day: int, run: str = "run_1") -> CacheEntry:
        step = "make:flights"
        return CacheEntry(
            key=key, asset=step, fields={"n": day}, run_id=run, version_ids=("ver_1", "ver_2"), at=at(day)
        )

    for one in (entry("a", 1), entry("b", 2), entry("a", 0, "run_0"), entry("c", 2, "run_0")):
        write(ledger, facts.cache_put, one)
    assert facts.cache_get(ledger, "a") == entry("a", 0, "run_0")
    assert facts.cache_get(ledger, "z") is None
    assert facts.last_cache(ledger, "flights", "make") == entry("b", 2)
    assert facts.last_cache(ledger, "flights", "gate") is None
    assert facts.cache_get(within(ledger, environment="prod"), "a") is None


def test_grants_are_by_digest(ledger: Ledger) -> None:
    """A grant holds for a digest in its workspace, and granting again changes nothing."""
    assert not facts.is_granted(ledger, "sha256:1")
    for who in ("me", "you"):
        write(ledger, facts.add_grant, "sha256:1", "pickle", "run_1", who, START)
    assert facts.is_granted(ledger, "sha256:1")
    assert not facts.is_granted(within(ledger, workspace="other"), "sha256:1")
    assert ledger.query('SELECT by FROM "grant"') == [("me",)]


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"a": {"b": [0, 2**64]}}, "params.a.b[1]"),
        ({"name": "\ud800"}, "params.name"),
        ({"when": object()}, "params.when"),
    ],
)
def test_params_that_cannot_be_kept_exactly_are_refused_by_name(
    ledger: Ledger, params: dict[str, Any], place: str
) -> None:
    """A run with params that cannot be kept exactly is refused, and the error names the field."""
    run = Run(id=new_id("run"), kind="make", name="x", state="running", started_at=START, params=params)
    with pytest.raises(WrongUse, match="cannot be stored") as caught:
        write(ledger, facts.start_run, run)
    assert caught.value.where == place
    assert facts.list_runs(ledger) == []
