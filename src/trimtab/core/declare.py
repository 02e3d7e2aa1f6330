"""Declarations as data: what a project's functions, endpoints and automations stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from msgspec import Struct, field

from trimtab.core import options
from trimtab.core.errors import ProjectError
from trimtab.core.nouns import Check, Condition, Data

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

    def __post_init__(self) -> None:
        low, high = options.whole(self.low, "tt.Int: low"), options.whole(self.high, "tt.Int: high")
        if low >= high:
            raise options.wrong(
                "tt.Int: high", high, f"is not above low={low}", fix=f"such as tt.Int({low}, {low + 5})"
            )


class Float(Struct, frozen=True):
    """A number to search between ``low`` and ``high``; ``log`` searches its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        low, high = options.number(self.low, "tt.Float: low"), options.number(self.high, "tt.Float: high")
        if low >= high:
            raise options.wrong(
                "tt.Float: high", high, f"is not above low={low:g}", fix="give the smaller number first"
            )
        if options.flag(self.log, "tt.Float: log") and low <= 0:
            raise options.wrong("tt.Float: low", low, "has no logarithm", fix="such as tt.Float(1e-4, 1.0, log=True)")


class Choice(Struct, frozen=True):
    """One of several values to search."""

    options: tuple[Any, ...]


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


def as_data(check: Check) -> Data:
    """Return a check as plain data; ``check_from`` is its inverse."""
    return {"name": check.name, "kind": check.kind, "params": dict(check.params), "severity": check.severity}


def check_from(data: Data) -> Check:
    """Return the check that ``as_data`` wrote."""
    return Check(name=data["name"], kind=data["kind"], params=data["params"], severity=data["severity"])


def checks_from(items: Iterable[Data]) -> tuple[Check, ...]:
    """Return the checks that ``as_data`` wrote, in their order."""
    return tuple(check_from(item) for item in items)
