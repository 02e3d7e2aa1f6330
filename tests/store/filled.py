"""A ledger with something in most of its tables, and the blobs that its rows name."""

from __future__ import annotations

import math
from pathlib import Path

from msgspec import Struct

from tests.store.builders import begin, make, write
from trimtab.store import artifacts, datasets, facts, models, registry, tracking
from trimtab.store.blobs import LocalBlobs
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.points import Point
from trimtab.store.traces import Trace, start_trace

NOW = 1_700_000_000_000


class Filled(Struct, frozen=True, kw_only=True):
    """What was put in: ids as clients know them."""

    blobs: LocalBlobs
    experiment: int
    run: str
    model: str
    trace: str


def fill(ledger: Ledger, folder: Path) -> Filled:
    """Put an experiment with a run, its files, a model and a trace into a ledger, and a table and a model beside."""
    blobs = LocalBlobs(folder)
    experiment = write(ledger, tracking.create_experiment, "first", root="mlflow-artifacts:/{number}", tags={"a": "b"},
                       now_ms=NOW)  # fmt: skip
    run = track(ledger, experiment)
    put_file(ledger, blobs, f"{experiment}/{run}/artifacts/notes.txt", b"notes")
    model = log_model(ledger, blobs, experiment, run)
    trace = write(ledger, start_trace, Trace(trace_id=f"tr-{run}", experiment=experiment, state="OK", start_ms=NOW))
    table = write(ledger, make, "flights")
    write(ledger, make, "late", [(table, "data")], kind="model", location={"blob": blobs.put(b"a model")})
    write(ledger, facts.set_alias, "flights", "best", table.id)
    return Filled(blobs=blobs, experiment=experiment, run=run, model=model, trace=trace.trace_id)


def track(ledger: Ledger, experiment: int) -> str:
    """Put in a finished run of a client, with points that only exact copies keep."""

    def act(tx: Tx) -> str:
        run = tracking.create_run(
            tx, experiment=experiment, name="r", user_id="u", start_ms=NOW, tags={"t": "\0\uf8f0\N{SNOWMAN}"}
        )
        values = (0.1, math.nan, math.inf, -math.inf, -0.0, 5e-324)
        points = [Point("loss", value, step, NOW + step) for step, value in enumerate(values)]
        points += [Point("big", 1.0, (1 << 63) - 1, -(1 << 63))]
        tracking.log(tx, run.id, points=points, params={"lr": "0.1"})
        data = datasets.Dataset(name="d", digest="x1", source_type="local", source="{}", schema=None, profile=None)
        datasets.add_inputs(tx, run.id, [datasets.Input(dataset=data, tags={"mlflow.data.context": "training"})])
        return tracking.update_run(tx, run.id, status="FINISHED", end_ms=NOW + 9).id

    return ledger.write(act, what="track")


def put_file(ledger: Ledger, blobs: LocalBlobs, path: str, content: bytes) -> str:
    """Keep a client's file and return its blob."""
    blob = blobs.put(content)
    write(ledger, artifacts.put_artifact, artifacts.PROXIED, path, blob=blob, size=len(content), at=1)
    return blob


def log_model(ledger: Ledger, blobs: LocalBlobs, experiment: int, run: str, content: bytes = b"weights") -> str:
    """Log a model of a run with one file and return its id."""
    model = write(ledger, models.create_model, experiment=experiment, name="m", type="", run_id=run,
                  params={"depth": "3"}, tags={}, now_ms=NOW)  # fmt: skip
    put_file(ledger, blobs, f"{experiment}/models/{model.id}/artifacts/model.bin", content)
    measured = models.ModelMetric(run_id=run, point=Point("auc", 0.5, 0, NOW), dataset_name="", dataset_digest="")
    write(ledger, models.add_model_metrics, model.id, [measured])
    write(ledger, models.make_models, run, [(model.id, 0)])
    write(ledger, models.settle_model, model.id, "LOGGED_MODEL_READY", now_ms=NOW)
    return str(model.id)


def register(ledger: Ledger, model: str, name: str = "registered") -> int:
    """Register a logged model under a name that is not there yet, and return its version's number."""
    write(ledger, registry.create_registered, name, tags={}, description="", now_ms=NOW)
    made = write(ledger, registry.create_version, name, source=f"models:/{model}", model_id=model, now_ms=NOW)
    return int(made.number)


def running(ledger: Ledger, holder: str) -> str:
    """Put in a run of the pipeline that a process has claimed."""
    run = write(ledger, begin, "steps")
    ledger.write(lambda tx: tx.execute("UPDATE run SET holder=? WHERE id=?", (holder, run.id)), what="claim")
    return str(run.id)
