"""Logging from inside a step."""

from __future__ import annotations

import pytest

from trimtab.core.context import Recorder, log, recording
from trimtab.core.errors import WrongUse


def test_log_outside_a_run_says_nothing() -> None:
    """A step can be called by a unit test."""
    log(auc=0.7)


def test_log_keeps_metrics_and_params_apart() -> None:
    """Numbers are metrics, other plain data are params."""
    with recording(Recorder()) as recorder:
        log(auc=0.7, step=2)
        log(kernel="rbf", flag=True)
    assert recorder.metrics == [("auc", 2, 0.7)]
    assert recorder.params == {"kernel": "rbf", "flag": True}


def test_log_refuses_what_it_cannot_keep() -> None:
    """What has no canonical form is refused by name."""
    with pytest.raises(WrongUse, match="cannot log model"):
        log(model=object())
