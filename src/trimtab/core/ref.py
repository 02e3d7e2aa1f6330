"""References: ``[[workspace/]env/]name[@alias|:number]``, or an id."""

from __future__ import annotations

import re

from msgspec import Struct

from trimtab.core.errors import WrongUse
from trimtab.core.ids import is_id

_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_REF = re.compile(
    rf"(?:(?:(?P<workspace>[A-Za-z0-9_-]+)/)?(?P<environment>[A-Za-z0-9_-]+)/)?"
    rf"(?P<name>{_NAME})(?:@(?P<alias>[A-Za-z][A-Za-z0-9_-]*)|:(?P<number>[1-9][0-9]*))?"
)
_PLAIN = re.compile(_NAME)


class Ref(Struct, frozen=True, kw_only=True):
    """A parsed reference; ``id`` is set for an id and then nothing else is."""

    name: str = ""
    alias: str = ""
    number: int = 0
    environment: str = ""
    workspace: str = ""
    id: str = ""

    def __str__(self) -> str:
        if self.id:
            return self.id
        scope = "".join(f"{part}/" for part in (self.workspace, self.environment) if part)
        tail = f"@{self.alias}" if self.alias else f":{self.number}" if self.number else ""
        return f"{scope}{self.name}{tail}"


def parse_ref(text: str) -> Ref:
    """Return the reference in ``text``.

    Raises:
        WrongUse: ``text`` has another form.
    """
    if is_id(text):
        return Ref(id=text)
    found = _REF.fullmatch(text)
    if found is None:
        raise WrongUse(
            f"{text!r} is not a reference",
            fix="write name, name@alias, name:3, env/name, workspace/env/name or an id",
        )
    part = {key: value or "" for key, value in found.groupdict().items()}
    number = int(part.pop("number") or 0)
    return Ref(**part, number=number)


def check_name(name: str, *, where: str = "") -> str:
    """Return ``name`` if it may name an asset or an endpoint.

    Raises:
        WrongUse: it is not made of letters, digits, ``_`` and single dots, or is too long.
    """
    if len(name) > 200 or _PLAIN.fullmatch(name) is None:
        raise WrongUse(
            f"{name[:60]!r} cannot be a name",
            where=where,
            fix="use letters, digits and _ (at most 200, not starting with a digit)",
        )
    return name
