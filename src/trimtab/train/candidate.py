"""From the labelled rows to a candidate: fit on the older ones, measure on the newer ones, package, prove."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from trimtab.check.histogram import Reference, build_reference
from trimtab.core.digest import digest
from trimtab.core.errors import BadInput, StepFailed, TrimtabError
from trimtab.core.nouns import Data, Version
from trimtab.core.optional import need
from trimtab.pipeline.kinds import Made, StepContext, StepResult
from trimtab.train.evaluate import Answers, ask, metrics_on, risk_on
from trimtab.train.fit import Fitted, fit, own_modules, task_of
from trimtab.train.load import Scorer, load_model, wrap
from trimtab.train.package import dump, files_of
from trimtab.train.probe import probe
from trimtab.train.signature import Signature, answerable, columns_from, signature_of
from trimtab.train.split import Cut, Labelled, cut, frame_kind, labelled, until

_GOLDEN = 20
_PROBED = 500
_PREDICTION = "prediction"
_SAME = 1e-9
"""What reading back may change: the order in memory of an array, and with it the last bit of a sum."""
_CLOSE = 1e-6
"""What asking a row alone may change: some libraries compute batches in single precision."""


def make_model(context: StepContext) -> StepResult:
    """Fit a candidate on the older rows, measure it on the newer ones, package it, and read it back.

    Raises:
        BadInput: the inputs do not allow it.
        StepFailed: the function returned no fitted model, or one that does not answer as it should.
    """
    data = labelled(context)
    parts = cut(data, context.declaration.spec["holdout"])
    task = task_of(context, data, parts.train)
    fitted = fit(context, data, parts.train, parts.until)
    made, facts = package(context, data, fitted, task, parts)
    metrics = [(name, 0, value) for name, value in made.meta["metrics"].items()]
    told = {"rows_without_label": data.dropped, "rows_without_time": data.undated, "seconds_fit": fitted.seconds}
    return StepResult(made=[made], metrics=metrics, facts={**told, **facts})


def package(
    context: StepContext, data: Labelled, fitted: Fitted, task: Data, parts: Cut, *, refit_of: Version | None = None
) -> tuple[Made, Data]:
    """Return a fitted model as a version to be, and facts for the record.

    Args:
        context: of the step.
        data: the labelled input.
        fitted: the model.
        task: what ``task_of`` says.
        parts: the rows that it was fitted on, and rows to measure it on; of a refit they are among those that it
            was fitted on, and metrics, risk and the reference of its predictions are the candidate's.
        refit_of: the candidate that it repeats.

    Raises:
        StepFailed: the model cannot answer, cannot be packed, or answers differently afterwards.
    """
    spec, train, kept = context.declaration.spec, parts.train, parts.kept
    signature = signature_of(train, fitted.features, spec.get("unseen", "refuse"))
    rows = answerable(kept, signature)
    if not rows.height:
        raise BadInput(
            f"an endpoint would refuse all {kept.height} held-back rows: they hold categories or missing values "
            "that the older rows lack",
            where=data.name,
            fix="declare unseen='accept', or keep back other rows",
        )
    meta: Data = {**task, "signature": signature}
    try:
        meta |= probe(fitted.model, meta, columns_from(_spread(rows, _PROBED), signature), frame_kind(context, data))
        scorer = wrap(fitted.model, meta)
        output = ask(scorer, rows, signature)
        _check_finite(output)
        content, form = dump(fitted.model, own_modules(context))
        blob = context.store.blobs.put(content)
        location: Data = {"files": {"model": blob}, "format": form["format"]}
        meta |= {**form, "files": location["files"], **_origin(context, data, train, refit_of)}
        golden = _golden(scorer, columns_from(_spread(rows, _GOLDEN), signature))
        _prove(context, location, meta, golden)
    except TrimtabError as error:
        raise type(error)(error.message, where=error.where or context.declaration.where, fix=error.fix) from error
    answers = Answers(rows[data.label].to_list(), output, meta)
    references, unreferenced = _references(train, fitted.features)
    references += _said(context, output, meta, refit_of)
    meta |= {
        "metrics": refit_of.meta["metrics"] if refit_of else metrics_on(answers),
        "risk": refit_of.meta["risk"] if refit_of else risk_on(answers),
        "rows_kept_back": 0 if refit_of else kept.height,
        "rows_refused": 0 if refit_of else kept.height - rows.height,
        "reference": context.store.blobs.put(msgspec.json.encode(references)),
        "golden": context.store.blobs.put(msgspec.json.encode(golden)),
    }
    facts = {name: meta[name] for name in ("rows_kept_back", "rows_refused", "container", "format", "note")}
    facts |= {"rows_train": train.height, "inputs_without_reference": unreferenced}
    return _made(context, location, meta, refit_of), facts


def _made(context: StepContext, location: Data, meta: Data, refit_of: Version | None) -> Made:
    content = {name: meta[name] for name in ("signature", "task", "classes", "container", "answer")}
    blob, form = location["files"]["model"], location["format"]
    return Made(
        asset=context.declaration.name,
        kind="model",
        digest=digest({**content, "model": blob}),
        state="published" if refit_of else "candidate",
        location=location,
        meta=meta,
        aliases=("challenger",) if refit_of else (),
        grants=[{"digest": blob, "format": form}] if form == "pickle" else [],
    )


def _origin(context: StepContext, data: Labelled, train: Any, refit_of: Version | None) -> Data:
    """Return where a model comes from: which rows of which versions, with which params."""
    return {
        "label": data.label,
        "time": data.time,
        "trained_from": until(train.head(1), data.time),
        "trained_until": until(train, data.time),
        "rows_trained": train.height,
        "holdout": context.declaration.spec["holdout"],
        "refit_of": refit_of.id if refit_of else "",
        "refit_digest": refit_of.digest if refit_of else "",
        "data": {name: context.inputs[name].ref for name in context.declaration.inputs},
        "seed": context.seed,
        "params": context.params,
    }


def _spread(rows: Any, most: int) -> Any:
    """Return at most so many rows, evenly spread."""
    return rows.gather_every(max(1, -(-rows.height // most)))


def _check_finite(output: Data) -> None:
    for name in ("predictions", "scores"):
        for row, value in enumerate(output[name] or ()):
            parts = value if isinstance(value, list) else [value]
            if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
                raise StepFailed(
                    f"the model answered {value!r} for held-back row {row}",
                    fix="make it answer every row with a number, also where inputs are missing",
                )


def _golden(scorer: Scorer, columns: Mapping[str, Sequence[Any]]) -> Data:
    """Return some held-back rows as a request brings them, with the model's answer."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return {"rows": rows, "output": scorer.predict(columns)}


def _prove(context: StepContext, location: Data, meta: Data, golden: Data) -> None:
    """Read the package back and ask it as an endpoint will: together, row by row, and with what it never saw."""
    scorer = load_model(files_of(location, context.store.blobs), meta, granted=True)
    signature = Signature({**meta["signature"], "unseen": "accept"})
    # Through JSON, as requests come.
    rows = msgspec.json.decode(msgspec.json.encode(golden["rows"]))
    wanted = msgspec.json.decode(msgspec.json.encode(golden["output"]))
    together = scorer.predict(signature.columns({"rows": rows})[0])
    if not _close(together["predictions"], wanted["predictions"], _SAME) or (
        not _close(together["scores"], wanted["scores"], _SAME)
    ):
        raise StepFailed(
            "the packaged model answers differently from the one that was fitted",
            fix="make predict deterministic and keep its state in the object",
        )
    name = "scores" if wanted["scores"] is not None else "predictions"
    for index, row in enumerate(rows):
        alone = scorer.predict(signature.columns({"rows": [row]})[0])
        if not _close(alone[name][0], wanted[name][index], _CLOSE):
            raise StepFailed(
                f"the model answers a row differently when it is asked alone: {alone[name][0]!r}, "
                f"and {wanted[name][index]!r} among {len(rows)} rows",
                fix="make predict look at each row by itself",
            )
    if meta["signature"]["unseen"] == "accept":
        _prove_accepting(scorer, meta["signature"]["inputs"], rows[0])


def _prove_accepting(scorer: Scorer, inputs: Sequence[Data], row: Data) -> None:
    """Ask for what ``unseen='accept'`` promises to answer."""
    for spec in inputs:
        odd: list[Any] = [] if spec["nullable"] else [None]
        odd += ["a value that training never saw"] if spec["type"] == "string" else []
        for value in odd:
            try:
                _check_finite(scorer.predict({**{name: [one] for name, one in row.items()}, spec["name"]: [value]}))
            except Exception as error:
                what = f"{'no value' if value is None else 'an unseen category'} in {spec['name']!r}"
                raise StepFailed(
                    f"unseen='accept' is declared, and the model cannot answer a row with {what}: {error}",
                    fix="make it cope (an imputer, handle_unknown='ignore'), or declare unseen='refuse'",
                ) from error


def _close(one: Any, other: Any, tolerance: float) -> bool:
    """Say whether two answers are equal, numbers with a fraction up to a tolerance relative to their size."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_close(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return bool(one == other)


def _references(train: Any, names: Sequence[str]) -> tuple[list[Reference], list[str]]:
    """Return a reference histogram of each input over the training rows, and the inputs that allow none."""
    found, without = [], []
    for name in names:
        series = train[name]
        numeric = series.dtype.is_numeric()
        values = series.cast(need("polars").Float64) if numeric else series.to_list()
        try:
            if name == _PREDICTION:
                raise BadInput("the name stands for the model's own answers")
            found.append(build_reference(name, values, kind="numeric" if numeric else "categorical"))
        except BadInput as error:
            # Such as a column without values: there is nothing to drift from, and the record says so.
            without.append(f"{name}: {error.message}")
    return found, without


def _said(context: StepContext, output: Data, meta: Data, refit_of: Version | None) -> list[Reference]:
    """Return the reference of what is answered: on rows that the model, or the candidate, was not fitted on."""
    if refit_of is not None:
        kept = msgspec.json.decode(context.store.blobs.get(refit_of.meta["reference"]), type=list[Reference])
        return [one for one in kept if one.name == _PREDICTION]
    scored = meta["task"] != "multiclass" and output["scores"] is not None
    try:
        if scored:
            return [build_reference(_PREDICTION, output["scores"], kind="numeric")]
        return [build_reference(_PREDICTION, output["predictions"], kind="categorical")]
    except BadInput:
        return []  # too few rows to say how answers are spread
