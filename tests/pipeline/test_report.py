"""How an execution ended."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.core import errors
from trimtab.pipeline.report import StageReport, exit_of, make_report


@pytest.mark.parametrize(
    "kind",
    [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.TrimtabError)],
)
def test_exit_codes_are_those_of_the_error_tree(kind: type[errors.TrimtabError]) -> None:
    """An error that is told as data has the exit code of its class."""
    assert exit_of(kind("x").as_data()) == kind.exit_code


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([("done", ""), ("reused", "")], 0),
        ([("failed", "GateFailed"), ("blocked", "")], 1),
        ([("failed", "GateFailed"), ("failed", "BadSource")], 2),
        ([("failed", "BadSource"), ("failed", "StepFailed")], 3),
        ([("cancelled", "")], 3),
        ([], 0),
    ],
)
def test_the_gravest_error_decides(states: list[tuple[Any, str]], code: int) -> None:
    """Faults outweigh wrong use, which outweighs a gate that said no."""
    stages = [
        StageReport(id=str(n), op="make", asset="a", state=state, error={"type": kind} if kind else {})
        for n, (state, kind) in enumerate(states)
    ]
    report = make_report("pln_1", stages)
    assert report.exit_code == code and report.ok == (code == 0)
