"""Declarations: decorators that leave a function as it is and record what it stands for.

A decorated function stays an ordinary callable. Parameters without a default are its inputs and are wired by
name; parameters with a default are its params. Nothing is executed or imported here: the project worker
collects what was declared and the pipeline checks how it hangs together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal, TypeVar

from msgspec import Struct, field

from trimtab.core.clock import parse_duration
from trimtab.core.digest import canonical
from trimtab.core.errors import ProjectError, TrimtabError, WrongUse, closest
from trimtab.core.nouns import Check, Condition, Data
from trimtab.core.ref import check_name

F = TypeVar("F", bound=Callable[..., Any])
LAYERS = ("bronze", "silver", "gold")


class Declaration(Struct, frozen=True, kw_only=True):
    """What one decorated function stands for, as data.

    Attributes:
        inputs: names of the assets it takes, in the order of its parameters.
        frames: input name -> the frame type that its annotation asks for, as text, or an empty string.
        params: its params with their defaults.
        spec: the decorator's options.
    """

    name: str
    kind: str
    module: str
    qualname: str
    file: str
    line: int
    inputs: tuple[str, ...] = ()
    frames: dict[str, str] = field(default_factory=dict)
    params: Data = field(default_factory=dict)
    spec: Data = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    doc: str = ""

    @property
    def where(self) -> str:
        """``file:line`` of the function."""
        return f"{self.file}:{self.line}"


class EndpointDeclaration(Struct, frozen=True, kw_only=True):
    """A declared endpoint; its actions (``roll_out``, ``roll_back``) can stand behind ``then=``."""

    name: str
    serves: str
    spec: Data
    file: str
    line: int

    @property
    def where(self) -> str:
        """``file:line`` of the declaration."""
        return f"{self.file}:{self.line}"

    @property
    def roll_out(self) -> Action:
        """The action of rolling out the challenger by this endpoint's plan."""
        return Action(do="roll_out", target=self.name)

    @property
    def roll_back(self) -> Action:
        """The action of returning to the former deployment."""
        return Action(do="roll_back", target=self.name)


class Action(Struct, frozen=True, kw_only=True):
    """Something that an automation does: ``run`` an asset, ``roll_out`` or ``roll_back`` an endpoint."""

    do: Literal["run", "roll_out", "roll_back"]
    target: str


class AutomationDeclaration(Struct, frozen=True, kw_only=True):
    """A declared automation: a condition and the actions that follow it, in order."""

    name: str
    when: Condition
    actions: tuple[Action, ...]
    spec: Data
    file: str
    line: int

    @property
    def where(self) -> str:
        """``file:line`` of the declaration."""
        return f"{self.file}:{self.line}"


AnyDeclaration = Declaration | EndpointDeclaration | AutomationDeclaration


class Registry:
    """Collects declarations in the order in which they are made; one for each interpreter."""

    def __init__(self) -> None:
        self.declared: list[AnyDeclaration] = []

    def add(self, declaration: AnyDeclaration) -> None:
        """Record ``declaration``; the same place declaring again (a reload) replaces the earlier one."""
        self.declared = [
            known
            for known in self.declared
            if (known.name, known.file, known.line) != (declaration.name, declaration.file, declaration.line)
        ]
        self.declared.append(declaration)


REGISTRY = Registry()


class Int(Struct, frozen=True):
    """A whole number to search between ``low`` and ``high``, both included."""

    low: int
    high: int


class Float(Struct, frozen=True):
    """A number to search between ``low`` and ``high``; ``log`` searches its logarithm."""

    low: float
    high: float
    log: bool = False


class Choice(Struct, frozen=True):
    """One of several values to search."""

    options: tuple[Any, ...]


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
    paths = [path] if isinstance(path, str) else list(path or ())
    spec = {"path": paths, "format": format, "null": list(null), "time": time, "fresh": fresh}
    return _decorator("source", fn, {**spec, "owner": owner, "layer": layer}, checks)


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
    keys = [key] if isinstance(key, str) else list(key or ())
    spec = {"layer": layer, "key": keys, "time": time, "fresh": fresh, "bar": bar, "owner": owner}
    return _decorator("table", fn, spec, checks)


def features(
    fn: F | None = None,
    *,
    entity: str | Sequence[str],
    time: str,
    fresh: str | None = None,
    checks: Sequence[Check] = (),
    owner: str = "",
) -> Any:
    """Declare a feature set: values of an entity that become known at a time.

    Args:
        fn: the function; it returns one row for each entity and time.
        entity: the column or columns that name the entity.
        time: the column that says from when the values are known.
        fresh: how old the newest row may be before a model refuses the input.
        checks: what must hold before a version is published.
        owner: who answers for it.
    """
    entities = [entity] if isinstance(entity, str) else list(entity)
    spec = {"entity": entities, "key": [*entities, time], "time": time, "fresh": fresh, "layer": "gold"}
    return _decorator("features", fn, {**spec, "owner": owner}, checks)


def model(
    fn: F | None = None,
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
) -> Any:
    """Declare a model: a function of tables that returns a fitted estimator or a ``tt.Predictor``.

    The function never sees the rows that its gate is judged on: the rows of the labelled input are split by
    time, the newest ``holdout`` of them are kept back, and champion and challenger are compared on rows newer
    than every row that either was trained on.

    Args:
        fn: the function.
        label: the column to predict.
        data: the input that holds the label; by default the first input that has such a column.
        time: the column to split by; by default the time column of that input.
        holdout: a length such as ``14d``, or a share of the rows (0 to 1).
        features: the columns that a request must bring; by default the columns that the estimator was
            fitted on, else all columns of the labelled input but label, key, time and batch columns.
        task: what kind of label it is; ``auto`` looks at the column.
        unseen: what a request with a category that training never saw gets: an error that names it
            (``refuse``), or an answer with a warning (``accept``).
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
            where=_place(fn) if fn is not None else _caller(),
            fix="remove them; give the params their values as defaults or with `trimtab run --param`",
        )
    spec = {"label": label, "data": data, "time": time, "holdout": holdout, "refit": refit, "seed": seed}
    more = {"features": list(features) if features is not None else None, "task": task, "group": group}
    return _decorator("model", fn, {**spec, **more, "unseen": unseen, "owner": owner}, gate)


class Rollout(Struct, frozen=True, kw_only=True):
    """How a new deployment takes over traffic, as data."""

    kind: Literal["canary", "blue_green"]
    steps: tuple[float, ...]
    soak: str
    minimum: int
    deadline: str
    alpha: float
    advance: Literal["no_harm", "proven"]
    margin: float
    on_inconclusive: Literal["pause", "rollback", "promote"]
    judge: tuple[Check, ...]


def canary(
    steps: Sequence[float] = (1, 5, 25, 100),
    *,
    judge: Sequence[Check] = (),
    soak: str = "10m",
    minimum: int = 50,
    deadline: str = "30d",
    alpha: float = 0.05,
    advance: Literal["no_harm", "proven"] = "no_harm",
    margin: float = 0.25,
    on_inconclusive: Literal["pause", "rollback", "promote"] = "pause",
) -> Rollout:
    """Return a plan that raises a new deployment's share step by step while a judge watches.

    Args:
        steps: percent of traffic, rising, ending at 100.
        judge: checks such as ``ck.errors()`` and ``ck.latency("1s")``; without any, errors are judged.
        soak: the least event time that a step lasts.
        minimum: the least number of requests that the new deployment answers in a step.
        deadline: after this event time in one step without a decision the step is inconclusive.
        alpha: the chance of rolling back a version that is no worse, over the whole rollout.
        advance: ``no_harm`` ends a step without evidence of harm; ``proven`` needs non-inferiority.
        margin: the risk ratio that ``proven`` must rule out is ``1 + margin``.
        on_inconclusive: what happens at the deadline.
    """
    shares = tuple(float(step) for step in steps)
    rising = all(a < b for a, b in pairwise(shares))
    if not shares or not rising or shares[0] <= 0 or shares[-1] != 100:
        raise ProjectError(
            f"canary steps {list(steps)} do not rise to 100", where=_caller(), fix="such as [1, 5, 25, 100]"
        )
    return Rollout(
        kind="canary",
        steps=shares,
        soak=_duration(soak, "soak"),
        minimum=minimum,
        deadline=_duration(deadline, "deadline"),
        alpha=_share(alpha, "alpha"),
        advance=advance,
        margin=margin,
        on_inconclusive=on_inconclusive,
        judge=tuple(judge),
    )


def blue_green(*, judge: Sequence[Check] = (), watch: str = "10m", alpha: float = 0.05) -> Rollout:
    """Return a plan that switches all traffic at once when the new deployment is ready.

    Args:
        judge: checks that watch the new deployment after the switch.
        watch: the event time for which the old deployment is kept warm and the judge may switch back.
        alpha: the chance of switching back from a version that is no worse.
    """
    return Rollout(
        kind="blue_green",
        steps=(100.0,),
        soak=_duration(watch, "watch"),
        minimum=0,
        deadline="3650d",
        alpha=_share(alpha, "alpha"),
        advance="no_harm",
        margin=0.25,
        on_inconclusive="promote",
        judge=tuple(judge),
    )


def endpoint(
    name: str,
    *,
    serves: Callable[..., Any] | str,
    rollout: Rollout | None = None,
    sticky: str = "",
    timeout: str = "30s",
    threads: int = 1,
) -> EndpointDeclaration:
    """Declare an endpoint; ``trimtab apply`` makes it live.

    Args:
        name: its name in the URL and in references; it owns ``NAME.calls`` and ``NAME.labels``.
        serves: the model function, or its name.
        rollout: how a new version takes over; by default a canary of 1, 5, 25, 100 %.
        sticky: the request header whose value keeps a caller on one deployment; by default each
            request is drawn by itself.
        timeout: after this (real) time a request is answered with 504.
        threads: compute threads for one worker.
    """
    file, line = _caller_place()
    where = f"{file}:{line}"
    target = serves if isinstance(serves, str) else declaration_of(serves, where).name
    spec: Data = {
        "rollout": _plain(rollout or canary()),
        "sticky": sticky,
        "timeout": _duration(timeout, "timeout"),
        "threads": threads,
    }
    made = EndpointDeclaration(
        name=check_name(name, where=where), serves=target, spec=spec, file=file, line=line
    )
    REGISTRY.add(made)
    return made


def when(
    condition: Condition,
    *,
    run: Callable[..., Any] | str | None = None,
    then: Action | Sequence[Action] | None = None,
    cooldown: str = "0s",
    limit: str = "",
    name: str = "",
) -> AutomationDeclaration:
    """Declare an automation: when ``condition`` comes true, run an asset, then act.

    Args:
        condition: such as ``ck.drift("api.calls", false_alarms="1/year").fails``.
        run: the asset to run first.
        then: what follows when that run's gate passed, such as ``api.roll_out``.
        cooldown: the least event time between two firings.
        limit: the most firings in a length of event time, such as ``4/30d``; empty means no limit.
        name: by default made from the condition and the actions.
    """
    file, line = _caller_place()
    where = f"{file}:{line}"
    if not isinstance(condition, Condition):
        raise ProjectError(
            f"tt.when takes a condition, not a {type(condition).__name__}",
            where=where,
            fix="write a check and its verdict, such as ck.drift('api.calls').fails",
        )
    actions: list[Action] = []
    if run is not None:
        target = run if isinstance(run, str) else declaration_of(run, where).name
        actions.append(Action(do="run", target=target))
    extra = [then] if isinstance(then, Action) else list(then or ())
    actions.extend(extra)
    if not actions:
        raise ProjectError("tt.when does nothing", where=where, fix="give run= or then=")
    made = AutomationDeclaration(
        name=name or f"{condition.check.name} -> {', '.join(f'{a.do} {a.target}' for a in actions)}",
        when=condition,
        actions=tuple(actions),
        spec={"cooldown": _duration(cooldown, "cooldown"), "limit": _limit(limit, where)},
        file=file,
        line=line,
    )
    REGISTRY.add(made)
    return made


class SQL(Struct, frozen=True):
    """SQL text that a table function returns; its inputs stand as tables under their parameter names."""

    text: str
    params: tuple[Any, ...] = ()


def sql(text: str, *params: Any) -> SQL:
    """Return a SQL step: DuckDB SQL over the function's inputs, with ``?`` for each of ``params``."""
    return SQL(text, tuple(params))


def declaration_of(fn: Callable[..., Any], where: str = "") -> Declaration:
    """Return what ``fn`` was declared as.

    Raises:
        ProjectError: it carries no decorator.
    """
    found = getattr(fn, "__trimtab__", None)
    if not isinstance(found, Declaration):
        raise ProjectError(
            f"{getattr(fn, '__name__', fn)!r} is not a declared asset",
            where=where,
            fix="decorate it with @tt.source, @tt.table, @tt.features or @tt.model",
        )
    return found


def _decorator(kind: str, fn: Any, spec: Data, checks: Sequence[Check]) -> Any:
    def decorate(function: F) -> F:
        where = _place(function)
        if not callable(function) or not hasattr(function, "__code__"):
            raise ProjectError(f"@tt.{kind} decorates functions, not {function!r}", where=where)
        _check_options(kind, spec, checks, where)
        inputs, frames, params = _signature(kind, function, where)
        code = function.__code__
        made = Declaration(
            name=check_name(function.__name__, where=where),
            kind=kind,
            module=function.__module__,
            qualname=function.__qualname__,
            file=code.co_filename,
            line=code.co_firstlineno,
            inputs=inputs,
            frames=frames,
            params=params,
            spec=spec,
            checks=tuple(checks),
            doc=inspect.getdoc(function) or "",
        )
        REGISTRY.add(made)
        function.__trimtab__ = made  # type: ignore[attr-defined]
        return function

    return decorate if fn is None else decorate(fn)


_TEXT = ("time", "fresh", "owner", "label", "data", "group", "task", "format")


def _check_options(kind: str, spec: Data, checks: Sequence[Check], where: str) -> None:
    layer = spec.get("layer")
    if layer is not None and layer not in LAYERS:
        raise ProjectError(
            f"layer {layer!r} is not a layer{closest(str(layer), LAYERS)}",
            where=where,
            fix=f"one of {LAYERS}",
        )
    for name in _TEXT:
        value = spec.get(name)
        if value is not None and not isinstance(value, str):
            raise ProjectError(
                f"{name}= takes text, not {type(value).__name__}", where=where, fix=f"{name}='...'"
            )
    for name in ("key", "entity", "path", "null", "features"):
        for item in spec.get(name) or ():
            if not isinstance(item, str):
                raise ProjectError(f"{name}= takes text, not {type(item).__name__}", where=where)
    for check in checks:
        if not isinstance(check, Check):
            raise ProjectError(
                f"a check is missing its arguments or is no check: {check!r}",
                where=where,
                fix="such as ck.unique('id') or ck.missing('amount', at_most=0.01)",
            )
    try:
        if spec.get("fresh") is not None:
            parse_duration(spec["fresh"])
        _check_model(kind, spec)
        canonical(spec)
    except TrimtabError as error:
        raise ProjectError(error.message, where=where, fix=error.fix) from error


def _check_model(kind: str, spec: Data) -> None:
    if kind != "model":
        return
    holdout = spec["holdout"]
    if isinstance(holdout, str):
        parse_duration(holdout)
    elif isinstance(holdout, bool) or not isinstance(holdout, int | float) or not 0 < holdout < 1:
        raise WrongUse(f"holdout={holdout!r} is neither a length nor a share", fix="such as '14d' or 0.2")
    if spec["task"] not in ("auto", "binary", "multiclass", "regression"):
        raise WrongUse(f"task={spec['task']!r} is unknown", fix="binary, multiclass, regression or auto")
    if spec["unseen"] not in ("refuse", "accept"):
        raise WrongUse(f"unseen={spec['unseen']!r} is unknown", fix="'refuse' or 'accept'")


def _signature(
    kind: str, function: Callable[..., Any], where: str
) -> tuple[tuple[str, ...], dict[str, str], Data]:
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
    except WrongUse as error:
        raise ProjectError(
            f"param {parameter.name}={parameter.default!r} cannot be recorded: {error.message}",
            where=where,
            fix=error.fix,
        ) from error
    wanted = _SCALARS.get(_annotation(parameter.annotation))
    value = parameter.default
    if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
        raise ProjectError(
            f"param {parameter.name} is annotated {_annotation(parameter.annotation)} "
            f"and its default is {value!r}",
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


def _place(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else _caller()


def _caller_place() -> tuple[str, int]:
    for frame in inspect.stack(context=0)[1:]:
        if frame.filename != __file__:
            return frame.filename, frame.lineno
    return "<unknown>", 0


def _caller() -> str:
    file, line = _caller_place()
    return f"{file}:{line}"


def _duration(text: str | timedelta, name: str) -> str:
    try:
        parse_duration(text)
    except TrimtabError as error:
        raise ProjectError(f"{name}={error.message}", where=_caller(), fix=error.fix) from error
    return f"{text.total_seconds()}s" if isinstance(text, timedelta) else text


def _share(value: float, name: str) -> float:
    if not 0 < value < 1:
        raise ProjectError(f"{name}={value!r} is not between 0 and 1", where=_caller(), fix=f"{name}=0.05")
    return value


def _limit(text: str, where: str) -> str:
    if text:
        count, _, length = text.partition("/")
        if not count.isdigit() or not length:
            raise ProjectError(f"limit={text!r} has another form", where=where, fix="such as '4/30d'")
        _duration(length, "limit")
    return text


def _plain(rollout: Rollout) -> Data:
    data: Data = {name: getattr(rollout, name) for name in Rollout.__struct_fields__}
    data["steps"] = list(rollout.steps)
    data["judge"] = [as_data(check) for check in rollout.judge]
    return data


def as_data(check: Check) -> Data:
    """Return a check as plain data; ``check_from`` is its inverse."""
    return {"name": check.name, "kind": check.kind, "params": dict(check.params), "severity": check.severity}


def check_from(data: Data) -> Check:
    """Return the check that ``as_data`` wrote."""
    return Check(name=data["name"], kind=data["kind"], params=data["params"], severity=data["severity"])


def checks_from(items: Iterable[Data]) -> tuple[Check, ...]:
    """Return the checks that ``as_data`` wrote, in their order."""
    return tuple(check_from(item) for item in items)
