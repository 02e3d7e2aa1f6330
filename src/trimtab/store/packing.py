"""Plain data as bytes for a column, exactly or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.core.errors import WrongUse

_REFUSED = (OverflowError, TypeError, ValueError, RecursionError)


def pack(data: Any) -> bytes:
    """Return plain data as bytes.

    Raises:
        WrongUse: something in it cannot be kept exactly; ``where`` names its place.
    """
    try:
        return msgspec.msgpack.encode(data)
    except _REFUSED as error:
        place, reason = _culprit(data)
        raise WrongUse(f"cannot be stored: {reason}", where=place, fix="store it as text or bytes") from error


def unpack(content: bytes) -> Any:
    """Return the data that ``pack`` wrote; tuples have become lists and structs mappings."""
    return msgspec.msgpack.decode(content)


def _culprit(data: Any) -> tuple[str, str]:
    """Return the place of what cannot be encoded, such as ``params.alpha[3]``, and the reason."""
    place = ""
    while True:
        for name, item in _parts(data):
            if _refusal(item):
                place = f"{place}{name}" if name.startswith("[") or not place else f"{place}.{name}"
                data = item
                break
        else:
            return place, _refusal(data)
        if len(place) > 1000:
            return f"{place[:100]}...", "it is nested too deeply"


def _parts(data: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(data, Mapping):
        return ((str(key), item) for key, item in data.items())
    if isinstance(data, list | tuple):
        return ((f"[{index}]", item) for index, item in enumerate(data))
    if isinstance(data, Struct):
        return ((name, getattr(data, name)) for name in data.__struct_fields__)
    return ()


def _refusal(item: Any) -> str:
    try:
        msgspec.msgpack.encode(item)
    except _REFUSED as error:
        return str(error)
    return ""
