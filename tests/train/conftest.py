"""A small workplace for model steps: frames in memory, a real store, and what the executor does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import trimtab as tt
from trimtab.core.context import Recorder, recording
from trimtab.core.declare import declaration_of
from trimtab.core.ids import new_id
from trimtab.core.nouns import Check, Data, Run, Version
from trimtab.data.frames import from_arrow, wanted_kind
from trimtab.pipeline.kinds import Made, StepContext, StepResult
from trimtab.store import facts
from trimtab.store.ledger import Tx
from trimtab.store.store import Store, open_store
from trimtab.train.steps import ModelStep

START = datetime(2024, 1, 1, tzinfo=UTC)
FEATURES = ["x0", "x1", "c"]


def rows(days: int = 40, *, seed: int = 0, per_day: int = 24, shift: float = 0.0) -> pl.DataFrame:
    """Return labelled rows, hour by hour: ``y`` follows ``x0`` and, a little, ``c``; ``x1`` has missing values."""
    random = np.random.Generator(np.random.PCG64(seed))
    count = days * per_day
    x0, x1 = random.normal(size=count) + shift, random.normal(size=count)
    c = random.choice(["a", "b", "d"], count)
    chance = 1 / (1 + np.exp(-2 * x0 - (c == "a")))
    return pl.DataFrame(
        {
            "id": np.arange(count),
            "at": [START + timedelta(hours=24 / per_day * hour) for hour in range(count)],
            "x0": x0,
            "x1": [None if value > 1.5 else float(value) for value in x1],
            "c": c,
            "y": random.random(count) < chance,
        }
    )


@dataclass(frozen=True, kw_only=True)
class FrameContext(StepContext):
    """A context whose inputs are frames in memory."""

    frames: Mapping[str, pl.DataFrame] = field(default_factory=dict)

    def load(self, name: str, frame_type_text: str | None = None) -> Any:
        """Return an input as the kind of frame that is asked for."""
        text = self.declaration.frames.get(name, "") if frame_type_text is None else frame_type_text
        return from_arrow(self.frames[name].to_arrow(), wanted_kind(text))


class Room:
    """Runs single steps of models and records what they made."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root = root
        self.store = store
        self.frames: dict[str, pl.DataFrame] = {}
        self.meta: dict[str, Data] = {}
        self.recorder = Recorder()
        self.champion: Version | None = None

    def give(self, name: str, frame: pl.DataFrame, **meta: Any) -> None:
        """Let an input have these rows; their time column is ``at`` where there is one."""
        self.frames[name] = frame
        self.meta[name] = {"time": "at" if "at" in frame.columns else None, "key": ["id"], **meta}

    def context(self, function: Callable[..., Any], op: str = "make", **more: Any) -> FrameContext:
        """Return what the executor would hand to a step."""
        declaration = declaration_of(function)
        context = FrameContext(
            declaration=declaration,
            function=function,
            op=op,
            inputs={name: self._table(name) for name in declaration.inputs},
            params=dict(declaration.params),
            seed=declaration.spec["seed"],
            now=START + timedelta(days=400),
            run_id=new_id("run"),
            store=self.store,
            previous=None,
            references={name: self.champion for name in ModelStep().references(declaration, op)},
            overrides={},
            project_root=self.root,
            runtime={},
            fingerprint={},
            frames=self.frames,
        )
        return replace(context, **more)

    def step(self, function: Callable[..., Any], op: str = "make", **more: Any) -> StepResult:
        """Carry a step out."""
        with recording(self.recorder):
            return ModelStep().run(self.context(function, op, **more))

    def make(self, function: Callable[..., Any], **more: Any) -> Version:
        """Make a candidate and record it."""
        (made,) = self.step(function, **more).made
        return self.keep(made)

    def gate(self, function: Callable[..., Any], candidate: Version, **more: Any) -> StepResult:
        """Judge a candidate."""
        inputs = {name: self._table(name) for name in declaration_of(function).inputs}
        return self.step(function, "gate", inputs={**inputs, "candidate": candidate}, **more)

    def keep(self, made: Made) -> Version:
        """Record a version, its grants, and the run that made it."""
        at = START + timedelta(days=400)
        run = Run(id=new_id("run"), kind="make", name=made.asset, state="done", started_at=at, ended_at=at)

        def write(tx: Tx) -> Version:
            asset = facts.put_asset(tx, name=made.asset, kind=made.kind, spec={}, at=at)
            facts.start_run(tx, run)
            for grant in made.grants:
                facts.add_grant(tx, grant["digest"], grant["format"], run.id, "tests", at)
            return facts.add_version(
                tx, asset, digest=made.digest, run_id=run.id, state=made.state, location=made.location, meta=made.meta,
                at=at,
            )  # fmt: skip

        return self.store.ledger.write(write, what="keep")

    def _table(self, name: str) -> Version:
        frame = self.frames[name]
        number = len(self.meta) * 1000 + frame.height
        return Version(
            id=f"ver_{name}", asset_id=f"ast_{name}", asset=name, kind="table", number=number,
            digest=f"{name}:{number}",
            run_id="", state="published", location={"schema": {column: "" for column in frame.columns}},
            meta=self.meta[name], created_at=START,
        )  # fmt: skip


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A workplace with forty days of labelled rows as the input ``flown``."""
    with open_store(tmp_path / "store") as store:
        made = Room(tmp_path, store)
        made.give("flown", rows())
        yield made


def pipeline() -> Any:
    """Return an estimator for the rows, not fitted: a scaled x0, an imputed x1, an encoded c."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    parts = [
        ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["x0", "x1"]),
        ("text", OneHotEncoder(handle_unknown="ignore"), ["c"]),
    ]
    return make_pipeline(ColumnTransformer(parts), LogisticRegression())


def good(*gate: Check, **spec: Any) -> Callable[..., Any]:
    """Return a declared model that learns from all features."""

    def late(flown: pl.DataFrame, c: float = 1.0) -> Any:
        return pipeline().set_params(logisticregression__C=c).fit(flown.select(FEATURES), flown["y"].to_numpy())

    return tt.model(label="y", holdout="10d", gate=gate, **spec)(late)


def poor(*gate: Check, **spec: Any) -> Callable[..., Any]:
    """Return a declared model of the same name that learns from noise."""

    def late(flown: pl.DataFrame) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression().fit(flown.select("id").to_numpy() % 7, flown["y"].to_numpy())

    return tt.model(label="y", holdout="10d", gate=gate, features=["id"], **spec)(late)
