"""The decorators ``@tt.source``, ``@tt.table``, ``@tt.features`` and ``@tt.model``.

A decorated function stays an ordinary callable. Parameters without a default are its inputs and are wired by
name; parameters with a default are its params. Nothing is executed or imported here: the project worker
collects what was declared and the pipeline checks how it hangs together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, overload

from trimtab.core import options
from trimtab.core.declare import LAYERS, REGISTRY, Choice, Declaration, Float, Int
from trimtab.core.digest import canonical
from trimtab.core.errors import ProjectError, WrongUse
from trimtab.core.nouns import Check, Data
from trimtab.core.place import caller, place_of
from trimtab.core.ref import check_name

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")


def _with_options(such_as: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a decorator that cannot do without options say so, with the user's file and line."""

    def around(declare: Callable[P, R]) -> Callable[P, R]:
        told = f"@tt.{declare.__name__}({such_as})"

        @wraps(declare)
        def call(*args: P.args, **given: P.kwargs) -> R:
            try:
                inspect.signature(declare).bind(*args, **given)
            except TypeError as error:
                text = "has no options" if args else str(error)
                raise ProjectError(f"@tt.{declare.__name__}: {text}", where=caller(), fix=f"such as {told}") from None
            return declare(*args, **given)

        return call

    return around


@overload
def source(fn: F, /) -> F: ...


@overload
def source(
    *,
    path: str | Sequence[str] | None = None,
    format: Literal["auto", "csv", "parquet", "json", "jsonl"] = "auto",
    time: str | None = None,
    fresh: str | None = None,
    null: Sequence[str] = ("",),
    checks: Sequence[Check] = (),
    owner: str = "",
    layer: Literal["bronze"] = "bronze",
) -> Callable[[F], F]: ...


def source(
    fn: F | None = None,
    *,
    path: str | Sequence[str] | None = None,
    format: Literal["auto", "csv", "parquet", "json", "jsonl"] = "auto",
    time: str | None = None,
    fresh: str | None = None,
    null: Sequence[str] = ("",),
    checks: Sequence[Check] = (),
    owner: str = "",
    layer: Literal["bronze"] = "bronze",
) -> Any:
    """Declare where rows come from; each run appends what is new to a bronze table, as received.

    Args:
        fn: the function; with ``path`` it may take one file's path and return that file's rows
            (a body of ``...`` reads the file by its format), without ``path`` it returns all rows.
        path: a glob below the project folder, or several; each file is one batch.
        format: how to read a file; ``auto`` goes by the ending (also ``.gz`` and ``.zip`` of one file).
        time: the column that holds each row's event time; freshness is counted from its newest value.
        fresh: how old the newest row may be before a model refuses the input, such as ``2d``.
        null: CSV texts that mean "no value".
        checks: what must hold before a version is published.
        owner: who answers for it.
        layer: always bronze.
    """
    spec = {
        "path": [] if path is None else options.texts(path, "path"),
        "format": options.option(format, "format", options.FORMATS),
        "null": options.texts(null, "null", empty=True),
        "time": time,
        "fresh": fresh,
        "owner": owner,
        "layer": options.option(layer, "layer", ("bronze",)),
    }
    decorate = _decorator("source", spec, options.checks_of(checks, "checks"))
    return decorate if fn is None else decorate(fn)


@overload
def table(fn: F, /) -> F: ...


@overload
def table(
    *,
    layer: Literal["bronze", "silver", "gold"] = "silver",
    key: str | Sequence[str] | None = None,
    time: str | None = None,
    fresh: str | None = None,
    checks: Sequence[Check] = (),
    bar: float = 0.0,
    owner: str = "",
) -> Callable[[F], F]: ...


def table(
    fn: F | None = None,
    *,
    layer: Literal["bronze", "silver", "gold"] = "silver",
    key: str | Sequence[str] | None = None,
    time: str | None = None,
    fresh: str | None = None,
    checks: Sequence[Check] = (),
    bar: float = 0.0,
    owner: str = "",
) -> Any:
    """Declare a table: frames in by parameter names, a frame (or ``tt.sql`` text) out.

    Args:
        fn: the function; it returns a Polars, pandas, Arrow or DuckDB frame, or ``tt.sql(...)``.
        layer: ``bronze``, ``silver`` or ``gold``.
        key: the column or columns that name a row; quarantined rows are told by it.
        time: the column that holds each row's event time.
        fresh: how old the newest row may be before a model refuses the input, such as ``2d``.
        checks: what must hold before a version is published; failing rows go to ``NAME.quarantine``.
        bar: the quality score (0 to 1) that is aimed at; the distance to it is kept for each version.
        owner: who answers for it.
    """
    spec = {
        "layer": options.option(layer, "layer", LAYERS),
        "key": [] if key is None else options.texts(key, "key"),
        "time": time,
        "fresh": fresh,
        "bar": options.share(bar, "bar"),
        "owner": owner,
    }
    decorate = _decorator("table", spec, options.checks_of(checks, "checks"))
    return decorate if fn is None else decorate(fn)


@_with_options("entity='route', time='at'")
def features(
    *,
    entity: str | Sequence[str],
    time: str,
    fresh: str | None = None,
    checks: Sequence[Check] = (),
    owner: str = "",
) -> Callable[[F], F]:
    """Declare a feature set: values of an entity that become known at a time.

    The function returns one row for each entity and time.

    Args:
        entity: the column or columns that name the entity.
        time: the column that says from when the values are known.
        fresh: how old the newest row may be before a model refuses the input.
        checks: what must hold before a version is published.
        owner: who answers for it.
    """
    entities = options.texts(entity, "entity")
    if not entities:
        raise options.wrong("entity", entity, "names no column", fix="such as entity='route'")
    key = [*entities, options.text(time, "time", empty=False)]
    spec = {"entity": entities, "key": key, "time": time, "fresh": fresh, "layer": "gold"}
    return _decorator("features", {**spec, "owner": owner}, options.checks_of(checks, "checks"))


@_with_options("label='late'")
def model(
    *,
    label: str,
    data: str | None = None,
    time: str | None = None,
    holdout: str | float = 0.2,
    features: Sequence[str] | None = None,
    task: Literal["auto", "binary", "multiclass", "regression"] = "auto",
    unseen: Literal["refuse", "accept"] = "refuse",
    gate: Sequence[Check] = (),
    refit: bool = False,
    seed: int = 0,
    group: str | None = None,
    search: Mapping[str, Int | Float | Choice] | None = None,
    trials: int = 0,
    owner: str = "",
) -> Callable[[F], F]:
    """Declare a model: a function of tables that returns a fitted estimator or a ``tt.Predictor``.

    The function never sees the rows that its gate is judged on: the rows of the labelled input are split by
    time, the newest ``holdout`` of them are kept back, and champion and challenger are compared on rows newer
    than every row that either was trained on.

    Args:
        label: the column to predict.
        data: the input that holds the label; by default the first input that has such a column.
        time: the column to split by; by default the time column of that input.
        holdout: a length such as ``14d``, or a share of the rows (0 to 1).
        features: the columns that a request must bring; by default the columns that the estimator was
            fitted on, else all columns of the labelled input but label, key, time and batch columns.
        task: what kind of label it is; ``auto`` looks at the column.
        unseen: what a request gets with a category that training never saw, or without a value where training
            saw no missing ones: an error that names it (``refuse``), or an answer with a warning (``accept``).
        gate: checks that a candidate must pass to be published.
        refit: after a passed gate, fit once more with the same params on all rows; recorded as a refit.
        seed: seeds Python's and numpy's global generators before the function runs; recorded.
        group: a column (such as a day) whose rows belong together; intervals then resample groups.
        search: params to search (a later release; refused when it is used now).
        trials: how many candidates to try.
        owner: who answers for it.
    """
    if search or trials:
        raise ProjectError(
            "search= and trials= are not available in this release",
            where=caller(),
            fix="remove them; give the params their values as defaults or with `trimtab run --param`",
        )
    spec = {
        "label": options.text(label, "label", empty=False),
        "data": options.maybe_text(data, "data"),
        "time": time,
        "holdout": _holdout(holdout),
        "refit": options.flag(refit, "refit"),
        "seed": options.whole(seed, "seed"),
        "features": None if features is None else _columns(features, label),
        "task": options.option(task, "task", ("auto", "binary", "multiclass", "regression")),
        "group": options.maybe_text(group, "group"),
        "unseen": options.option(unseen, "unseen", ("refuse", "accept")),
        "owner": owner,
    }
    return _decorator("model", spec, options.checks_of(gate, "gate"))


def _holdout(value: Any) -> str | float:
    if isinstance(value, str):
        return options.duration(value, "holdout", positive=True)
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not 0 < value < 1:
        raise options.wrong("holdout", value, "is neither a length nor a share", fix="such as '14d' or 0.2")
    return float(value)


def _columns(features: Any, label: str) -> list[str]:
    found = options.texts(features, "features")
    if not found:
        raise options.wrong("features", features, "names no column", fix="leave it out, or name columns")
    if label in found:
        raise options.wrong("features", features, f"has the label {options.show(label)} in it", fix="leave it out")
    return found


def _decorator(kind: str, spec: Data, checks: tuple[Check, ...]) -> Callable[[F], F]:
    options.text(spec["owner"], "owner")
    options.maybe_text(spec["time"], "time")
    if spec.get("fresh") is not None:
        spec["fresh"] = options.duration(spec["fresh"], "fresh")

    def decorate(function: F) -> F:
        where = place_of(function)
        _check_function(kind, function, where)
        inputs, frames, params = _signature(kind, function, where)
        code = function.__code__
        made = Declaration(
            name=_name(function, where),
            kind=kind,
            module=function.__module__,
            qualname=function.__qualname__,
            file=code.co_filename,
            line=code.co_firstlineno,
            inputs=inputs,
            frames=frames,
            params=params,
            spec=spec,
            checks=checks,
            doc=inspect.getdoc(function) or "",
        )
        REGISTRY.add(made)
        function.__trimtab__ = made  # type: ignore[attr-defined]
        return function

    return decorate


def _check_function(kind: str, function: Any, where: str) -> None:
    if not callable(function) or not hasattr(function, "__code__"):
        raise ProjectError(
            f"@tt.{kind} decorates functions, not {options.show(function)}",
            where=where,
            fix=f"write @tt.{kind}(...) above a def, with every argument by its name",
        )
    name = function.__name__
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ProjectError(f"{name} is an async function, and nobody awaits a step", where=where, fix="write plain def")
    if inspect.isgeneratorfunction(function):
        raise ProjectError(
            f"{name} is a generator (it has a yield), and a step returns its rows at once",
            where=where,
            fix="collect the rows and return them",
        )


def _name(function: Any, where: str) -> str:
    try:
        return check_name(function.__name__)
    except WrongUse as error:
        raise ProjectError(f"a step's function: {error.message}", where=where, fix=error.fix) from error


def _signature(kind: str, function: Callable[..., Any], where: str) -> tuple[tuple[str, ...], dict[str, str], Data]:
    inputs: list[str] = []
    frames: dict[str, str] = {}
    params: Data = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ProjectError(
                f"parameter {parameter} of {function.__name__} cannot be wired by name",
                where=where,
                fix="use plain named parameters",
            )
        if parameter.default is parameter.empty:
            inputs.append(parameter.name)
            frames[parameter.name] = _annotation(parameter.annotation)
            continue
        _check_param(parameter, where)
        params[parameter.name] = parameter.default
    if kind == "source":
        inputs, frames = [], {}
    return tuple(inputs), frames, params


_SCALARS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def _check_param(parameter: inspect.Parameter, where: str) -> None:
    try:
        canonical(parameter.default)
    except (WrongUse, ValueError, RecursionError) as error:
        raise ProjectError(
            f"param {parameter.name}={options.show(parameter.default)} cannot be recorded: {error}",
            where=where,
            fix="use None, bool, int, float, str, bytes, datetime, lists and mappings of these",
        ) from error
    wanted = _SCALARS.get(_annotation(parameter.annotation))
    value = parameter.default
    if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
        raise ProjectError(
            f"param {parameter.name} is annotated {_annotation(parameter.annotation)} and its default is "
            f"{options.show(value)}",
            where=where,
            fix="make the default and the annotation agree",
        )


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    if isinstance(annotation, str):
        return annotation
    module = getattr(annotation, "__module__", "")
    name = getattr(annotation, "__qualname__", str(annotation))
    return name if module == "builtins" else f"{module}.{name}"
