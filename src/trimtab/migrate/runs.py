"""Experiments and runs come over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import asdict, replace

from trimtab.api.mlflow import limits
from trimtab.api.mlflow.tracking import ROOT
from trimtab.core.errors import NotFound, WrongUse, closest
from trimtab.core.nouns import Data
from trimtab.migrate.fits import Measured, fitting, why_not
from trimtab.migrate.move import Home, Move, fields_differ
from trimtab.migrate.source import Broken, OldRun
from trimtab.migrate.spool import Digest, Spool
from trimtab.store import bring, datasets, models, tracking
from trimtab.store.ledger import Tx
from trimtab.store.points import Point
from trimtab.store.tracking import Experiment, TrackedRun

_FIELDS = (
    "experiment", "name", "status", "stage", "start_ms", "end_ms", "user_id", "root", "params", "tags",
)  # fmt: skip


def move_experiments(move: Move) -> None:
    """Let the experiments come over, each to the one of its name or a new one, under its number if that is free.

    Raises:
        NotFound: none has a name that is wanted.
        WrongUse: their files are behind a server, and neither it nor its folder is known.
    """
    known: list[str] = []
    for given in move.source.experiments():
        if isinstance(given, Broken):
            move.broken(given)
            continue
        known.append(given.name)
        if given.root.startswith(bring.SCHEME) and move.source.files(given.root) is None:
            raise WrongUse(
                f"the files of {given.name!r} are behind MLflow's server, at {given.root}",
                where=move.source.where,
                fix="give --artifacts with the folder that the server keeps (mlartifacts, if it was not told), or give"
                " the server's URL in place of this one",
            )
        if not move.names or given.name in move.names:
            move.saw("experiments")
            move.unit("experiment", given.name, lambda given=given: _experiment(move, given))  # type: ignore[misc]
    for name in sorted(move.names - set(known)):
        raise NotFound(f"there is no experiment {name!r}{closest(name, known)}", where=move.source.where)


def _experiment(move: Move, given: Experiment) -> None:
    tags = fitting(move.report, f"experiment {given.name}", "tag", given.tags, limits.EXPERIMENT_TAG)
    # What lies in another storage stays there, and so does what comes later.
    elsewhere = move.source.files(given.root) is None and ":" in given.root and not given.root.startswith(bring.SCHEME)
    root = given.root.replace("{", "%7B") if elsewhere else ROOT
    wanted = replace(given, tags=tags, root=root)
    before = tracking.find_experiment(move.ledger, given.name)
    if move.dry:
        new = before.number if before else given.number
        move.done("experiments", copied=before is None)
    else:

        def put(tx: Tx) -> Data:
            known = tracking.find_experiment(tx, given.name)
            if known is None:
                return {"number": bring.put_experiment(tx, wanted)}
            missing = {name: value for name, value in tags.items() if name not in known.tags}
            tracking.put_tags(tx, known.id, missing)
            return {"number": known.number}

        new = int(move.write(put, what="experiment", key=f"experiment:{given.name}")["number"])
        move.done("experiments", copied=before is None)
    move.homes[given.number] = Home(given.number, new)
    move.report.renumbered[given.number] = new
    if before is not None:
        here = {**asdict(before), "tags": {name: before.tags.get(name) for name in tags}}
        different = fields_differ(
            here, {"stage": given.stage, "tags": tags} if not move.dry else {"stage": given.stage}
        )
        if different:
            move.report.tell("conflict", "experiment", given.name, "; ".join(different))


def move_runs(move: Move) -> None:
    """Let the runs come over, each with all of it."""
    for old in move.source.runs(list(move.homes)):
        if isinstance(old, Broken):
            move.broken(old)
            continue
        move.saw("runs", params=len(old.run.params), tags=len(old.run.tags), inputs=len(old.inputs))
        if move.names:
            move.chosen.add(old.run.id)
        move.unit("run", old.run.id, lambda old=old: _run(move, old))  # type: ignore[misc]
    if not move.dry:
        move.ledger.write(bring.link_parents, what="import parents")


def _run(move: Move, old: OldRun) -> None:
    run, owner = old.run, f"run {old.run.id}"
    if reason := why_not(run.id, "run", run.start_ms, run.end_ms):
        move.report.tell("refused", "run", run.id, reason)
        return
    home, files = move.homes[run.experiment], move.source.files(run.root, run.id)
    if files is None and run.root:
        move.leave(run.root)
    wanted = replace(
        run,
        experiment=home.new,
        root=run.root if files is None and run.root else home.root(run.id, "artifacts"),
        params=fitting(move.report, owner, "param", run.params, limits.PARAM),
        tags=fitting(move.report, owner, "tag", run.tags, limits.TAG),
    )
    pages = _fitting(move, owner, run)
    sql = "SELECT 1 FROM tracked WHERE run_id=?"
    if move.ledger.query(sql, (f"run_{run.id}",)):
        listed = move.listed(owner, files)
        digest = Digest()
        for page in pages:
            digest.add(page)
        doubled = _doubled(move, run.id)
        move.report.seen.update(points=digest.count - doubled, files=len(listed))
        different = _run_differs(move, old, wanted, digest) + move.files_differ(wanted.root, listed)
        params, tags, points = bring.counts_of(move.ledger, f"run_{run.id}")
        move.compared("runs", run.id, different, params=params, tags=tags, points=points, inputs=len(old.inputs),
                      files=len(listed))  # fmt: skip
        return
    _new_run(move, old, wanted, pages)


def _new_run(move: Move, old: OldRun, wanted: TrackedRun, pages: Iterator[Sequence[Point]]) -> None:
    owner, key = f"run {wanted.id}", f"run:{wanted.id}"
    kept = move.kept(owner, move.source.files(old.run.root, wanted.id))
    with Spool() as spool:
        for page in pages:
            if move.dry:
                spool.digest.add(page)
            else:
                spool.add(page)
        count = spool.digest.count
        if not move.dry:
            told = move.write(
                lambda tx: {
                    "points": bring.put_run(
                        tx, wanted, points=spool.pages(), inputs=old.inputs, roles=old.roles, files=kept,
                        deleted_ms=old.deleted_ms,
                    ),
                    "read": count,
                    "digest": str(spool.digest),
                },
                what="run",
                key=key,
            )  # fmt: skip
            count = int(told["points"])
    params, tags, points = len(wanted.params), len(wanted.tags), count
    if not move.dry:
        params, tags, points = bring.counts_of(move.ledger, f"run_{wanted.id}")
    move.report.seen.update(points=count, files=len(kept))
    move.done("runs", copied=True, params=params, tags=tags, points=points, inputs=len(old.inputs), files=len(kept))


def _fitting(move: Move, owner: str, run: TrackedRun) -> Iterator[Sequence[Point]]:
    measured = Measured(move.report, owner)
    for page in move.source.points(run):
        yield measured.fitting(page)


def _doubled(move: Move, ident: str) -> int:
    """Return how many of a run's points were there twice, as was noted when it came over."""
    mark = move.mark(f"run:{ident}")
    return int(mark["read"]) - int(mark["points"]) if mark else 0


def _run_differs(move: Move, old: OldRun, wanted: TrackedRun, digest: Digest) -> list[str]:
    ledger, run_id = move.ledger, f"run_{wanted.id}"
    known = tracking.get_run(ledger, wanted.id)
    there = {name: getattr(wanted, name) for name in _FIELDS}
    found = fields_differ({name: getattr(known, name) for name in _FIELDS}, there)
    inputs = {(one.dataset.name, one.dataset.digest): one.tags for one in old.inputs}
    here = {
        (one.dataset.name, one.dataset.digest): one.tags for one in datasets.inputs_of(ledger, [run_id]).get(run_id, [])
    }
    if inputs != here:
        found.append("inputs")
    if sorted(models.roles_of(ledger, [run_id]).get(run_id, [])) != sorted(old.roles):
        found.append("models")
    mark, count = move.mark(f"run:{wanted.id}"), bring.counts_of(ledger, run_id)[2]
    if mark and mark["digest"] == str(digest) and mark["points"] == count:
        return found
    own = Digest()
    for page in bring.points_of(ledger, run_id):
        own.add(page)
    if str(own) != str(digest):
        found.append(f"points ({own.count} here, {digest.count} there)")
    return found
