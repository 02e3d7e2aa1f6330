"""Labels: checked as a whole, durable, counted once, corrections kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.stand import START, Traffic, deploy, make_version, put_endpoint
from trimtab.core.errors import BadInput, NotFound
from trimtab.serve.frames import decode_label, labels_folder
from trimtab.serve.labels import MOST, accept_labels
from trimtab.store.calls import corrections
from trimtab.store.intake import Offset, read
from trimtab.store.live import need_endpoint
from trimtab.store.store import Store


@pytest.fixture
def ids(store: Store) -> list[str]:
    """Return the ids of three predictions of ``api``."""
    deploy(store, put_endpoint(store), make_version(store), share=100)
    with Traffic(store) as traffic:
        return traffic.send(3, START)


def _kept(store: Store) -> list[Any]:
    payloads, _ = read(labels_folder(store.home.intake), Offset(0, 0))
    assert all(decode_label(payload).endpoint_id for payload in payloads)
    return store.ledger.query("SELECT prediction_id FROM label ORDER BY prediction_id")


def test_labels_are_counted(store: Store, ids: list[str]) -> None:
    """New ones, the same again, and corrections have counts of their own; what was said before is kept."""
    items = [{"prediction_id": one, "label": True} for one in ids]
    assert accept_labels(store, "api", items, START) == {"accepted": 3, "duplicates": 0, "corrections": 0}
    assert accept_labels(store, "api", items, START) == {"accepted": 0, "duplicates": 3, "corrections": 0}
    changed = [{"prediction_id": ids[0], "label": False, "at": "2026-01-02T00:00:00Z"}]
    endpoint = need_endpoint(store.ledger, "api").id
    assert accept_labels(store, "api", changed, START) == {"accepted": 1, "duplicates": 0, "corrections": 1}
    assert [one.label for one in corrections(store.ledger, endpoint, ids[0])] == [True]
    assert len(_kept(store)) == 3


def test_one_batch_may_name_a_prediction_twice(store: Store, ids: list[str]) -> None:
    """The second label of a batch is a duplicate or a correction of the first."""
    items = [{"prediction_id": ids[0], "label": True}] * 2 + [{"prediction_id": ids[0], "label": False}]
    assert accept_labels(store, "api", items, START) == {"accepted": 2, "duplicates": 1, "corrections": 1}


@pytest.mark.parametrize("unknown", ["f" * 32 + ".0", "0" * 32 + ".1", "0" * 32 + ".failed", "../../etc", "x" * 5000])
def test_an_unknown_prediction_refuses_the_whole_batch(store: Store, ids: list[str], unknown: str) -> None:
    """The id and its place are named, and nothing of the batch is kept anywhere."""
    with Traffic(store) as traffic:
        traffic.send(1, START, status=lambda candidate, number: 500)
    items = [{"prediction_id": ids[0], "label": True}, {"prediction_id": unknown, "label": True}]
    with pytest.raises(NotFound) as caught:
        accept_labels(store, "api", items, START)
    assert unknown[:60] in caught.value.message and caught.value.where == "labels[1].prediction_id"
    assert _kept(store) == [] and read(labels_folder(store.home.intake), Offset(0, 0))[0] == []


@pytest.mark.parametrize(
    ("item", "where"),
    [
        ({"label": 1 << 64}, "labels[0].label"),
        ({"label": -(1 << 63) - 1}, "labels[0].label"),
        ({"label": True, "at": "9999-12-31T23:59:59-12:00"}, "labels[0].at"),
        ({"label": True, "at": "0001-01-01T00:00:00+14:00"}, "labels[0].at"),
    ],
)
def test_values_out_of_range_are_named(store: Store, ids: list[str], item: dict[str, Any], where: str) -> None:
    """A number or a time that cannot be kept exactly is the sender's mistake, not a fault."""
    with pytest.raises(BadInput) as caught:
        accept_labels(store, "api", [{"prediction_id": ids[0], **item}], START)
    assert caught.value.where == where


def test_predictions_of_another_endpoint_are_unknown(store: Store, ids: list[str]) -> None:
    """A label goes to the endpoint that made the prediction."""
    put_endpoint(store, name="other")
    with pytest.raises(NotFound, match="other made no prediction"):
        accept_labels(store, "other", [{"prediction_id": ids[0], "label": True}], START)
    with pytest.raises(NotFound, match="did you mean 'api'"):
        accept_labels(store, "apu", [{"prediction_id": ids[0], "label": True}], START)


@pytest.mark.parametrize(
    ("items", "where"),
    [
        ({}, "labels"),
        ([], "labels"),
        ([{"prediction_id": "x.0", "label": 1}] * (MOST + 1), "labels"),
        ([5], "labels[0]"),
        ([{"label": True}], "labels[0].prediction_id"),
        ([{"prediction_id": 5, "label": True}], "labels[0].prediction_id"),
        ([{"prediction_id": "x.0"}], "labels[0].label"),
        ([{"prediction_id": "x.0", "label": None}], "labels[0].label"),
        ([{"prediction_id": "x.0", "label": [1]}], "labels[0].label"),
        ([{"prediction_id": "x.0", "label": float("nan")}], "labels[0].label"),
        ([{"prediction_id": "x.0", "label": 1, "weight": 2}], "labels[0].weight"),
        ([{"prediction_id": "x.0", "label": 1, "at": "yesterday"}], "labels[0].at"),
        ([{"prediction_id": "x.0", "label": 1, "at": 5}], "labels[0].at"),
    ],
)
def test_bad_labels_are_told_where(store: Store, ids: list[str], items: Any, where: str) -> None:
    """The path of the bad field is named."""
    with pytest.raises(BadInput) as caught:
        accept_labels(store, "api", items, START)
    assert caught.value.where == where and caught.value.fix


@pytest.mark.parametrize(
    ("task", "classes", "good", "bad", "says"),
    [
        ("binary", [False, True], [True, "false", 1, 0.0], ["yes", 2, "1"], "send one of false, true"),
        ("binary", ["late", "on time"], ["late"], [True, "soon", 3], 'send one of "late", "on time"'),
        ("multiclass", ["a", "b", "c"], ["a", "new"], [True, 3], 'send one of "a", "b", "c"'),
        ("multiclass", list(range(20)), [3, 3.0, 25], ["soon"], "and 10 more"),
        ("regression", None, [1, -2.5], ["soon", True, "1.5"], "such as 12.5"),
    ],
)
def test_a_label_that_can_be_no_truth_is_refused(
    store: Store, task: str, classes: list[Any] | None, good: list[Any], bad: list[Any], says: str
) -> None:
    """What no monitor could count is refused with the classes named, before anything is kept."""
    version = make_version(store, task=task, classes=classes)
    deploy(store, put_endpoint(store), version, share=100)
    with Traffic(store) as traffic:
        (ident,) = traffic.send(1, START)
    for label in bad:
        with pytest.raises(BadInput) as caught:
            accept_labels(store, "api", [{"prediction_id": ident, "label": label}], START)
        assert caught.value.where == "labels[0].label" and says in caught.value.fix
    assert _kept(store) == []
    for label in good:
        assert accept_labels(store, "api", [{"prediction_id": ident, "label": label}], START)["accepted"]
