"""A small workplace for data steps: a project folder, a store with real Delta tables, and what the executor does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.declare import Declaration, declaration_of
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Run, Version
from trimtab.data.steps import FeaturesStep, SourceStep, TableStep
from trimtab.pipeline.files import FileDigests
from trimtab.pipeline.kinds import StepContext, StepKind, StepResult, assets_made
from trimtab.store import facts
from trimtab.store.ledger import Tx
from trimtab.store.store import Store, open_store

KINDS: dict[str, StepKind] = {"source": SourceStep(), "table": TableStep(), "features": FeaturesStep()}
START = datetime(2024, 3, 1, 6, tzinfo=UTC)


class Bench:
    """Runs single steps as the executor does: context in, result recorded in the ledger."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root = root
        self.store = store
        self.now = START
        self.last: StepResult | None = None
        self.contexts: list[StepContext] = []

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, function: Callable[..., Any], *, code: str = "v1") -> Version:
        """Make a version of a declared asset and record it; ``code`` stands for the digest of its code."""
        declaration = declaration_of(function)
        result = self.step(function, code=code)
        self.last = result
        run_id = self.contexts[-1].run_id

        def record(tx: Tx) -> list[Version]:
            made = []
            for item in result.made:
                asset = facts.find_asset(tx, item.asset)
                assert asset is not None
                made.append(
                    facts.add_version(
                        tx, asset, digest=item.digest, run_id=run_id, state=item.state,
                        location=item.location, meta=item.meta, at=self.now,
                    )
                )  # fmt: skip
            for verdict in result.verdicts:
                facts.add_verdict(tx, verdict)
            facts.finish_run(tx, run_id, state="done", ended_at=self.now, facts=result.facts)
            return made

        versions = self.store.ledger.write(record, what="finish")
        return next(version for version in versions if version.asset == declaration.name)

    def step(self, function: Callable[..., Any], *, code: str = "v1") -> StepResult:
        """Carry a step out and return its result; only the run's beginning is recorded."""
        declaration = declaration_of(function)
        context = self.context(function, declaration, code)
        self.contexts.append(context)
        return KINDS[declaration.kind].run(context)

    def context(self, function: Callable[..., Any], declaration: Declaration, code: str) -> StepContext:
        """Return what the executor would hand to the step."""
        kind = KINDS[declaration.kind]
        digests = FileDigests(self.root / ".cache")
        ledger = self.store.ledger
        run_id = new_id("run")

        def begin(tx: Tx) -> dict[str, str]:
            facts.start_run(
                tx,
                Run(
                    id=run_id, kind="make", name=declaration.name, state="running", started_at=self.now,
                    code={"digest": code}, environment=tx.environment,
                ),
            )  # fmt: skip
            return {
                name: facts.put_asset(tx, name=name, kind=made, spec={}, at=self.now).id
                for name, made in assets_made(kind, declaration).items()
            }

        inputs = {name: facts.current(ledger, name) for name in declaration.inputs}
        return StepContext(
            declaration=declaration,
            function=inspect.unwrap(function),
            op="make",
            inputs={name: version for name, version in inputs.items() if version is not None},
            params=dict(declaration.params),
            seed=0,
            now=self.now,
            run_id=run_id,
            store=self.store,
            previous=facts.current(ledger, declaration.name),
            references={},
            overrides={},
            project_root=self.root,
            runtime={},
            fingerprint=kind.fingerprint(declaration, self.root, digests),
            assets=ledger.write(begin, what="begin"),
        )

    def rows(self, name: str, columns: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of an asset's current version, in order."""
        version = facts.current(self.store.ledger, name)
        assert version is not None
        frame = self.store.tables.scan(version.location).collect()
        if "_batch" in frame.columns:
            frame = frame.sort("_batch", "_row")
        return (frame.select(columns) if columns else frame).rows()

    def facts(self) -> Data:
        """Return the facts of the last step."""
        assert self.last is not None
        return self.last.facts

    def verdicts(self) -> dict[str, str]:
        """Return check -> status of the last step."""
        assert self.last is not None
        return {verdict.check: verdict.status for verdict in self.last.verdicts}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A workplace in a temporary folder."""
    store = open_store(tmp_path / "store")
    yield Bench(tmp_path / "project", store)
    store.close()
