"""Evaluation datasets: records merged by their inputs, on both databases."""

from __future__ import annotations

import msgspec
import pytest

from trimtab.core.errors import NotFound
from trimtab.core.nouns import Data
from trimtab.store import evalsets, tracking
from trimtab.store.ledger import Ledger, Tx


def _made(ledger: Ledger, name: str = "q", at: int = 1) -> str:
    def make(tx: Tx) -> str:
        if not tx.query("SELECT 1 FROM experiment"):
            tracking.create_experiment(tx, "e", root="r", tags={}, now_ms=0, number=0)
        return evalsets.create_evalset(tx, name, tags={"t": name}, experiments=[0], now_ms=at).id

    return ledger.write(make, what="test")


def test_records_are_merged_by_their_inputs(ledger: Ledger) -> None:
    """The order of an input's fields does not matter; what is new is added, what is there is kept."""
    ident = _made(ledger)
    first: list[Data] = [{"inputs": {"a": 1, "b": 2}, "expectations": {"x": 1}}, {"inputs": {"a": 2}, "outputs": "o"}]
    assert ledger.write(lambda tx: evalsets.merge_records(tx, ident, first, now_ms=2), what="test") == (2, 0)
    second: list[Data] = [{"inputs": {"b": 2, "a": 1}, "expectations": {"y": 2}, "tags": {"mlflow.user": "me"}}]
    assert ledger.write(lambda tx: evalsets.merge_records(tx, ident, second, now_ms=3), what="test") == (0, 1)
    one, two = evalsets.records_of(ledger, ident)
    assert (one.expectations, one.updated_by, one.created_by) == ({"x": 1, "y": 2}, "me", None)
    assert one.outputs is msgspec.UNSET and two.outputs == "o"
    assert [record.id for record in evalsets.records_of(ledger, ident, after=one.place)] == [two.id]
    found = evalsets.get_evalset(ledger, ident)
    assert (found.profile, found.updated_by) == ('{"num_records":2}', "me")
    assert msgspec.json.decode(found.schema or "")["inputs"] == {"a": "integer", "b": "integer"}
    assert ledger.write(lambda tx: evalsets.drop_records(tx, ident, [two.id, "none"]), what="test") == 1


def test_finding_linking_and_dropping(ledger: Ledger) -> None:
    """Datasets are found by name, tag and experiment, page by page, and a dropped one leaves nothing."""
    idents = [_made(ledger, name, at) for at, name in enumerate(("a", "b", "c"))]

    def names(**asked: object) -> list[str]:
        return [one.name for one in evalsets.search_evalsets(ledger, **asked)[0]]  # type: ignore[arg-type]

    assert names() == ["c", "b", "a"] and names(experiments=[0], order=["name"]) == ["a", "b", "c"]
    assert names(filter="tags.t = 'b' AND created_time > 0") == ["b"] and names(experiments=[7]) == []
    page, token = evalsets.search_evalsets(ledger, most=2)
    rest, last = evalsets.search_evalsets(ledger, most=2, token=token)
    assert [one.name for one in (*page, *rest)] == ["c", "b", "a"] and last == ""
    ledger.write(lambda tx: evalsets.unlink(tx, idents[0], [0]), what="test")
    assert names(experiments=[0]) == ["c", "b"]
    ledger.write(lambda tx: evalsets.tag_evalset(tx, idents[0], {"t": None, "u": "v"}, now_ms=9), what="test")
    assert evalsets.get_evalset(ledger, idents[0]).tags == {"u": "v"}
    for _ in "ab":
        ledger.write(lambda tx: evalsets.drop_evalset(tx, idents[0]), what="test")
    with pytest.raises(NotFound):
        evalsets.get_evalset(ledger, idents[0])
    with pytest.raises(NotFound):
        ledger.write(lambda tx: evalsets.link(tx, idents[1], [99]), what="test")
