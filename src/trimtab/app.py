"""The composition root: a project folder and its store, opened together for whoever needs both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.clock import parse_time
from trimtab.pipeline.manifest import Manifest, read_manifest
from trimtab.pipeline.project import Project, find_project
from trimtab.store.store import Store, open_store


@dataclass(frozen=True)
class App:
    """A project and its open store.

    Attributes:
        project: the project file, read.
        store: the open store.
        environment: dev, test or prod.
    """

    project: Project
    store: Store
    environment: str

    def manifest(self) -> Manifest:
        """Return what the project declares; its modules are imported by a worker, never here."""
        return read_manifest(self.project, self.store)


@contextmanager
def open_app(folder: Path, *, environment: str = "dev", store: Path | None = None, actor: str = "") -> Iterator[App]:
    """Open the project that ``folder`` lies in, and its store.

    Args:
        folder: the project's folder or one below it.
        environment: where names resolve.
        store: the store's folder; by default what the project file says.
        actor: who acts, for the records.

    Raises:
        NotFound: there is no project file, or the project has no such environment.
    """
    project = find_project(folder)
    project.check_environment(environment)
    opened = open_store(
        store or project.store,
        environment=environment,
        actor=actor,
        ledger=project.ledger,
        artifacts=project.artifacts,
        options=project.options,
    )
    try:
        start_clock(opened, project)
        yield App(project=project, store=opened, environment=environment)
    finally:
        opened.close()


def start_clock(store: Store, project: Project) -> None:
    """Set a new store's clock to the simulated start that the project file names, if it names one."""
    start = project.clock.get("simulated")
    if start and not store.clock_is_set():
        store.set_clock("simulated", parse_time(str(start)))
