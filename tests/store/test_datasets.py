"""The data that runs of tracking clients read."""

from __future__ import annotations

from trimtab.store import facts, tracking
from trimtab.store.datasets import Dataset, Input, Summary, add_inputs, inputs_of, summaries
from trimtab.store.ledger import Ledger, Tx


def _read(name: str, digest: str, context: str | None) -> Input:
    tags = {} if context is None else {"mlflow.data.context": context}
    return Input(dataset=Dataset(name=name, digest=digest, source_type="local", source="{}", schema="{}"), tags=tags)


def test_inputs_are_versions_that_the_run_used(ledger: Ledger) -> None:
    """Each digest is a version; the same data of two runs is one; what was said first of one run stands."""

    def make(tx: Tx) -> tuple[str, str]:
        tracking.create_experiment(tx, "e", root="r", tags={}, now_ms=0, number=0)
        both = [tracking.create_run(tx, experiment=0, name="r", user_id="", start_ms=0, tags={}).id for _ in "ab"]
        return both[0], both[1]

    one, two = ledger.write(make, what="test")
    ledger.write(lambda tx: add_inputs(tx, one, [_read("d", "1", "train"), _read("d", "2", None)]), what="test")
    ledger.write(lambda tx: add_inputs(tx, one, [_read("d", "1", "other")]), what="test")
    ledger.write(lambda tx: add_inputs(tx, two, [_read("d", "1", "test")]), what="test")
    found = inputs_of(ledger, [f"run_{one}", f"run_{two}"])
    assert found[f"run_{one}"] == [_read("d", "1", "train"), _read("d", "2", None)]
    assert found[f"run_{two}"] == [_read("d", "1", "test")]
    used = {ident: facts.used_by(ledger, f"run_{ident}") for ident in (one, two)}
    assert len(used[one]) == 2 and used[two][0][0].id in {version.id for version, _ in used[one]}
    assert {(version.number, version.digest) for version, _ in used[one]} == {(1, "1"), (2, "2")}
    assert summaries(ledger, [0]) == [
        Summary(experiment=0, name="d", digest="1", context="test"),
        Summary(experiment=0, name="d", digest="1", context="train"),
        Summary(experiment=0, name="d", digest="2", context=None),
    ]
    assert summaries(ledger, [1]) == [] and summaries(ledger, []) == []
