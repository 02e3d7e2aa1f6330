"""The key of a step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab import check as ck
from trimtab.core.declare import Declaration
from trimtab.core.digest import digest
from trimtab.core.nouns import Data
from trimtab.pipeline.keys import changes, diff_fields, in_words, key_fields, step_key
from trimtab.pipeline.manifest import Manifest, checks_data, step_digest

BASE: dict[str, Any] = {
    "inputs": {"a": "d1"},
    "references": {"m@champion": ""},
    "params": {"depth": 3},
    "runtime": {"lock": "l1", "python": "3.11"},
    "extra": {"data/a.csv": "d9"},
    "spec": {"layer": "silver"},
    "checks": (ck.unique("id"),),
    "code": {"steps.t": "c1"},
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def _both(**changed: Any) -> tuple[Data, str]:
    use = {**BASE, **changed}
    node = Declaration(
        name="t",
        kind="table",
        module="steps",
        qualname="t",
        file="steps.py",
        line=use.get("line", 1),
        inputs=("a",),
        frames={"a": use.get("frame", "")},
        spec=use["spec"],
        checks=use["checks"],
    )
    manifest = Manifest(
        project="p",
        declarations=[node],
        endpoints=[],
        automations=[],
        code={"t": use["code"]},
        steps={"t": step_digest(node, use["code"])},
        checks={"t": digest(checks_data(node))},
        snapshot={},
    )
    same = {name: use[name] for name in ("inputs", "references", "params", "extra")}
    judged = use.get("judged", True)
    fields = key_fields("make:t", node, manifest, runtime=use["runtime"], judged=judged, **same)
    key = step_key("make:t", node, manifest, runtime=digest(use["runtime"]), judged=judged, **same)
    return fields, key


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"inputs": {"a": "d2"}}, "inputs.a", "input a changed"),
        ({"references": {"m@champion": "d3"}}, "references.m@champion", "reference m@champion changed"),
        ({"params": {"depth": 4}}, "params.depth", "param depth changed"),
        ({"params": {"depth": 3.0}}, "params.depth", "param depth changed"),
        ({"runtime": {"lock": "l2", "python": "3.11"}}, "runtime.lock", "runtime lock changed"),
        ({"extra": {"data/b.csv": "d9"}}, "extra.data/b.csv", "data/b.csv is new; data/a.csv is gone"),
        ({"spec": {"layer": "gold"}}, "spec.layer", "option layer changed"),
        ({"spec": {"layer": "silver", "seed": 1}}, "seed", "seed changed"),
        ({"checks": (ck.unique("id2"),)}, "checks.unique(id2)", "check unique(id2) is new"),
        ({"code": {"steps.t": "c2"}}, "code.steps.t", "code of steps.t changed"),
        ({"frame": "pandas.DataFrame"}, "spec.frames.a", "option frames.a changed"),
    ],
)
def test_every_field_counts_and_is_named(changed: Any, field: str, words: str) -> None:
    """A change of any field changes the key and is told by the field's name, in words."""
    before, after = _both(), _both(**changed)
    assert before[1] != after[1]
    assert field in diff_fields(before[0], after[0])
    assert words in in_words(changes(before[0], after[0]))


@pytest.mark.parametrize(
    "changed",
    [
        {"spec": {"layer": "silver", "owner": "me", "fresh": "2d"}},
        {"line": 99},
        {"inputs": dict(reversed(BASE["inputs"].items()))},
    ],
)
def test_what_does_not_count(changed: Any) -> None:
    """Owner, freshness and line leave the key as it is."""
    before, after = _both(), _both(**changed)
    assert before[1] == after[1] and not changes(before[0], after[0])


def test_checks_count_where_they_judge() -> None:
    """A step that does not judge has a key without checks."""
    other = (ck.unique("other"),)
    assert _both(judged=False)[1] == _both(judged=False, checks=other)[1]


def test_long_lists_are_counted() -> None:
    """A reason names a few changes and counts the rest; the field list has all of them."""
    found = changes({"extra": {}}, {"extra": {f"f{i}": "d" for i in range(9)}})
    assert len(found) == 9 and in_words(found).endswith("and 5 more")


@given(
    st.fixed_dictionaries({"params": st.dictionaries(st.text(max_size=3), PLAIN, max_size=3)}),
    st.fixed_dictionaries({"params": st.dictionaries(st.text(max_size=3), PLAIN, max_size=3)}),
)
def test_keys_agree_with_fields(one: Data, two: Data) -> None:
    """Keys are equal exactly when the recorded fields have equal canonical bytes."""
    first, second = _both(**one), _both(**two)
    assert (first[1] == second[1]) == (digest(first[0]) == digest(second[0]))


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=2), min_size=1, max_size=4))
def test_no_change_no_difference(extra: dict[str, str]) -> None:
    """A set of fields does not differ from itself, and each gone entry is told once."""
    fields = {"extra": extra}
    assert changes(fields, fields) == []
    assert len(changes(fields, {"extra": {}})) == len(extra)
