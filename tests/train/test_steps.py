"""The step kind of models, alone and in a project that is planned and executed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import Room, good
from trimtab import check as ck
from trimtab.core.nouns import Version
from trimtab.pipeline.execute import execute
from trimtab.pipeline.files import FileDigests
from trimtab.pipeline.kinds import kind_named
from trimtab.pipeline.manifest import read_manifest
from trimtab.pipeline.plan import make_plan
from trimtab.pipeline.project import find_project
from trimtab.pipeline.report import Report
from trimtab.serve.fetching import settings_of
from trimtab.store import facts, live
from trimtab.store.store import Store, open_store
from trimtab.train.load import load_model
from trimtab.train.package import files_of
from trimtab.train.steps import ModelStep

HEAVY = ("numpy", "polars", "pandas", "sklearn", "skops", "pyarrow", "scipy")
PROJECT = """
    from datetime import datetime, timedelta

    import polars as pl

    import trimtab as tt
    from own import Shares
    from trimtab import check as ck

    @tt.table(layer="gold", key="id", time="at", checks=[ck.unique("id")])
    def flown(hours=600):
        ids = list(range(hours))
        return pl.DataFrame({
            "id": ids,
            "at": [datetime(2024, 1, 1) + timedelta(hours=n) for n in ids],
            "x": [float((n * 7919) % 101) for n in ids],
            "c": ["ab"[n * 31 % 7 > 3] for n in ids],
            "y": [(n * 7919) % 101 + (n * 104729) % 67 > 83 for n in ids],
        })

    GATE = [ck.metric("auc", above=0.6), ck.beats(on="auc", minimum=50)]

    @tt.model(label="y", holdout="6d", features=["x"], gate=GATE, refit=True)
    def late(flown, wrong=False):
        from sklearn.linear_model import LogisticRegression
        x = flown.select(-pl.col("x") if wrong else "x").to_numpy()
        tt.log(rows=flown.height, seen="x")
        return LogisticRegression().fit(x, flown["y"].to_numpy())

    @tt.model(label="y", holdout="6d", features=["c"], gate=[ck.metric("log_loss", below=1.0)])
    def plain(flown):
        return Shares(dict(flown.group_by("c").agg(pl.col("y").mean()).sort("c").rows()))
"""
OWN = """
    import trimtab as tt

    class Shares(tt.Predictor):
        def __init__(self, shares):
            self.shares = shares

        def predict(self, columns):
            return [self.shares[value] for value in columns["c"]]
"""


class Folder:
    """A project with two models in a folder, and its store."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root = root
        self.store = store
        (root / "trimtab.yaml").write_text("project: p\nmodules: [steps]\nworkers: 1\n")
        (root / "steps.py").write_text(textwrap.dedent(PROJECT))
        (root / "own.py").write_text(textwrap.dedent(OWN))

    def run(self, *targets: str, **params: Any) -> Report:
        """Plan and execute."""
        project = find_project(self.root)
        plan = make_plan(project, read_manifest(project, self.store), self.store, targets, {"late": params})
        return execute(plan, project=project, store=self.store)

    def version(self, ref: str) -> Version:
        """Return a version."""
        return facts.resolve(self.store.ledger, ref)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A project whose models have been made once."""
    root = tmp_path_factory.mktemp("project")
    with open_store(root / ".trimtab") as store:
        made = Folder(root, store)
        assert made.run().ok
        yield made


def test_importing_the_kind_is_light() -> None:
    """Planning looks at the kind and must not load an engine."""
    code = f"import sys, trimtab.train.steps; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_checking_requests_is_light() -> None:
    """The serving worker checks and loads by modules that import no engine of their own."""
    code = "import sys, trimtab.train.load, trimtab.train.signature, trimtab.train.predictor; "
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_kind_is_installed(room: Room) -> None:
    """Models are found by their entry point, and depend on nothing outside code, inputs, params and seed."""
    kind = kind_named("model")
    assert isinstance(kind, ModelStep) and kind.ops == ("make", "gate")
    declaration = room.context(good(ck.beats(on="auc"), ck.metric("auc", above=0.5))).declaration
    assert kind.fingerprint(declaration, room.root, FileDigests(room.root / "digests")) == {}
    assert kind.references(declaration, "make") == []
    assert kind.references(declaration, "gate") == ["late@champion"]


def test_an_accepted_candidate_is_refitted_and_becomes_the_challenger(folder: Folder) -> None:
    """What is current is the refit, whose gate verdicts are those of the candidate that it repeats."""
    ledger = folder.store.ledger
    first, second = facts.list_versions(ledger, "late")
    assert (first.state, second.state) == ("published", "published")
    assert second.meta["refit_of"] == first.id
    assert facts.aliases(ledger, "late") == {"challenger": second.id}
    current = facts.current(ledger, "late")
    assert current is not None and current.id == second.id
    assert {one.check: one.status for one in facts.verdicts_of(ledger, first.id)} == {
        "metric(auc above 0.6)": "pass",
        "beats(champion on auc)": "pass",
    }
    run = facts.get_run(ledger, first.run_id)
    assert run is not None and run.params["seen"] == "x"
    assert facts.metrics_of(ledger, run.id)["rows"] == first.meta["rows_trained"] == 456
    assert facts.metrics_of(ledger, run.id)["auc"] == pytest.approx(first.meta["metrics"]["auc"])


def test_a_second_run_reuses_the_models(folder: Folder) -> None:
    """Nothing changed, nothing is fitted again."""
    report = folder.run()
    assert report.ok and {stage.state for stage in report.stages} == {"reused"}


def test_a_predictor_is_granted_by_its_run_and_read_from_the_snapshot(folder: Folder) -> None:
    """Its class lives in a module of the project, and its digest is granted, so that a worker may read it."""
    version = folder.version("plain")
    blob = version.location["files"]["model"]
    assert version.meta["format"] == "pickle" and facts.is_granted(folder.store.ledger, blob)
    run = facts.get_run(folder.store.ledger, version.run_id)
    assert run is not None
    snapshot = folder.store.home.snapshots / str(run.code["snapshot"]).removeprefix("sha256:")
    sys.path.insert(0, str(snapshot))
    try:
        scorer = load_model(files_of(version.location, folder.store.blobs), version.meta, granted=True)
        assert len(scorer.predict({"c": ["a", "b"]})["scores"]) == 2
    finally:
        sys.path.remove(str(snapshot))
        sys.modules.pop("own", None)


def test_a_worker_gets_all_it_needs(folder: Folder) -> None:
    """The settings of a deployment follow from the version alone: files, meta, golden requests, snapshot, grant."""
    version = folder.version("late")

    def write(tx: Any) -> Any:
        endpoint = live.put_endpoint(tx, name="api", spec={"serves": "late"}, at=version.created_at)
        return live.add_deployment(
            tx, endpoint_id=endpoint.id, version_id=version.id, runtime={}, at=version.created_at
        )

    settings = settings_of(folder.store, folder.store.ledger.write(write, what="deploy"))
    assert Path(settings.files["model"]).exists() and Path(settings.golden).exists()
    assert Path(settings.snapshot, "own.py").exists() and settings.meta["answer"] == "argmax"


def test_a_refused_challenger_leaves_the_old_one_current(folder: Folder) -> None:
    """A candidate that learned the wrong way round fails its gate: exit 1, no refit, and what was published stays."""
    before = folder.version("late")
    report = folder.run("late", wrong=True)
    assert report.exit_code == 1
    stages = {stage.id: stage for stage in report.stages}
    assert stages["make:late"].state == "done" and stages["gate:late"].state == "failed"
    assert stages["gate:late"].error["type"] == "GateFailed"
    assert "auc is" in stages["gate:late"].error["message"]
    newest = facts.newest(folder.store.ledger, "late")
    assert newest is not None and newest.state == "refused"
    assert folder.version("late").id == before.id
