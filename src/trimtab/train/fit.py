"""Calling the user's function, and understanding what it returned."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.core.clock import monotonic
from trimtab.core.errors import BadInput, StepFailed, closest
from trimtab.core.nouns import Data
from trimtab.core.optional import have, need
from trimtab.pipeline.kinds import StepContext
from trimtab.train.predictor import Predictor
from trimtab.train.split import Labelled, given

_MOST_CLASSES = 20


@dataclass(frozen=True)
class Fitted:
    """What a model's function returned.

    Attributes:
        model: a fitted estimator, or a Predictor.
        features: the columns of a request, in the order in which the model takes them.
        seconds: that the function took.
    """

    model: Any
    features: list[str]
    seconds: float


def fit(context: StepContext, data: Labelled, rows: Any, until: Any) -> Fitted:
    """Call the model's function and return a fitted model.

    Args:
        context: of the step.
        data: the labelled input.
        rows: those of its rows that the function may see.
        until: the newest moment that it may see of other inputs; None for all.

    Raises:
        StepFailed: it returned something else than a fitted model.
        BadInput: the columns that requests are to bring cannot be told.
    """
    frames = given(context, data, rows, until)
    _seed(context.seed)
    started = monotonic()
    model = context.function(**frames, **context.params)
    seconds = monotonic() - started
    _check_fitted(context, model)
    return Fitted(model, _features(context, data, model), seconds)


def _seed(seed: int) -> None:
    # A refit runs after a gate, and starts as the fit did that it repeats.
    random.seed(seed)
    if have("numpy"):
        need("numpy").random.seed(seed % (1 << 32))


def _check_fitted(context: StepContext, model: Any) -> None:
    where, name = context.declaration.where, context.declaration.name
    if isinstance(model, Predictor):
        return
    if isinstance(model, type) or not callable(getattr(model, "predict", None)):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise StepFailed(
            f"{name} returned {'nothing' if model is None else what}, which cannot predict",
            where=where,
            fix="return a fitted estimator or a tt.Predictor",
        )
    if any(kind.__module__ == "sklearn.base" for kind in type(model).__mro__):
        try:
            need("sklearn.utils.validation").check_is_fitted(model)
        except need("sklearn.exceptions").NotFittedError as error:
            raise StepFailed(
                f"{name} returned a {type(model).__name__} that is not fitted", where=where, fix="call its fit first"
            ) from error


def _features(context: StepContext, data: Labelled, model: Any) -> list[str]:
    """Return the columns of a request: those that the estimator names, else the declared ones, else all that may be."""
    spec, columns, where = context.declaration.spec, data.frame.columns, context.declaration.where
    named = [str(name) for name in getattr(model, "feature_names_in_", ())]
    declared = spec["features"]
    if declared is not None and named and set(declared) != set(named):
        odd = sorted(set(declared) ^ set(named))[0]
        side = "not fitted on it" if odd in declared else "fitted on it"
        raise StepFailed(
            f"features=[...] {'has' if odd in declared else 'lacks'} {odd!r}, and the estimator was {side}",
            where=where,
            fix="fit on the declared features, or leave features= out",
        )
    apart = {data.label, data.time, spec["group"], *data.key}
    rest = [name for name in columns if name not in apart and not name.startswith("_")]
    found = named or declared or rest
    for name in found:
        if name == data.label:
            raise StepFailed(f"the label {name!r} is among the features", where=where, fix="fit without it")
        if name not in columns:
            raise BadInput(
                f"the feature {name!r} is not a column of {data.name}{closest(name, columns)}",
                where=where,
                fix="give features=[...] with columns of the labelled input, which are what a request brings",
            )
    if not found:
        raise BadInput(f"{data.name} has no columns but label, time and key", where=where, fix="bring features")
    width = getattr(model, "n_features_in_", None)
    if not named and width is not None and width != len(found):
        raise StepFailed(
            f"the estimator was fitted on {width} columns, and a request would bring {len(found)}: {', '.join(found)}",
            where=where,
            fix="give features=[...] with the columns that it was fitted on, in their order",
        )
    return list(found)


def task_of(context: StepContext, data: Labelled, train: Any) -> Data:
    """Return ``{"task", "classes", "positive"}``; of two classes the larger one (such as True) is positive.

    Args:
        context: of the step.
        data: the labelled input, whose rows tell the classes.
        train: those of its rows that the function may see.

    Raises:
        BadInput: the label does not suit the declared task, or has only one class.
    """
    series, task, where = data.frame[data.label], context.declaration.spec["task"], context.declaration.where
    dtype = series.dtype
    if task == "regression" or (task == "auto" and (dtype.is_float() or dtype.is_decimal())):
        if not dtype.is_numeric():
            raise BadInput(f"the label {data.label!r} is {dtype}, no number", where=where, fix="task='multiclass'")
        return {"task": "regression", "classes": None, "positive": None}
    if not (dtype.is_numeric() or str(dtype) in ("Boolean", "String")):
        raise BadInput(f"the label {data.label!r} is {dtype}", where=where, fix="make it a number, a text or a boolean")
    classes = series.unique().sort().to_list()
    if task == "auto":
        task = "binary" if len(classes) == 2 else "multiclass"
        if dtype.is_integer() and len(classes) > _MOST_CLASSES:
            return {"task": "regression", "classes": None, "positive": None}
    if train[data.label].n_unique() < 2:
        which = "" if len(classes) < 2 else " in the rows to train on"
        raise BadInput(
            f"the label {data.label!r} has one class{which}: {train[data.label].unique().to_list()}",
            where=where,
            fix="bring rows of others",
        )
    if task == "binary" and len(classes) != 2:
        raise BadInput(
            f"the label {data.label!r} has {len(classes)} classes: {classes[:5]}", where=where, fix="task='multiclass'"
        )
    return {"task": task, "classes": classes, "positive": classes[1] if task == "binary" else None}


def own_modules(context: StepContext) -> frozenset[str]:
    """Return the imported modules that come with the project: those beside the module of the model's function."""
    module = sys.modules.get(context.declaration.module)
    file = getattr(module, "__file__", None)
    if file is None:
        return frozenset()
    depth = context.declaration.module.count(".") + (Path(file).name == "__init__.py")
    home = Path(file).parents[depth]
    return frozenset(
        name
        for name, other in list(sys.modules.items())
        if name != "__main__" and _lies_in(home, getattr(other, "__file__", None))
    )


def _lies_in(home: Path, file: str | None) -> bool:
    if file is None or not Path(file).is_relative_to(home):
        return False
    return not {"site-packages", "dist-packages"} & set(Path(file).relative_to(home).parts)
