"""The extension point for kinds of assets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from trimtab.core.declare import Declaration
from trimtab.core.errors import Fault, NotFound
from trimtab.core.nouns import Version
from trimtab.pipeline import kinds
from trimtab.pipeline.kinds import StepContext, assets_made, kind_named, load_attribute, load_kind, override_kinds
from trimtab.testing.kinds import JsonStep

NODE = Declaration(
    name="t", kind="table", module="m", qualname="t", file="m.py", line=1, inputs=("a",), frames={"a": "pl.DataFrame"}
)


def _context(inputs: Mapping[str, Any]) -> StepContext:
    nothing = cast(Any, None)
    return StepContext(
        declaration=NODE,
        function=print,
        op="make",
        inputs=cast(Mapping[str, Version], inputs),
        params={},
        seed=0,
        now=nothing,
        run_id="",
        store=nothing,
        previous=None,
        references={},
        overrides={},
        project_root=Path(),
        runtime={},
        fingerprint={},
        assets={"t": "ast_1", "t.quarantine": "ast_2"},
    )


def test_kinds_are_found_by_name() -> None:
    """A kind is found by its name, and an unknown one gets the closest."""
    assert isinstance(kind_named("table"), JsonStep)
    with override_kinds({"prompt": "trimtab.testing.kinds:JsonStep"}):
        assert kind_named("prompt") is kind_named("table")
    with pytest.raises(NotFound, match="did you mean 'table'"):
        kind_named("tabel")


def test_what_is_no_kind_is_refused() -> None:
    """Something without steps is not taken for a kind."""
    with pytest.raises(Fault, match="StepKind"):
        load_kind("trimtab.core.declare:Registry")


def test_assets_made() -> None:
    """A kind makes its own asset, and those that it says."""

    class Quarantining(JsonStep):
        def makes(self, declaration: Declaration) -> dict[str, str]:
            return {f"{declaration.name}.quarantine": "table"}

    assert assets_made(JsonStep(), NODE) == {"t": "table"}
    assert assets_made(Quarantining(), NODE) == {"t": "table", "t.quarantine": "table"}


def test_context_loads_frames_by_annotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input is loaded as the frame type that its parameter's annotation names, or another one."""
    monkeypatch.setattr(kinds, "FRAME_LOADER", "json:dumps")
    monkeypatch.setattr(json, "dumps", lambda store, version, frame: (version, frame))
    load_attribute.cache_clear()
    context = _context({"a": 7})
    assert context.load("a") == (7, "pl.DataFrame")
    assert context.load("a", "") == (7, "")
    with pytest.raises(NotFound, match="no input 'b'"):
        context.load("b")
    load_attribute.cache_clear()


def test_table_ids() -> None:
    """A table is called by its asset's id."""
    context = _context({})
    assert context.table_id() == "ast_1" and context.table_id("t.quarantine") == "ast_2"
