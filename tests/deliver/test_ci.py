"""Workflows: valid, pinned, and their commands are what the story test executes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trimtab.core.errors import WrongUse
from trimtab.deliver.ci import PATHS, STEPS, Flavour, commands, workflow, write_workflow


@pytest.mark.parametrize("flavour", list(PATHS))
def test_workflow_runs_plan_run_and_gates(flavour: Flavour) -> None:
    """Every step is in the workflow, in order."""
    assert commands(flavour, workflow(flavour)) == [command for _, command in STEPS]


def test_actions_are_pinned_by_commit() -> None:
    """No action is used by a name that can be moved."""
    used = re.findall(r"uses: (\S+)", workflow("github"))
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used)


def test_a_changed_workflow_is_not_overwritten(tmp_path: Path) -> None:
    """What somebody edited stays."""
    path = write_workflow(tmp_path, "github")
    assert write_workflow(tmp_path, "github") == path
    path.write_text("mine")
    with pytest.raises(WrongUse, match="differs"):
        write_workflow(tmp_path, "github")
    with pytest.raises(WrongUse, match="github or azure"):
        workflow("gitlab")  # type: ignore[arg-type]
