"""Child runs: what they print, how they end, and that each is started once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trimtab.automate.jobs import Jobs
from trimtab.core.errors import Unavailable


def _jobs(folder: Path, code: str) -> Jobs:
    return Jobs(
        project=folder, store=folder / "s", environment="dev", logs=folder, command=(sys.executable, "-c", code)
    )


def test_report_and_arguments_come_through(tmp_path: Path) -> None:
    """The report is the document that the child printed; its arguments are a plain list."""
    code = "import sys, json; print(json.dumps({'stages': [], 'argv': sys.argv[1:]})); sys.exit(1)"
    jobs = _jobs(tmp_path, code)
    jobs.run("k", "delays; rm -rf /", actor="automation:x y")
    outcome = jobs.poll("k", wait=True)
    assert outcome is not None and outcome.exit_code == 1
    assert outcome.report["argv"][:4] == ["run", "delays; rm -rf /", "--actor", "automation:x y"]
    assert outcome.report["argv"][4:] == ["--json", "--dir", str(tmp_path / "s"), "--env", "dev"]


def test_a_key_is_started_once(tmp_path: Path) -> None:
    """Asking again for the same key starts nothing."""
    code = f"import json; open({str(tmp_path / 'n')!r}, 'a').write('x'); print(json.dumps({{'stages': []}}))"
    jobs = _jobs(tmp_path, code)
    for _ in range(3):
        jobs.run("k", "a", actor="x")
    jobs.poll("k", wait=True)
    jobs.run("k", "a", actor="x")
    assert (tmp_path / "n").read_text() == "x"


def test_error_document_and_crash_are_told(tmp_path: Path) -> None:
    """An error document is passed on; a crash is told with the last line of its log."""
    jobs = _jobs(tmp_path, 'print(\'{"error": {"type": "ProjectError", "message": "m"}}\'); exit(2)')
    jobs.run("k", "a", actor="x")
    outcome = jobs.poll("k", wait=True)
    assert outcome is not None and (outcome.exit_code, outcome.error["message"]) == (2, "m")
    jobs = _jobs(tmp_path, "raise SystemError('broken')")
    jobs.run("k", "a", actor="x")
    outcome = jobs.poll("k", wait=True)
    assert outcome is not None and outcome.exit_code != 0 and "broken" in outcome.error["message"]


def test_slow_run_is_ended(tmp_path: Path) -> None:
    """A run goes on while nobody waits, and is ended when it takes too long."""
    jobs = _jobs(tmp_path, "import time; time.sleep(60)")
    jobs.run("k", "a", actor="x")
    assert jobs.poll("k", wait=False) is None
    with pytest.raises(Unavailable, match="longer than"):
        jobs.poll("k", wait=True, patience_s=0.05)
    jobs.close()
