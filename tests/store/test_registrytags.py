"""Tags of registered models and their versions."""

from __future__ import annotations

import pytest

from tests.store.builders import write
from trimtab.core.errors import NotFound
from trimtab.store import registry, registrytags
from trimtab.store.ledger import Ledger


def test_tags_come_and_go(ledger: Ledger) -> None:
    """Tags are set one by one, the last value stands, and removing one twice is no error."""
    write(ledger, registry.create_registered, "fraud", tags={"a": "1"}, now_ms=1)
    write(ledger, registry.create_version, "fraud", source="s3://b/m", now_ms=2)
    write(ledger, registrytags.tag_registered, "fraud", {"a": "2", "b": "3"})
    write(ledger, registrytags.tag_version, "fraud", 1, {"c": "4", "d": "5"})
    for _ in range(2):
        write(ledger, registrytags.untag_registered, "fraud", "b")
        write(ledger, registrytags.untag_version, "fraud", 1, "d")
    assert registry.get_registered(ledger, "fraud").tags == {"a": "2"}
    assert registry.get_version(ledger, "fraud", 1).tags == {"c": "4"}


def test_what_is_not_there_has_no_tags(ledger: Ledger) -> None:
    """An unknown model or version is told as such."""
    write(ledger, registry.create_registered, "fraud", now_ms=1)
    with pytest.raises(NotFound, match="name=other"):
        write(ledger, registrytags.tag_registered, "other", {"a": "1"})
    with pytest.raises(NotFound, match="name=other"):
        write(ledger, registrytags.untag_registered, "other", "a")
    with pytest.raises(NotFound, match="version=1"):
        write(ledger, registrytags.tag_version, "fraud", 1, {"a": "1"})
    with pytest.raises(NotFound, match="version=1"):
        write(ledger, registrytags.untag_version, "fraud", 1, "a")
