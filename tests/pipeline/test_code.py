"""Digests of a step's code and of the first-party code that it calls."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from trimtab.core.errors import ProjectError
from trimtab.pipeline.code import CodeIndex
from trimtab.pipeline.files import own_files

STEP = """
import math

import trimtab as tt
from helpers import clean, unrelated_helper
import helpers as h

LIMIT = 3
RULES = []
RULES.append("a")


@tt.table(layer="silver", owner="me")
def flights(raw):
    '''What it makes.'''
    return [clean(row) for row in raw if row < LIMIT and RULES]


def other(raw):
    return unrelated_helper(raw)


class Tool:
    def use(self, row):
        return h.deep(row)


def by_tool(raw):
    return Tool().use(raw)


def by_name(raw):
    return getattr(h, "deep")(raw)


def shadowed(flights):
    other = flights
    return other
"""
HELPERS = """
def clean(row):
    # comment
    return deep(row)


def deep(row):
    return row * FACTOR


FACTOR = 2


def unrelated_helper(row):
    return row
"""


def _parts(folder: Path, name: str, *, module: str = "steps", **files: str) -> dict[str, str]:
    sources = {"steps": STEP, "helpers": HELPERS, **files}
    for path, text in sources.items():
        target = folder / f"{path.replace('_in_', '/').replace('package', '__init__')}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
    return CodeIndex(folder, own_files(folder)).parts(module, name)


def test_follows_functions_and_constants(tmp_path: Path) -> None:
    """A step's code is itself and all that it names, through imports, with what changes it."""
    found = _parts(tmp_path, "flights")
    assert {key for key in found if "<" not in key} == {
        "steps.flights",
        "steps.LIMIT",
        "steps.RULES",
        "helpers.clean",
        "helpers.deep",
        "helpers.FACTOR",
    }


def test_follows_classes(tmp_path: Path) -> None:
    """A class counts with all its methods, and a module's attribute like a name."""
    assert set(_parts(tmp_path, "by_tool")) == {
        "steps.by_tool",
        "steps.Tool",
        "helpers.deep",
        "helpers.FACTOR",
    }


def test_bare_module_counts_whole(tmp_path: Path) -> None:
    """Where a module is used as a value, all of it counts."""
    assert "helpers.unrelated_helper" in _parts(tmp_path, "by_name")


def test_local_names_are_not_module_names(tmp_path: Path) -> None:
    """A parameter or local variable that is called like a function of the module is not that function."""
    assert set(_parts(tmp_path, "shadowed")) == {"steps.shadowed"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# comment", "# another comment"),
        ("return deep(row)", "return   deep(\n        row\n    )"),
        ("    # comment\n", "    '''A docstring.'''\n"),
        ("def unrelated_helper(row):\n    return row", "def unrelated_helper(row):\n    return row + 1"),
    ],
)
def test_what_does_not_count(tmp_path: Path, old: str, new: str) -> None:
    """Comments, formatting, docstrings and unrelated functions do not change a step's code."""
    before = _parts(tmp_path, "flights")
    assert HELPERS.replace(old, new) != HELPERS
    assert _parts(tmp_path, "flights", helpers=HELPERS.replace(old, new)) == before


def test_decorator_options_do_not_count(tmp_path: Path) -> None:
    """What stands in Trimtab's own decorators is the declaration's business."""
    changed = STEP.replace('owner="me"', 'owner="you"').replace("What it makes", "What it does")
    assert _parts(tmp_path, "flights", steps=changed) == _parts(tmp_path, "flights", steps=STEP)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("FACTOR = 2", "FACTOR = 3", "helpers.FACTOR"),
        ("return row * FACTOR", "return row + FACTOR", "helpers.deep"),
        ("return deep(row)", "return deep(row) + 1", "helpers.clean"),
    ],
)
def test_what_counts(tmp_path: Path, old: str, new: str, part: str) -> None:
    """A helper that a step calls, however deep, changes exactly its own part."""
    before = _parts(tmp_path, "flights")
    after = _parts(tmp_path, "flights", helpers=HELPERS.replace(old, new))
    assert {key for key in before if before[key] != after[key]} == {part}


def test_changes_of_module_state_count(tmp_path: Path) -> None:
    """A statement that changes a constant counts as part of it."""
    before = _parts(tmp_path, "flights")
    after = _parts(tmp_path, "flights", steps=STEP.replace('append("a")', 'append("b")'))
    assert before["steps.RULES"] != after["steps.RULES"]


def test_statements_that_bind_nothing_count(tmp_path: Path) -> None:
    """A statement such as a warning filter counts for each step of its module."""
    after = _parts(tmp_path, "flights", steps=STEP + "\nmath.sqrt(2)\n")
    assert "steps.<module>" in after
    assert "steps.<module>" not in _parts(tmp_path, "flights", steps=STEP)


def test_imports_from_outside_count_by_name(tmp_path: Path) -> None:
    """Taking another function from another package is a change."""
    one = "from math import sin as f\ndef step(x):\n    return f(x)\n"
    two = one.replace("sin", "cos")
    assert _parts(tmp_path, "step", steps=one) != _parts(tmp_path, "step", steps=two)


def test_swapped_aliases_count(tmp_path: Path) -> None:
    """Two functions that change their names change the step, though the set of units stays."""
    one = "from helpers import clean as a, deep as b\ndef step(x):\n    return a(x) - b(x)\n"
    two = one.replace("clean as a, deep as b", "clean as b, deep as a")
    assert _parts(tmp_path, "step", steps=one) != _parts(tmp_path, "step", steps=two)


def test_packages_relative_imports_and_re_exports(tmp_path: Path) -> None:
    """Names are followed through packages, relative imports, re-exports and stars."""
    found = _parts(
        tmp_path,
        "step",
        module="pkg.steps",
        pkg_in_package="from .inner import deep\n",
        pkg_in_inner="from .stars import *\ndef deep(x): return starred(x)\ndef more(x): return x\n",
        pkg_in_stars="def starred(x):\n    return x\n",
        pkg_in_steps="import pkg.inner\nfrom . import deep\ndef step(x): return deep(x), pkg.inner.more(x)\n",
    )
    assert set(found) == {"pkg.steps.step", "pkg.inner.deep", "pkg.inner.more", "pkg.stars.starred"}


def test_imports_inside_functions(tmp_path: Path) -> None:
    """An import inside a function is followed like one at the top."""
    text = "def step(x):\n    from helpers import clean\n    return clean(x)\n"
    assert "helpers.deep" in _parts(tmp_path, "step", steps=text)


def test_recursion_and_cycles_end(tmp_path: Path) -> None:
    """Functions that call each other are counted once."""
    text = "def step(x):\n    return other(x)\n\ndef other(x):\n    return step(x)\n"
    assert set(_parts(tmp_path, "step", steps=text)) == {"steps.step", "steps.other"}


def test_foreign_module(tmp_path: Path) -> None:
    """A step that lives outside the project stands on its runtime."""
    assert _parts(tmp_path, "step", module="json") == {"json.step": ""}


def test_syntax_error_is_told(tmp_path: Path) -> None:
    """A helper that is no Python is named with its line."""
    with pytest.raises(ProjectError) as caught:
        _parts(tmp_path, "flights", helpers="def clean(:\n")
    assert caught.value.where.endswith("helpers.py:1")
