"""The four questions that MLflow's own pages ask by GraphQL, answered without a GraphQL engine.

A request names one of four fields; what is selected below it is picked from the answer that the same question gets
over REST. That is all of GraphQL that is understood: no fragments, aliases, or values written into the query.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trimtab.api.mlflow.wire import MlflowError, error_of
from trimtab.core.nouns import Data

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|[{}()!:$@,]|\.\.\.|[^\s]')
_DEEPEST = 12
_LONGEST = 20_000
_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})
Selection = dict[str, "Selection"]
Resolver = Callable[[Data], Data]


def answer(given: Data, resolvers: Mapping[str, Resolver]) -> Data:
    """Answer a GraphQL request.

    Args:
        given: ``{"query", "variables"?, "operationName"?}``.
        resolvers: field of the query -> what answers it, from the one input variable to a REST answer.

    Returns:
        ``{"data"}``, or ``{"errors"}`` where the request is none that is known. What goes wrong in answering stands
        in the field's own ``apiError``, where the pages look for it.
    """
    try:
        wanted = parse(str(given.get("query") or ""))
    except MlflowError as error:
        return {"errors": [{"message": str(error)}]}
    unknown = [name for name in wanted if name not in resolvers]
    if unknown:
        text = f"there is no field {unknown[0]!r}; known are {', '.join(sorted(resolvers))}"
        return {"errors": [{"message": text}]}
    variables = given.get("variables") or {}
    argument: Any = next(iter(variables.values()), {}) if isinstance(variables, dict) else {}
    inputs = {_snake(name): value for name, value in argument.items()} if isinstance(argument, dict) else {}
    found: Data = {}
    for name, below in wanted.items():
        try:
            told: Data = {**resolvers[name](inputs), "api_error": None}
        except Exception as error:
            _, body = error_of(error)
            told = {"api_error": {"code": body["error_code"], "message": body["message"], "help_url": None}}
        found[name] = _picked(told, below, name, "")
    return {"data": found}


def parse(query: str) -> Selection:
    """Return what a query selects, as nested names; arguments and directives are passed over.

    Raises:
        MlflowError: it is not one plain query.
    """
    if len(query) > _LONGEST:
        raise MlflowError(f"The query is longer than {_LONGEST} characters")
    words = iter(_TOKEN.findall(query))
    for word in words:
        if word == "(":
            _skip(words)
        elif word == "{":
            found = _selection(words, 1)
            if next(words, None) is not None:
                raise MlflowError("The query holds more than one operation")
            return found
        elif word in ("mutation", "subscription", "fragment"):
            raise MlflowError(f"A {word} is not supported")
    raise MlflowError("The query selects nothing")


def _selection(words: Iterator[str], depth: int) -> Selection:
    if depth > _DEEPEST:
        raise MlflowError(f"The query is deeper than {_DEEPEST} levels")
    found: Selection = {}
    last = ""
    for word in words:
        if word == "}":
            return found
        if word == "{" and last:
            found[last] = _selection(words, depth + 1)
        elif word == "(":
            _skip(words)
        elif word == "@":
            next(words, None)
        elif word == ",":
            continue
        elif word.isidentifier():
            last = word
            found.setdefault(word, {})
        else:
            raise MlflowError(f"{word!r} is not supported in a query")
    raise MlflowError("The query ends too early")


def _skip(words: Iterator[str]) -> None:
    """Pass over what stands in parentheses."""
    depth = 1
    for word in words:
        depth += (word == "(") - (word == ")")
        if not depth:
            return
    raise MlflowError("The query ends too early")


def _picked(value: Any, below: Selection, name: str, parent: str) -> Any:
    """Return what is selected of a value: whole numbers as text, a metric that JSON cannot say as null."""
    if isinstance(value, list):
        return [_picked(item, below, name, parent) for item in value]
    if isinstance(value, dict):
        found = {key: _picked(value.get(_snake(key)), more, key, name) for key, more in below.items()}
        if "__typename" in below:
            found["__typename"] = f"Mlflow{name[0].upper()}{name[1:]}"
        return found
    if (parent, name) == ("metrics", "value"):
        return None if value in _NOT_FINITE else value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)
