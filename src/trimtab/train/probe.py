"""How a fitted model wants to be asked, found out by asking it.

An estimator does not say which kind of frame it was fitted on, nor whether its most probable class is always
the class that it predicts. A serving worker must know both, and pays for them with each request: on a pipeline
of 29 mixed columns one row costs 1.5 CPU-ms as an object array, 2.4 as a Polars frame and 4.4 as a pandas one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from trimtab.core.errors import StepFailed, TrimtabError
from trimtab.core.nouns import Data
from trimtab.core.optional import have
from trimtab.train.load import is_chance, plain_list, wrap
from trimtab.train.predictor import Predictor

_ALONE = 5
_OWN_THRESHOLD = frozenset({"FixedThresholdClassifier", "TunedThresholdClassifierCV", "SVC", "NuSVC"})


def probe(model: Any, meta: Mapping[str, Any], columns: Mapping[str, Sequence[Any]], given: str) -> Data:
    """Return ``{"container", "missing_text", "answer"}``.

    ``container`` is what a request's columns are put into: ``columns`` (a Predictor takes them as they are),
    ``numpy`` (an estimator fitted without column names), ``polars`` or ``pandas``: of two that give the same
    answers the cheaper. ``answer`` is what the model's answer means: ``number``; ``probability`` or ``label``
    (a Predictor, or an estimator without probabilities); ``argmax`` (probabilities, and the most probable
    class is the prediction) or ``both`` (probabilities, and a prediction of its own).

    Args:
        model: the fitted model.
        meta: task, classes, positive and signature.
        columns: some rows that the model was not fitted on.
        given: the kind of frame that its function got.

    Raises:
        StepFailed: it cannot answer, or what it answers is no answer to its task.
    """
    if isinstance(model, Predictor):
        found = {"container": "columns", "missing_text": "none"}
        return {**found, "answer": _meaning(_asked(lambda: _raw(model, columns)), meta)}
    missing = "nan" if given == "pandas" else "none"
    number = meta["task"] == "regression"
    chances = not number and hasattr(model, "predict_proba")
    base = {"missing_text": missing, "answer": "number" if number else "both" if chances else "label"}
    container = _container(model, {**meta, **base}, columns, given)
    found = {"container": container, **base}
    if chances and type(_last(model)).__name__ not in _OWN_THRESHOLD:
        said = _asked(lambda: wrap(model, {**meta, **found}).predict(columns))["predictions"]
        cheaper = {**found, "answer": "argmax"}
        if _asked(lambda: wrap(model, {**meta, **cheaper}).predict(columns))["predictions"] == said:
            return cheaper
    return found


def _container(model: Any, meta: Data, columns: Mapping[str, Sequence[Any]], given: str) -> str:
    if not hasattr(model, "feature_names_in_"):
        _asked(lambda: wrap(model, {**meta, "container": "numpy"}).predict(columns))
        return "numpy"
    wanted = ["pandas", "polars"] if given == "pandas" else ["polars", "pandas"]
    answers: dict[str, Any] = {}
    errors: list[StepFailed] = []
    for container in wanted:
        if container == "pandas" and not have("pandas"):
            continue
        try:
            answers[container] = _asked(partial(_answers, model, {**meta, "container": container}, columns))
        except StepFailed as error:
            errors.append(error)
    if not answers:
        raise errors[0]
    first = next(iter(answers))
    return "polars" if answers.get("polars") == answers[first] else first


def _answers(model: Any, meta: Data, columns: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Return what a model says about rows together, about some alone, and about one without texts."""
    scorer = wrap(model, meta)
    return [scorer.predict(part) for part in (columns, *_some(meta, columns))]


def _some(meta: Data, columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Sequence[Any]]]:
    rows = len(next(iter(columns.values())))
    for row in range(min(rows, _ALONE)):
        yield {name: values[row : row + 1] for name, values in columns.items()}
    nullable = {spec["name"] for spec in meta["signature"]["inputs"] if spec["nullable"]}
    yield {name: [None] if name in nullable else values[:1] for name, values in columns.items()}


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except TrimtabError:
        raise
    except Exception as error:
        raise StepFailed(
            f"the model failed on rows that it was not fitted on: {type(error).__name__}: {error}",
            fix="make it take missing values and the columns of a request as they are",
        ) from error


def _raw(model: Predictor, columns: Mapping[str, Sequence[Any]]) -> list[Any]:
    return plain_list(model.predict(columns), len(next(iter(columns.values()))))


def _meaning(said: list[Any], meta: Mapping[str, Any]) -> str:
    if meta["task"] == "regression":
        return "number"
    binary = meta["task"] == "binary"
    strange = [value for value in said if not _is_class(value, meta["classes"])]
    fractions = any(isinstance(value, float) for value in said)
    if binary and (strange or fractions) and all(is_chance(value) for value in said):
        return "probability"
    if strange:
        more = ", or with numbers between 0 and 1" if binary else ""
        worst = next((value for value in strange if not (binary and is_chance(value))), strange[0])
        raise StepFailed(
            f"the model answered {worst!r}, which is no class of the label: {meta['classes']}",
            fix=f"answer with the label's own values{more}",
        )
    return "label"


def _is_class(value: Any, classes: Sequence[Any]) -> bool:
    return isinstance(value, str | int | float) and value in classes


def _last(model: Any) -> Any:
    """Return the estimator that decides: the last step of a pipeline, the best one of a search."""
    for name in ("steps", "best_estimator_"):
        inner = getattr(model, name, None)
        if inner is not None:
            return _last(inner[-1][1] if name == "steps" else inner)
    return model
