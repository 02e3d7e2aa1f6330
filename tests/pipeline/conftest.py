"""A small project in a temporary folder whose steps make JSON values."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.nouns import Data
from trimtab.pipeline.execute import execute
from trimtab.pipeline.kinds import override_kinds
from trimtab.pipeline.manifest import Manifest, read_manifest
from trimtab.pipeline.plan import Plan, make_plan
from trimtab.pipeline.project import Project, find_project
from trimtab.pipeline.report import Event, Report
from trimtab.store import facts
from trimtab.store.store import Store, open_store
from trimtab.testing.kinds import JSON_KINDS, read_json

STEPS = """
import trimtab as tt
from helpers import double

@tt.source(path="data/*.txt")
def raw(): ...

@tt.table(layer="silver")
def sizes(raw, factor=2):
    return {name: double(len(text)) * factor // 2 for name, text in raw.items()}

@tt.table
def total(sizes):
    return sum(sizes.values())

@tt.table
def other():
    return "other"

@tt.model(label="y")
def best(total, plus=0):
    return {"score": total + plus}
"""
HELPERS = """
def double(x):
    return 2 * x

def unrelated(x):
    return x
"""


class Folder:
    """A project in a folder, and its store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self.write("trimtab.yaml", "project: p\nmodules: [steps]\nworkers: 2\n")
        self.write("steps.py", STEPS)
        self.write("helpers.py", HELPERS)
        self.write("data/a.txt", "one")
        self.store: Store = open_store(root / ".trimtab", actor="tester")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file of the project."""
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    @property
    def project(self) -> Project:
        """The project, read anew."""
        return find_project(self.root)

    def manifest(self) -> Manifest:
        """Return what the project declares now."""
        return read_manifest(self.project, self.store)

    def plan(
        self,
        *targets: str,
        params: Mapping[str, Mapping[str, Any]] | None = None,
        overrides: Data | None = None,
    ) -> Plan:
        """Return the plan for ``targets``."""
        return make_plan(self.project, self.manifest(), self.store, targets, params, overrides)

    def execute(self, plan: Plan, **more: Any) -> Report:
        """Execute a plan."""
        return execute(plan, project=self.project, store=self.store, on_event=self.events.append, **more)

    def run(self, *targets: str, **more: Any) -> Report:
        """Plan and execute."""
        return self.execute(self.plan(*targets, **more))

    def states(self, *targets: str, **more: Any) -> dict[str, str]:
        """Run and return stage -> state."""
        return {stage.id: stage.state for stage in self.run(*targets, **more).stages}

    def actions(self, *targets: str, **more: Any) -> dict[str, str]:
        """Plan and return stage -> action."""
        return {stage.id: stage.action for stage in self.plan(*targets, **more).stages}

    def value(self, ref: str) -> Any:
        """Return the JSON value behind a reference."""
        return read_json(self.store, facts.resolve(self.store.ledger, ref))


@pytest.fixture(autouse=True)
def json_kinds() -> Iterator[None]:
    """All steps make JSON values."""
    with override_kinds(JSON_KINDS):
        yield


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Callable[[], Folder]]:
    """Return a function that opens the project; each call opens a store of its own."""
    opened: list[Folder] = []

    def make() -> Folder:
        opened.append(Folder(tmp_path))
        return opened[-1]

    yield make
    for folder in opened:
        folder.store.close()


@pytest.fixture
def folder(open_folder: Callable[[], Folder]) -> Folder:
    """Return the project."""
    return open_folder()
