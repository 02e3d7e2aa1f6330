"""Predictions, labels and offsets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.store.builders import write
from trimtab.core.errors import WrongUse
from trimtab.store import calls
from trimtab.store.calls import CallRow, LabelRow
from trimtab.store.intake import Offset
from trimtab.store.ledger import Ledger


def _call(number: int, **fields: Any) -> CallRow:
    row: dict[str, Any] = {
        "prediction_id": f"{number:032x}.0", "request_id": f"{number:032x}", "row": 0, "endpoint_id": "end_1",
        "deployment_id": "dep_1", "version_id": "ver_1", "at": number * 1_000_000, "candidate": False, "weight": 0.9,
        "candidate_weight": 0.1, "status": 200, "latency_us": 1500, "prediction": {"late": True}, "score": 0.25,
    }  # fmt: skip
    return CallRow(**{**row, **fields})


def _label(number: int, label: Any, arrived: int, **fields: Any) -> LabelRow:
    row = {"prediction_id": f"{number:032x}.0", "endpoint_id": "end_1", "label": label, "at": arrived - 1}
    return LabelRow(**{**row, "arrived_at": arrived, **fields})


def test_the_first_prediction_of_an_id_stands(ledger: Ledger) -> None:
    """Recording an id again changes nothing and is not counted as new."""
    one, two = _call(1), _call(2, prediction=None, score=None, candidate=True)
    assert write(ledger, calls.record_calls, [one, two, _call(1, weight=0.5)]) == 2
    assert write(ledger, calls.record_calls, [_call(2, score=0.9), _call(3, prediction="late")]) == 1
    keys = [(row.endpoint_id, row.prediction_id) for row in (one, two)]
    found = calls.find_calls(ledger, [*keys, ("end_1", "unknown"), ("end_2", one.prediction_id)])
    assert found == dict(zip(keys, (one, two), strict=True))


def test_an_id_may_be_used_for_several_endpoints(ledger: Ledger) -> None:
    """What one caller's action asks of two endpoints under one id is two predictions with two labels."""
    rows = [_call(1), _call(1, endpoint_id="end_2", at=7)]
    assert write(ledger, calls.record_calls, rows) == 2
    assert {row.endpoint_id for row in calls.calls_of(ledger, [rows[0].prediction_id])} == {"end_1", "end_2"}
    labels = [_label(1, True, 10), _label(1, False, 11, endpoint_id="end_2")]
    assert write(ledger, calls.record_labels, labels) == (2, 0)
    for name, label in (("end_1", True), ("end_2", False)):
        (found,) = calls.labelled(ledger, name, 0, 100)
        assert (found.call.endpoint_id, found.label) == (name, label)


def test_many_predictions_are_found_at_once(ledger: Ledger) -> None:
    """More ids than a statement takes parameters are found all the same."""
    rows = [_call(number) for number in range(1, 1300)]
    assert write(ledger, calls.record_calls, rows) == len(rows)
    assert len(calls.find_calls(ledger, ((row.endpoint_id, row.prediction_id) for row in rows))) == len(rows)


def test_a_score_that_is_no_number_is_refused_by_name(ledger: Ledger) -> None:
    """A NaN score is refused with its column's name, and nothing of the batch is kept."""
    with pytest.raises(WrongUse, match="NaN") as caught:
        write(ledger, calls.record_calls, [_call(1), _call(2, score=float("nan"))])
    assert caught.value.where == "score"
    assert calls.calls_of(ledger, [_call(1).prediction_id]) == []


def test_labels_are_new_or_the_same_or_a_correction(ledger: Ledger) -> None:
    """The same label again is a duplicate; another one corrects it, and what it said before is kept."""
    write(ledger, calls.record_calls, [_call(1), _call(2)])
    assert write(ledger, calls.record_labels, [_label(1, True, 10), _label(2, None, 10)]) == (2, 0)
    assert write(ledger, calls.record_labels, [_label(1, True, 20)]) == (0, 1)
    assert write(ledger, calls.record_labels, [_label(1, False, 30), _label(2, None, 30)]) == (1, 1)
    found = calls.labelled(ledger, "end_1", 0, 100)
    assert [(one.label, one.arrived_at) for one in found] == [(False, 10), (None, 10)]
    assert calls.corrections(ledger, "end_1", _call(1).prediction_id) == [_label(1, True, 30, at=9)]
    assert calls.corrections(ledger, "end_1", _call(2).prediction_id) == []


def test_labelled_predictions_come_once_each_by_arrival(ledger: Ledger) -> None:
    """Windows of arrival times that meet tell every labelled prediction once, ordered by event time."""
    write(ledger, calls.record_calls, [_call(n) for n in (3, 1, 2)])
    write(ledger, calls.record_labels, [_label(2, 1, 10), _label(1, 1, 20), _label(3, 1, 20), _label(9, 1, 20)])
    first = calls.labelled(ledger, "end_1", 0, 10)
    second = calls.labelled(ledger, "end_1", 10, 20)
    assert [one.call for one in first] == [_call(2)]
    assert [one.call for one in second] == [_call(1), _call(3)]
    assert calls.labelled(ledger, "end_2", 0, 100) == []


def test_offsets_move_with_what_was_read(ledger: Ledger) -> None:
    """An offset is zero at first, and moves only together with the transaction that read."""
    assert calls.get_offset(ledger, "calls") == Offset(0, 0)
    write(ledger, calls.put_offset, "calls", Offset(3, 4096))

    def torn(tx: Any) -> None:
        calls.put_offset(tx, "calls", Offset(9, 9))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ledger.write(torn, what="torn")
    assert calls.get_offset(ledger, "calls") == Offset(3, 4096)
    assert calls.get_offset(ledger, "labels") == Offset(0, 0)


def test_rows_travel(ledger: Ledger) -> None:
    """A row survives msgspec, so that processes can hand it on."""
    row = _call(1)
    assert msgspec.json.decode(msgspec.json.encode(row), type=CallRow) == row
