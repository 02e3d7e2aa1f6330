"""Requests and answers as MLflow's clients write and read them.

Requests are JSON objects, or queries with repeated names; fields that are not known are passed over, whole numbers
may come as text. Answers have whole numbers as numbers, leave out what is not set, and write NaN and the infinities
as texts: a client reads a null as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from trimtab.core.errors import (
    BadInput,
    Conflict,
    Corrupt,
    Fault,
    NotFound,
    Refused,
    TrimtabError,
    Unavailable,
    WrongUse,
)
from trimtab.core.nouns import Data

Kind = Literal["text", "whole", "number", "flag", "list", "texts", "object", "any"]
Answer = Data | bytes
Handler = Callable[[Data], Answer]
_HINT = " See the API docs for more information about request parameters."
_NAMES = {str: "str", int: "int", float: "float", bool: "bool", list: "list", dict: "dict", type(None): "NoneType"}
STATUS = {
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
    "RESOURCE_CONFLICT": 409,
    "ENDPOINT_NOT_FOUND": 404,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "PERMISSION_DENIED": 403,
    "BAD_REQUEST": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "INVALID_PARAMETER_VALUE": 400,
}


class MlflowError(Exception):
    """An answer that is an error, with one of MLflow's codes."""

    def __init__(self, message: str, code: str = "INVALID_PARAMETER_VALUE") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Field(Struct, frozen=True):
    """What a request's field may be."""

    kind: Kind
    required: bool = False


Spec = Mapping[str, Field]


def text(*, required: bool = False) -> Field:
    """Return a field that is text."""
    return Field("text", required)


def whole(*, required: bool = False) -> Field:
    """Return a field that is a whole number of 64 bits."""
    return Field("whole", required)


NEEDED = text(required=True)
TEXT = text()
WHOLE = whole()
LIST = Field("list")
TEXTS = Field("texts")


def arguments(given: Data, spec: Spec, query: Mapping[str, Sequence[str]] | None = None) -> Data:
    """Return the fields of a request that an operation knows, each of the kind that it wants.

    Args:
        given: the body's fields, or nothing for a query.
        spec: the fields.
        query: name -> its values, of a request without a body.

    Raises:
        MlflowError: one is missing or of another kind.
    """
    found: Data = {}
    for name, field in spec.items():
        value = _of_query(name, field, query) if query is not None else given.get(name)
        if name == "run_id" and value is None:  # old clients and the pages call it otherwise
            value = given.get("run_uuid") if query is None else _of_query("run_uuid", field, query)
        if value is None or value == "":
            if field.required:
                raise MlflowError(f"Missing value for required parameter '{name}'.{_HINT}")
            if value is None:
                continue
        found[name] = _as_kind(name, field.kind, value)
    return found


def _of_query(name: str, field: Field, query: Mapping[str, Sequence[str]]) -> Any:
    values = query.get(name)
    if not values:
        return None
    if field.kind in ("list", "texts"):
        return list(values)
    if field.kind == "flag":
        if values[0].lower() not in ("true", "false"):
            raise MlflowError(f"Invalid boolean value: {values[0]}, must be 'true' or 'false'.")
        return values[0].lower() == "true"
    return values[0]


def _as_kind(name: str, kind: Kind, value: Any) -> Any:
    try:
        return _CONVERT[kind](value)
    except (TypeError, ValueError, OverflowError):
        raise invalid(name, value, f" Hint: Value was of type '{_NAMES.get(type(value), 'str')}'.{_HINT}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def as_whole(value: Any) -> int:
    """Return a whole number of 64 bits that may have come as text or as 3.0.

    Raises:
        TypeError, ValueError, OverflowError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        raise TypeError
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError
    return number


def as_number(value: Any) -> float:
    """Return a number; the texts NaN, Infinity and -Infinity stand for what JSON cannot say.

    Raises:
        TypeError, ValueError, OverflowError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        raise TypeError
    if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
        value = float(value) if not value.strip().lower().lstrip("+-").startswith(("n", "i")) else _no_number()
    return float(value)


def _no_number() -> float:
    raise ValueError


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _object(value: Any) -> Data:
    if not isinstance(value, dict):
        raise TypeError
    return value


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "whole": as_whole,
    "number": as_number,
    "flag": _flag,
    "list": _list,
    "texts": _texts,
    "object": _object,
    "any": lambda value: value,
}


def invalid(path: str, value: Any, reason: str = "") -> MlflowError:
    """Return the error of a value that a parameter cannot have."""
    shown = msgspec.json.encode(value, order="sorted").decode()
    return MlflowError(f"Invalid value {shown} for parameter '{path}' supplied{f': {reason}' if reason else '.'}")


def body_of(content: bytes) -> Data:
    """Return the object in a request's body; an empty body is an empty object, and old clients encode twice.

    Raises:
        MlflowError: it is no JSON object.
    """
    if not content.strip():
        return {}
    try:
        found = msgspec.json.decode(content)
        if isinstance(found, str):
            found = msgspec.json.decode(found)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MlflowError(f"The request body is not valid JSON: {error}", "BAD_REQUEST") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise MlflowError("The request body is not a JSON object", "BAD_REQUEST")
    return found


def number(value: float) -> float | str:
    """Return a number as an answer has it."""
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def error_of(error: Exception) -> tuple[int, Data]:
    """Return status and body of an error; what is nobody's mistake is told without its inside."""
    code, message = "INTERNAL_ERROR", "An internal error occurred; the server's log has it."
    if isinstance(error, MlflowError):
        code, message = error.code, error.message
    elif isinstance(error, TrimtabError):
        message = error.message
        for kind, name in _CODES:
            if isinstance(error, kind):
                code = name
                break
    return STATUS.get(code, 400), {"error_code": code, "message": message}


_CODES: tuple[tuple[type[TrimtabError], str], ...] = (
    (NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (BadInput, "INVALID_PARAMETER_VALUE"),
    (WrongUse, "INVALID_PARAMETER_VALUE"),
    (Conflict, "RESOURCE_ALREADY_EXISTS"),
    (Refused, "PERMISSION_DENIED"),
    (Unavailable, "TEMPORARILY_UNAVAILABLE"),
    (Corrupt, "INTERNAL_ERROR"),
    (Fault, "INTERNAL_ERROR"),
)
