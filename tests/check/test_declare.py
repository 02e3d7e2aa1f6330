"""Constructors of checks refuse arguments that cannot be meant, with their place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from trimtab import check as ck
from trimtab.core.errors import ProjectError
from trimtab.core.nouns import Check

# Without types: what stands here is wrong on purpose.
CK: Any = ck
NAN, INF = float("nan"), float("inf")
JUNE, JULY = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CK.unique(), "ck.unique: no columns"),
        (lambda: CK.unique(5), "ck.unique: columns=5"),
        (lambda: CK.unique(["a", "b"]), r"ck.unique: columns=\['a', 'b'\] is a list"),
        (lambda: CK.unique(""), "ck.unique: columns='' is empty"),
        (lambda: CK.unique("a", at_most=2), "ck.unique: at_most=2 is not a share"),
        (lambda: CK.unique("a", at_most=NAN), "at_most=nan is not a share"),
        (lambda: CK.unique("a", approximate="no"), "approximate='no'"),
        (lambda: CK.unique("a", severity="error"), "severity='error' is unknown"),
        (lambda: CK.unique("a", severity=[]), r"severity=\[\] is unknown"),
        (lambda: CK.missing(5), "ck.missing: column=5"),
        (lambda: CK.missing("a", keep=None), "keep=None"),
        (lambda: CK.missing("a", at_most="1%"), "at_most='1%'"),
        (lambda: CK.between("a"), "low, high or both"),
        (lambda: CK.between(5, 1, 2), "ck.between: column=5"),
        (lambda: CK.between("a", 5, 1), "ck.between: high=1 is below low=5"),
        (lambda: CK.between("a", "b", "a"), "high='a' is below low='b'"),
        (lambda: CK.between("a", "9", "10"), "letter by letter"),
        (lambda: CK.between("a", "2024-02-01", "2024-01-01"), "high='2024-01-01' is below"),
        (lambda: CK.between("a", JULY, JUNE), "high=datetime.* is below"),
        (lambda: CK.between("a", NAN), "ck.between: low=nan"),
        (lambda: CK.between("a", 0, INF), "ck.between: high=inf"),
        (lambda: CK.between("a", 0, "9"), "high='9' is of another type than low=0"),
        (lambda: CK.between("a", [1]), r"ck.between: low=\[1\] is a list"),
        (lambda: CK.one_of("a", []), r"ck.one_of: values=\[\] has no value"),
        (lambda: CK.one_of("a", "abc"), "ck.one_of: values='abc' is of type [a-zA-Z]+, not a list"),
        (lambda: CK.one_of("a", 5), "ck.one_of: values=5 is of type [a-zA-Z]+, not a list"),
        (lambda: CK.one_of("a", {"x", "y"}), "ck.one_of: values=.* is of type set, not a list"),
        (lambda: CK.one_of("a", {"x": 1}), "ck.one_of: values=.* is of type dict, not a list"),
        (lambda: CK.one_of("a", [[1]]), r"ck.one_of: values=\[\[1\]\] has \[1\]"),
        (lambda: CK.one_of("a", [NAN]), "ck.one_of: values: an item=nan"),
        (lambda: CK.one_of(5, ["a"]), "ck.one_of: column=5"),
        (lambda: CK.matches("a", 5), "ck.matches: pattern=5"),
        (lambda: CK.matches("a", "("), r"ck.matches: pattern='\(' is no regular expression"),
        (lambda: CK.matches(5, "a"), "ck.matches: column=5"),
        (lambda: CK.where(""), "ck.where: condition='' is empty"),
        (lambda: CK.where(5), "ck.where: condition=5"),
        (lambda: CK.where("a > 1", name=5), "ck.where: name=5"),
        (lambda: CK.row_count(5, 1), "ck.row_count: high=1 is below low=5"),
        (lambda: CK.row_count("a"), "ck.row_count: low='a'"),
        (lambda: CK.row_count(-1), "ck.row_count: low=-1"),
        (lambda: CK.row_count(1, "b"), "ck.row_count: high='b'"),
        (lambda: CK.row_count(1.5), "ck.row_count: low=1.5"),
        (lambda: CK.row_count(NAN), "ck.row_count: low=nan"),
        (lambda: CK.columns("a", exactly=1), "ck.columns: exactly=1"),
        (lambda: CK.metric("acuracy", above=0.5), "ck.metric: name='acuracy' is unknown; did you mean 'accuracy'"),
        (lambda: CK.metric(["auc"], above=0.5), r"ck.metric: name=\['auc'\]"),
        (lambda: CK.metric("auc", above="x"), "ck.metric: above='x'"),
        (lambda: CK.metric("auc", below=NAN), "ck.metric: below=nan"),
        (lambda: CK.metric("auc"), "above or below"),
        (lambda: CK.metric("auc", above=0.5, sure="yes"), "sure='yes'"),
        (lambda: CK.beats(on="acu"), "ck.beats: on='acu' is unknown"),
        (lambda: CK.beats(5, on="auc"), "ck.beats: champion=5"),
        (lambda: CK.beats(on="auc", minimum=-5), "ck.beats: minimum=-5"),
        (lambda: CK.beats(on="auc", margin="a"), "ck.beats: margin='a'"),
        (lambda: CK.beats(on="auc", level=1), "ck.beats: level=1"),
        (lambda: CK.latency(5), "ck.latency: limit=5"),
        (lambda: CK.latency("0s"), "ck.latency: limit='0s'"),
        (lambda: CK.latency("fast"), "ck.latency: limit='fast' is not a duration"),
        (lambda: CK.outcome(5), "ck.outcome: label=5"),
        (lambda: CK.outcome(threshold=9), "ck.outcome: threshold=9"),
        (lambda: CK.outcome(threshold="a"), "ck.outcome: threshold='a'"),
        (lambda: CK.drift(5), "ck.drift: calls=5"),
        (lambda: CK.drift("api.calls", against="last"), "against='last' is unknown"),
        (lambda: CK.drift("api.calls", batch=0), "ck.drift: batch=0"),
        (lambda: CK.drift("api.calls", batch="100"), "ck.drift: batch='100'"),
        (lambda: CK.drift("api.calls", false_alarms=0), "ck.drift: false_alarms=0 is no budget"),
        (lambda: CK.drift("api.calls", false_alarms=1), "false_alarms=1 is no budget"),
        (lambda: CK.drift("api.calls", false_alarms=None), "false_alarms=None is no budget"),
        (lambda: CK.drift("api.calls", false_alarms="0/year"), "false_alarms='0/year'"),
        (lambda: CK.drift("api.calls", false_alarms="inf/year"), "false_alarms='inf/year'"),
        (lambda: CK.drift("api.calls", false_alarms="1/eon"), "false_alarms='1/eon'"),
        (lambda: CK.drift("api.calls", material=1), "ck.drift: material=1"),
        (lambda: CK.drift("api.calls", material="a"), "ck.drift: material='a'"),
        (lambda: CK.drift("api.calls", columns=5), "ck.drift: columns=5"),
        (lambda: CK.drift("api.calls", columns=[]), r"ck.drift: columns=\[\] names no column"),
        (lambda: CK.drift("api.calls", block="0d"), "ck.drift: block='0d'"),
        (lambda: CK.drift("api.calls", block=None), "ck.drift: block=None"),
        (lambda: CK.performance(5), "ck.performance: endpoint=5"),
        (lambda: CK.performance("api", on="auc"), "ck.performance: on='auc' is unknown"),
        (lambda: CK.performance("api", batch=0), "ck.performance: batch=0"),
        (lambda: CK.performance("api", material=-1), "ck.performance: material=-1"),
        (lambda: CK.performance("api", block="x"), "ck.performance: block='x'"),
    ],
)
def test_wrong_arguments_are_told_at_their_place(make: Callable[[], Any], says: str) -> None:
    """Each names the argument, its value, the file and what to write instead."""
    with pytest.raises(ProjectError, match=says) as caught:
        make()
    assert "test_declare.py:" in caught.value.where and caught.value.fix
    assert len(caught.value.message) < 300


def test_long_values_are_cut() -> None:
    """A value is shown with at most 80 characters."""
    with pytest.raises(ProjectError, match=r"values='x{78}… is of type [a-zA-Z]+, not a list"):
        CK.one_of("a", "x" * 500)


@pytest.mark.parametrize(
    ("check", "name", "value"),
    [
        (CK.drift("api.calls", columns="age"), "columns", ["age"]),
        (CK.drift("api.calls", columns=("a", "b")), "columns", ["a", "b"]),
        (CK.drift("api.calls", false_alarms="0.5/month"), "false_alarms", "0.5/month"),
        (CK.one_of("a", range(2)), "values", [0, 1]),
        (CK.one_of("a", [True, None, "b", JUNE]), "values", [True, None, "b", JUNE]),
        (CK.between("a", 5, 5), "high", 5),
        (CK.between("a", "2024-06-01T00:00:00Z", JUNE), "high", JUNE),
        (CK.between("a", "2024-01-02T00:00:00+09:00", "2024-01-01T20:00:00Z"), "high", "2024-01-01T20:00:00Z"),
        (CK.row_count(0, 0), "high", 0),
        (CK.beats(on="auc", margin=-1, minimum=0), "margin", -1.0),
        (CK.metric("r2", above=-2), "above", -2),
        (CK.outcome(threshold=1), "threshold", 1.0),
        (CK.performance("api", material=0), "material", 0.0),
    ],
)
def test_good_arguments_pass(check: Check, name: str, value: Any) -> None:
    """What is on the edge of the refused is taken, and a lone column is a list of one."""
    assert check.params[name] == value
