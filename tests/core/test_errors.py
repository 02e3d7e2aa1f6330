"""Errors say what, where and how to mend it, also across processes."""

from __future__ import annotations

import pickle

from trimtab.core.errors import ProjectError, Refused, TrimtabError, WrongUse, closest


def test_errors_cross_process_borders() -> None:
    """An error keeps its place and its fix when it is pickled."""
    error = ProjectError("unknown input 'flihgts'", where="tables.py:3", fix="did you mean 'flights'?")
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, ProjectError)
    assert str(back) == str(error) == "tables.py:3: unknown input 'flihgts'\n  fix: did you mean 'flights'?"
    assert back.as_data() == error.as_data()


def test_exit_codes() -> None:
    """Each branch of the tree has the exit code that the command line promises."""
    assert (WrongUse.exit_code, Refused.exit_code, TrimtabError.exit_code) == (2, 1, 3)


def test_closest() -> None:
    """The closest known name is offered, if one is close."""
    assert closest("flihgts", ["flights", "weather"]) == "; did you mean 'flights'?"
    assert closest("zzz", ["flights"]) == ""
