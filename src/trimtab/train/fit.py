"""Fitting, packaging, judging and refitting a model: the work behind ``steps``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from trimtab.check.gates import accepts, first_of_its_kind, judge_beats, judge_metric, undecided
from trimtab.check.histogram import build_reference
from trimtab.core.clock import monotonic
from trimtab.core.context import Recorder, recording
from trimtab.core.digest import digest, digest_bytes
from trimtab.core.errors import BadInput, StepFailed, TrimtabError, WrongUse
from trimtab.core.nouns import Check, Data, Verdict, Version
from trimtab.core.optional import have, need
from trimtab.pipeline.kinds import Made, StepContext, StepResult, load_attribute
from trimtab.store import facts as ledger_facts
from trimtab.train.evaluate import Answers, difference, metrics_on, risk_on, value_interval
from trimtab.train.load import Scorer, load_model, wrap
from trimtab.train.package import dump, files_of
from trimtab.train.predictor import Predictor
from trimtab.train.signature import columns_of, signature_of
from trimtab.train.split import Labelled, cut, labelled, newer_than, until

_GOLDEN = 20
_FEWEST_DAYS = 5
_GIVE = "trimtab.data.frames:from_arrow"
_KIND = "trimtab.data.frames:wanted_kind"


def make_model(context: StepContext) -> StepResult:
    """Fit a candidate on the older rows, measure it on the newer ones, and package it."""
    data = labelled(context)
    train, kept = cut(data, context.declaration.spec["holdout"])
    model, recorder, seconds = _fit(context, data, train)
    made, scorer = _package(context, data, train, kept, model)
    metrics = [(name, 0, value) for name, value in made.meta["metrics"].items()] + recorder.metrics
    facts = {
        "rows_train": train.height, "rows_kept_back": kept.height, "rows_without_label": data.dropped,
        "seconds_fit": seconds, "format": made.meta["format"], "note": made.meta["note"],
    }  # fmt: skip
    del scorer
    return StepResult(made=[made], metrics=metrics, facts=facts, params=recorder.params)


def _fit(context: StepContext, data: Labelled, train: Any) -> tuple[Any, Recorder, float]:
    """Call the user's function with the labelled input cut to ``train``, and check what it returns."""
    give, kind_of = load_attribute(_GIVE), load_attribute(_KIND)
    frames = {
        name: give(train.to_arrow(), kind_of(context.declaration.frames.get(name, "")))
        if name == data.name
        else context.load(name)
        for name in context.declaration.inputs
    }
    started = monotonic()
    with recording(Recorder()) as recorder:
        model = context.function(**frames, **context.params)
    _fitted(context, model)
    return model, recorder, monotonic() - started


def _fitted(context: StepContext, model: Any) -> None:
    where, name = context.declaration.where, context.declaration.name
    if isinstance(model, Predictor):
        return
    if not callable(getattr(model, "predict", None)):
        raise StepFailed(
            f"{name} returned {type(model).__name__}, which cannot predict",
            where=where,
            fix="return a fitted estimator or a tt.Predictor",
        )
    if have("sklearn") and type(model).__module__.startswith("sklearn."):
        try:
            need("sklearn.utils.validation").check_is_fitted(model)
        except need("sklearn.exceptions").NotFittedError as error:
            raise StepFailed(f"{name} returned an estimator that is not fitted", where=where, fix="call fit") from error


def _package(
    context: StepContext, data: Labelled, train: Any, kept: Any, model: Any, *, refit_of: str = ""
) -> tuple[Made, Scorer]:
    spec = context.declaration.spec
    names = _features(context, data, model)
    meta: Data = {
        **_task(context, data),
        "signature": signature_of(train, names, spec.get("unseen", "refuse")),
        "container": _container(model),
        "label": data.label,
        "time": data.time,
        "trained_from": until(train.head(1), data.time),
        "trained_until": until(train, data.time),
        "rows_trained": train.height,
        "refit_of": refit_of,
        "data": {name: version.ref for name, version in context.inputs.items() if name != "candidate"},
        "layer": None,
        "seed": context.seed,
        "params": context.params,
    }
    scorer = wrap(model, meta)
    output = _answer(context, scorer, kept, names)
    answers = Answers(kept[data.label].to_list(), output, meta)
    content, form = dump(model, _modules())
    golden = _golden(scorer, kept, names)
    blobs = context.store.blobs
    meta |= {
        **form,
        "metrics": metrics_on(answers),
        "risk": risk_on(answers),
        "rows_kept_back": kept.height,
        "reference": blobs.put(msgspec.json.encode(_references(train, names, output, meta["task"]))),
        "golden": blobs.put(msgspec.json.encode(golden)),
    }
    location = {"files": {"model": blobs.put(content)}}
    _replay(context, location, meta, golden)
    key = digest({"model": digest_bytes(content), "signature": meta["signature"], "task": meta["task"]})
    grants = [{"digest": location["files"]["model"], "format": form["format"]}] if form["format"] == "pickle" else []
    made = Made(
        asset=context.declaration.name,
        kind="model",
        digest=key,
        state="published" if refit_of else "candidate",
        location=location,
        meta=meta,
        aliases=("challenger",) if refit_of else (),
        grants=grants,
    )
    return made, scorer


def _modules() -> frozenset[str]:
    """Return the first-party modules: those that were imported from the snapshot, which is first on the path."""
    home = sys.path[0]
    return frozenset(
        name for name, module in list(sys.modules.items()) if (getattr(module, "__file__", "") or "").startswith(home)
    )


def _features(context: StepContext, data: Labelled, model: Any) -> list[str]:
    spec, columns = context.declaration.spec, data.frame.columns
    wanted = spec["features"]
    if wanted is None and hasattr(model, "feature_names_in_"):
        wanted = [str(name) for name in model.feature_names_in_]
    if wanted is None:
        apart = {data.label, data.time, spec["group"], *data.key}
        wanted = [name for name in columns if name not in apart and not name.startswith("_")]
    for name in wanted:
        if name not in columns:
            raise BadInput(
                f"the feature {name!r} is not a column of {data.name}",
                where=context.declaration.where,
                fix="give features=[...] with the columns that a request brings",
            )
    return list(wanted)


def _container(model: Any) -> str:
    if isinstance(model, Predictor):
        return "columns"
    return "pandas" if hasattr(model, "feature_names_in_") else "numpy"


def _task(context: StepContext, data: Labelled) -> Data:
    series, wanted = data.frame[data.label], context.declaration.spec["task"]
    classes = series.unique().sort().to_list() if not series.dtype.is_float() or wanted != "regression" else []
    if wanted == "auto":
        wanted = "regression" if series.dtype.is_float() else "binary" if len(classes) == 2 else "multiclass"
        if series.dtype.is_integer() and len(classes) > 20:
            wanted = "regression"
    if wanted == "regression":
        return {"task": "regression", "classes": None, "positive": None}
    if len(classes) < 2:
        raise BadInput(
            f"the label {data.label!r} has one class: {classes}", where=context.declaration.where, fix="bring both"
        )
    return {"task": wanted, "classes": classes, "positive": classes[1] if wanted == "binary" else None}


def _answer(context: StepContext, scorer: Scorer, frame: Any, names: Sequence[str]) -> Data:
    columns = {name: frame[name].to_list() for name in names}
    try:
        return scorer.predict(columns)
    except TrimtabError:
        raise
    except Exception as error:
        raise StepFailed(
            f"the model failed on rows that it was not fitted on: {type(error).__name__}: {error}",
            where=context.declaration.where,
            fix="make it take missing values and unseen categories",
        ) from error


def _golden(scorer: Scorer, frame: Any, names: Sequence[str]) -> Data:
    step = max(1, frame.height // _GOLDEN)
    rows = frame.select(names).gather_every(step).head(_GOLDEN).to_dicts()
    columns = {name: [row[name] for row in rows] for name in names}
    return {"rows": rows, "output": scorer.predict(columns)}


def _references(train: Any, names: Sequence[str], output: Data, task: str) -> list[Any]:
    """Return a reference histogram of each input, over the training rows, and of what was predicted on new rows."""
    found = []
    for name in names:
        series = train[name]
        if series.null_count() == len(series):
            continue
        numeric = series.dtype.is_numeric()
        found.append(build_reference(name, series.to_list(), kind="numeric" if numeric else "categorical"))
    if output["scores"] is not None and task != "multiclass":
        found.append(build_reference("prediction", output["scores"], kind="numeric"))
    return found


def _replay(context: StepContext, location: Data, meta: Data, golden: Data) -> None:
    """Read the package back and compare its answers with those of the model that was fitted."""
    scorer = load_model(files_of(location, context.store.blobs), meta, granted=True)
    columns, _ = (
        columns_of({"rows": golden["rows"]}, {**meta["signature"], "unseen": "accept"}) if golden["rows"] else ({}, [])
    )
    if columns and scorer.predict(columns) != golden["output"]:
        raise StepFailed(
            "the packaged model answers differently from the one that was fitted",
            where=context.declaration.where,
            fix="make predict deterministic and keep its state in the object",
        )


def gate_model(context: StepContext) -> StepResult:
    """Judge a candidate on rows that neither it nor the champion was trained on, and refit it if asked."""
    candidate = context.inputs["candidate"]
    data = labelled(context)
    verdicts, facts = _judge(context, data, candidate)
    accepted = accepts(verdicts)
    facts |= {"candidate": candidate.ref, "accepted": accepted}
    if not accepted:
        return StepResult(verdicts=verdicts, facts=facts, decisions=[(candidate.id, "refused")])
    if not context.declaration.spec["refit"]:
        return StepResult(
            verdicts=verdicts, facts={**facts, "challenger": candidate.ref}, decisions=[(candidate.id, "published")]
        )
    model, recorder, seconds = _fit(context, data, data.frame)
    _, kept = cut(data, context.declaration.spec["holdout"])
    made, _ = _package(context, data, data.frame, kept, model, refit_of=candidate.id)
    made.meta.update(risk=candidate.meta["risk"], metrics=candidate.meta["metrics"])
    facts |= {"refit": True, "seconds_fit": seconds}
    return StepResult(
        made=[made], metrics=recorder.metrics, verdicts=verdicts, facts=facts, decisions=[(candidate.id, "published")]
    )


def _judge(context: StepContext, data: Labelled, candidate: Version) -> tuple[list[Verdict], Data]:
    verdicts: list[Verdict] = []
    facts: Data = {}
    fresh = newer_than(data, candidate.meta["trained_until"]) if data.time else cut(data, _share(context))[1]
    own = _answers(context, data, fresh, candidate) if fresh.height else None
    for check in context.declaration.checks:
        at, subject = context.now, candidate.id
        if check.kind == "beats":
            verdict = _judge_beats(context, data, candidate, check)
        elif own is None:
            verdict = undecided(
                check, "there are no rows newer than the candidate's training rows", at=at, subject=subject, facts={}
            )
        else:
            try:
                found = value_interval(check.params["metric"], own, _groups(context, data, fresh), 0.95)
                verdict = judge_metric(check, found, at=at, subject=subject, facts=_window(data, fresh))
            except (BadInput, WrongUse) as error:
                verdict = undecided(check, error.message, at=at, subject=subject, facts=_window(data, fresh))
        verdicts.append(verdict)
        facts[check.name] = {"status": verdict.status, "reason": verdict.reason}
    return verdicts, facts


def _share(context: StepContext) -> float:
    holdout = context.declaration.spec["holdout"]
    return holdout if isinstance(holdout, float) else 0.2


def _judge_beats(context: StepContext, data: Labelled, candidate: Version, check: Check) -> Verdict:
    at, subject = context.now, candidate.id
    name = check.params["champion"] or f"{context.declaration.name}@champion"
    champion = context.references.get(name)
    if champion is None:
        return first_of_its_kind(check, at=at, subject=subject)
    borders = [one for one in (candidate.meta["trained_until"], champion.meta["trained_until"]) if one]
    border = max(borders) if borders else None
    rows = newer_than(data, border) if data.time else cut(data, _share(context))[1]
    facts = {**_window(data, rows), "champion": champion.ref, "candidate": candidate.ref, "newer_than": border}
    if rows.height < check.params["minimum"]:
        reason = (
            f"{rows.height} labelled rows are newer than both models' training rows; {check.params['minimum']} needed"
        )
        return undecided(check, reason, at=at, subject=subject, facts=facts)
    ours, theirs = _answers(context, data, rows, candidate), _answers(context, data, rows, champion)
    metric = check.params["on"]
    try:
        found = difference(metric, ours, theirs, _groups(context, data, rows), check.params["level"])
        facts |= {"candidate_value": metrics_on(ours).get(metric), "champion_value": metrics_on(theirs).get(metric)}
    except (BadInput, WrongUse) as error:
        return undecided(check, error.message, at=at, subject=subject, facts=facts)
    return judge_beats(check, found, at=at, subject=subject, facts=facts)


def _answers(context: StepContext, data: Labelled, rows: Any, version: Version) -> Answers:
    blobs, meta = context.store.blobs, version.meta
    granted = ledger_facts.is_granted(context.store.ledger, version.location["files"]["model"])
    scorer = load_model(files_of(version.location, blobs), meta, granted=granted)
    names = [spec["name"] for spec in meta["signature"]["inputs"]]
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise BadInput(
            f"{version.ref} needs {missing[0]!r}, which {data.name} no longer has",
            where=context.declaration.where,
            fix="keep the column until the champion is replaced, or set another champion",
        )
    return Answers(rows[data.label].to_list(), _answer(context, scorer, rows, names), meta)


def _groups(context: StepContext, data: Labelled, rows: Any) -> list[Any] | None:
    """Return the groups that intervals resample: the declared column, else the day of each row.

    Over fewer than five days rows count by themselves, and the interval says so (``groups`` is 0).
    """
    column = context.declaration.spec["group"]
    if column:
        return list(rows[column].to_list())
    if data.time and rows.schema[data.time].is_temporal():
        days = [str(moment)[:10] for moment in rows[data.time].to_list()]
        return days if len(set(days)) >= _FEWEST_DAYS else None
    return None


def _window(data: Labelled, rows: Any) -> Data:
    first = until(rows.head(1), data.time) if rows.height else None
    return {"rows": rows.height, "from": first, "until": until(rows, data.time)}
