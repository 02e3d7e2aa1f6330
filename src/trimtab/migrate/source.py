"""What a system that is left can be asked: its records, one after the other, in the words of our own store.

Names of experiments stand for their numbers there, and roots for where files lie there: both are translated by
whoever writes them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from trimtab.store.assessments import Assessment
from trimtab.store.bring import Role
from trimtab.store.datasets import Input
from trimtab.store.models import LoggedModel
from trimtab.store.points import Point
from trimtab.store.registry import ModelVersion, RegisteredModel
from trimtab.store.traces import Span, Trace
from trimtab.store.tracking import Experiment, TrackedRun

PAGE = 10_000
"""How many points are read at once."""


class Broken(Struct, frozen=True):
    """Something that is there and cannot be read.

    Attributes:
        kind: of what it is one.
        ident: which one.
        reason: why not.
    """

    kind: str
    ident: str
    reason: str


class OldRun(Struct, frozen=True, kw_only=True):
    """A run there.

    Attributes:
        run: its experiment is the number there, its root where its files are there.
        inputs: the data that it read.
        roles: what it did with models.
        deleted_ms: when it was deleted.
    """

    run: TrackedRun
    inputs: Sequence[Input] = ()
    roles: Sequence[Role] = ()
    deleted_ms: int | None = None


class OldVersion(Struct, frozen=True, kw_only=True):
    """A version of a registered model there, and where its files are there."""

    version: ModelVersion
    storage: str = ""


class OldTrace(Struct, frozen=True, kw_only=True):
    """A trace there.

    Attributes:
        trace: as a whole; its experiment is the number there.
        spans: all of them.
        said: of it.
        links: kind and target of each.
        root: where its files are there, or empty.
    """

    trace: Trace
    spans: Sequence[Span] = ()
    said: Sequence[Assessment] = ()
    links: Sequence[tuple[str, str]] = ()
    root: str = ""


class File(Struct, frozen=True):
    """A file below a root there: its path, and its size in bytes."""

    path: str
    size: int


class Files(Protocol):
    """The files below one root."""

    def listed(self) -> Iterator[File | Broken]:
        """Yield them all, by path."""
        ...

    def local(self, path: str) -> AbstractContextManager[Path]:
        """Return a local file with the content of one of them, for as long as the block lasts.

        Raises:
            Unavailable: it cannot be read.
        """
        ...


class Source(Protocol):
    """A system that is left.

    Contract: what is yielded is in one order each time; memory does not grow with how much there is, but with the
    largest single thing; nothing there is changed. Numbers of experiments are given as they are there.
    """

    @property
    def where(self) -> str:
        """Where it is, without secrets."""
        ...

    def experiments(self) -> Iterator[Experiment | Broken]:
        """Yield all experiments, deleted ones too; ``root`` is where files go there."""
        ...

    def runs(self, homes: Sequence[int]) -> Iterator[OldRun | Broken]:
        """Yield the runs of experiments, deleted ones too; their ``metrics`` may be left out."""
        ...

    def points(self, run: TrackedRun) -> Iterator[Sequence[Point]]:
        """Yield all points of a run in pages."""
        ...

    def models(self, homes: Sequence[int]) -> Iterator[LoggedModel | Broken]:
        """Yield the logged models of experiments with all values of their metrics."""
        ...

    def traces(self, homes: Sequence[int]) -> Iterator[OldTrace | Broken]:
        """Yield the traces of experiments."""
        ...

    def registered(self) -> Iterator[RegisteredModel | Broken]:
        """Yield the registered models and prompts, with their aliases; ``latest`` is left out."""
        ...

    def versions(self, name: str) -> Iterator[OldVersion | Broken]:
        """Yield the versions of a registered model that are not deleted, by number."""
        ...

    def files(self, root: str, run_id: str = "") -> Files | None:
        """Return the files below a root, or None where this source cannot read such.

        Args:
            root: as it is there.
            run_id: the run that it is of, if it is a run's.
        """
        ...

    def counts(self, homes: Sequence[int], whole: bool) -> Mapping[str, int]:
        """Return how many of each kind there are, counted apart from what is yielded; kinds may be missing.

        Args:
            homes: the experiments that are meant.
            whole: these are all, so that the registry counts too.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def texts(items: Any) -> dict[str, str]:
    """Return names and values of rows or of ``key``/``value`` objects; a value that is nothing is an empty text."""
    pairs = ((one["key"], one.get("value")) if isinstance(one, dict) else one for one in items or ())
    return {str(name): "" if value is None else str(value) for name, value in pairs}
