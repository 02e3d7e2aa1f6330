"""``trimtab init --ci``: workflows that plan, run and gate a project on every pull request.

A gate that fails makes ``trimtab run`` exit with 1, and with it the job. Actions are pinned by commit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from trimtab.core.errors import WrongUse
from trimtab.core.optional import need

Flavour = Literal["github", "azure"]
PATHS: dict[Flavour, str] = {"github": ".github/workflows/trimtab.yml", "azure": "azure-pipelines.yml"}
STEPS = (
    ("Install", "python -m pip install --requirement requirements.txt pytest"),
    ("Test the functions", "python -m pytest || test $? -eq 5"),
    ("Plan", "trimtab plan"),
    ("Run, and judge every gate", "trimtab run"),
    ("Nothing is left to run", "trimtab plan"),
)
"""Exit 5 of pytest says that there are no tests, which is no failure of the project."""
_NOTE = """\
# Written by `trimtab init --ci`; plan, run and gates on every pull request.
# The store is new in every job: there is no champion, so `ck.beats` passes here and compares where the store lasts.
"""
_CHECKOUT = "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683"
_PYTHON = "actions/setup-python@a26af69be951a213d495a4c3e4e4022e16d87065"
_RELEASES = {_CHECKOUT: "v4.2.2", _PYTHON: "v5.6.0"}


def workflow(flavour: Flavour) -> str:
    """Return the text of a workflow.

    Raises:
        WrongUse: ``flavour`` is unknown.
    """
    if flavour not in PATHS:
        raise WrongUse(f"{flavour!r} is not a CI service that is known here", fix="github or azure")
    data = _github() if flavour == "github" else _azure()
    text: str = need("yaml").safe_dump(data, sort_keys=False, width=100)
    if flavour == "azure":
        return _NOTE + "# `pr` counts for GitHub repositories; in Azure Repos add a build validation policy.\n" + text
    for pinned, release in _RELEASES.items():
        text = text.replace(pinned, f"{pinned}  # {release}")
    return _NOTE + text


def write_workflow(folder: Path, flavour: Flavour) -> Path:
    """Write the workflow into ``folder`` and return its path.

    Raises:
        WrongUse: the file is there already with another text.
    """
    text = workflow(flavour)
    path = folder / PATHS[flavour]
    if path.exists() and path.read_text() != text:
        raise WrongUse(f"{path} is there already and differs", fix="remove or rename it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def commands(flavour: Flavour, text: str) -> list[str]:
    """Return the shell commands that a workflow of ours runs, in order."""
    data = need("yaml").safe_load(text)
    if flavour == "github":
        return [step["run"] for step in data["jobs"]["trimtab"]["steps"] if "run" in step]
    return [step["script"] for step in data["steps"] if "script" in step]


def _github() -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"uses": _CHECKOUT, "with": {"persist-credentials": False}},
        {"uses": _PYTHON, "with": {"python-version": "3.12"}},
    ]
    steps.extend({"name": name, "run": command} for name, command in STEPS)
    job = {"name": "Plan, run and gates", "runs-on": "ubuntu-24.04", "timeout-minutes": 60, "steps": steps}
    return {
        "name": "trimtab",
        "on": {"pull_request": {}},
        "permissions": {"contents": "read"},
        "concurrency": {"group": "trimtab-${{ github.ref }}", "cancel-in-progress": True},
        "jobs": {"trimtab": job},
    }


def _azure() -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"task": "UsePythonVersion@0", "inputs": {"versionSpec": "3.12"}}]
    steps.extend({"script": command, "displayName": name} for name, command in STEPS)
    return {"trigger": "none", "pr": ["main"], "pool": {"vmImage": "ubuntu-24.04"}, "steps": steps}
