"""What makes versions: each kind of asset brings a ``StepKind``, found by entry point (``trimtab.kinds``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct
from msgspec import field as struct_field

from trimtab.core.declare import Declaration
from trimtab.core.errors import Fault, NotFound, closest
from trimtab.core.nouns import Data, Verdict, Version, VersionState
from trimtab.pipeline.files import FileDigests
from trimtab.store.store import Store

GROUP = "trimtab.kinds"
FRAME_LOADER = "trimtab.data.frames:load"
ALWAYS: Data = {"always": True}
"""A fingerprint that contains this makes the step run each time."""


class Made(Struct, frozen=True, kw_only=True):
    """A version that a step made and that the executor is to record.

    Attributes:
        asset: its asset: the step's own, or one of those that ``StepKind.makes`` named.
        state: ``candidate`` when a later gate decides, ``published``, or ``refused`` by the step's own gate.
        aliases: aliases that are to point to it.
        grants: ``{"digest", "format"}`` of files in a code-running format that this run answers for.
    """

    asset: str
    kind: str
    digest: str
    state: VersionState
    location: Data
    meta: Data
    aliases: tuple[str, ...] = ()
    grants: list[Data] = struct_field(default_factory=list)


class StepResult(Struct, frozen=True, kw_only=True):
    """What came of a step; the executor records all of it in one transaction.

    Attributes:
        metrics: ``(name, step, value)``.
        verdicts: their subject is the id of a version, ``candidate``, or empty for the first made version.
        facts: rows in and out, seconds, rows/s, and whatever else the act has to say.
        decisions: version id -> what a gate made of the candidate.
        params: what the step chose or logged, added to its params in the record.
    """

    made: list[Made] = struct_field(default_factory=list)
    metrics: list[tuple[str, int, float]] = struct_field(default_factory=list)
    verdicts: list[Verdict] = struct_field(default_factory=list)
    facts: Data = struct_field(default_factory=dict)
    decisions: list[tuple[str, VersionState]] = struct_field(default_factory=list)
    params: Data = struct_field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """All that a step may look at; it writes blobs and tables, never the ledger.

    Attributes:
        function: the user's function, imported from the snapshot that was planned.
        op: which of its kind's steps this is, such as ``make`` or ``gate``.
        inputs: parameter name -> version; for the op ``gate`` also ``candidate``.
        params: the params, overrides included.
        seed: Python's and numpy's global generators were seeded with it just before.
        now: event time.
        previous: the asset's current published version.
        references: such as ``delays@champion`` -> version, or None where there is none yet.
        overrides: such as ``{"reason": text}`` for an input that is stale.
        fingerprint: what ``StepKind.fingerprint`` said when the plan was made.
        assets: name -> asset id, of this asset and of those that ``StepKind.makes`` named; a Delta table is
            called by its asset's id.
    """

    declaration: Declaration
    function: Callable[..., Any]
    op: str
    inputs: Mapping[str, Version]
    params: Data
    seed: int
    now: datetime
    run_id: str
    store: Store
    previous: Version | None
    references: Mapping[str, Version | None]
    overrides: Data
    project_root: Path
    runtime: Data
    fingerprint: Data
    assets: Mapping[str, str] = field(default_factory=dict)

    def load(self, name: str, frame_type_text: str | None = None) -> Any:
        """Return input ``name`` as a frame.

        Args:
            name: a parameter name among ``inputs``.
            frame_type_text: the frame type as an annotation names it; by default the parameter's own.

        Raises:
            NotFound: there is no such input.
        """
        if name not in self.inputs:
            raise NotFound(f"{self.declaration.name} has no input {name!r}{closest(name, self.inputs)}")
        wanted = self.declaration.frames.get(name, "") if frame_type_text is None else frame_type_text
        return load_attribute(FRAME_LOADER)(self.store, self.inputs[name], wanted)

    def table_id(self, name: str = "") -> str:
        """Return what the Delta table of asset ``name`` is called: the asset's id."""
        return self.assets[name or self.declaration.name]


@runtime_checkable
class StepKind(Protocol):
    """How versions of one kind of asset are made. A kind's module must be light to import.

    ``ops`` names its steps in their order: ``make`` comes first; ``gate`` judges the candidate that ``make``
    left. ``fingerprint`` and ``references`` run in the planning process and import nothing heavy; ``run``
    runs in a worker process with the project folder as its working directory.

    A kind whose steps make versions of other assets too (such as ``NAME.quarantine``) also has
    ``makes(declaration) -> dict[str, str]``: the name of every asset that it may make -> its kind. These
    exist, and have an id, before the step runs.
    """

    ops: tuple[str, ...]

    def fingerprint(self, declaration: Declaration, project_root: Path, digests: FileDigests) -> Data:
        """Return what outside the project's code and inputs the step depends on, such as file digests.

        Add ``ALWAYS`` when that cannot be known: the step then runs each time.
        """
        ...

    def references(self, declaration: Declaration, op: str) -> list[str]:
        """Return the references to other versions that the op looks at, such as ``delays@champion``."""
        ...

    def run(self, context: StepContext) -> StepResult:
        """Carry the step out.

        Raises:
            TrimtabError: what is wrong with its input; anything else is recorded as a failed step.
        """
        ...


_OVERRIDES: dict[str, str] = {}


def kinds() -> dict[str, str]:
    """Return the known kinds: name -> ``module:class``."""
    return {**_installed(), **_OVERRIDES}


@contextmanager
def override_kinds(found: Mapping[str, str]) -> Iterator[None]:
    """Know other kinds within the block, as ``module:class``; for tests and experiments."""
    before = dict(_OVERRIDES)
    _OVERRIDES.update(found)
    try:
        yield
    finally:
        _OVERRIDES.clear()
        _OVERRIDES.update(before)


def kind_named(name: str) -> StepKind:
    """Return the step kind called ``name``.

    Raises:
        NotFound: no installed package brings it.
    """
    known = kinds()
    if name not in known:
        raise NotFound(
            f"no installed package brings the asset kind {name!r}{closest(name, known)}",
            fix=f"install one with an entry point in the group {GROUP}",
        )
    return load_kind(known[name])


def assets_made(kind: StepKind, declaration: Declaration) -> dict[str, str]:
    """Return every asset that a kind's steps may make a version of: name -> kind."""
    makes = getattr(kind, "makes", None)
    own = {declaration.name: declaration.kind}
    return own if makes is None else {**own, **makes(declaration)}


@cache
def load_kind(text: str) -> StepKind:
    """Return an instance of the step kind at ``module:class``."""
    made = load_attribute(text)()
    if not isinstance(made, StepKind):
        raise Fault(f"{text} is not a StepKind", fix="give it ops, fingerprint, references and run")
    return made


@cache
def load_attribute(text: str) -> Any:
    """Return what ``module:attribute`` names; the module is imported now."""
    module, _, attribute = text.partition(":")
    return getattr(import_module(module), attribute)


@cache
def _installed() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}
