"""References: one form, parsed and printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import WrongUse
from trimtab.core.ids import new_id
from trimtab.core.ref import Ref, check_name, parse_ref

NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}(\.[A-Za-z_][A-Za-z0-9_]{0,8})?", fullmatch=True)


@given(NAME, st.sampled_from(["", "champion"]), st.integers(0, 99), st.sampled_from(["", "prod"]))
def test_print_and_parse_agree(name: str, alias: str, number: int, environment: str) -> None:
    """What is printed parses to the same reference."""
    ref = Ref(name=name, alias=alias, number=0 if alias else number, environment=environment)
    assert parse_ref(str(ref)) == ref


def test_forms() -> None:
    """Every documented form is understood."""
    assert parse_ref("delays@champion") == Ref(name="delays", alias="champion")
    assert parse_ref("team/prod/delays:3") == Ref(name="delays", number=3, environment="prod", workspace="team")
    assert parse_ref("delay_api.calls").name == "delay_api.calls"
    made = new_id("ver")
    assert parse_ref(made) == Ref(id=made)


@pytest.mark.parametrize("text", ["", "a b", "a@", "a:0", "a:-1", "../x", "a/b/c/d", "ä", "a@b:1", "a\n"])
def test_other_forms_are_refused(text: str) -> None:
    """Anything else is refused with the forms that work."""
    with pytest.raises(WrongUse, match="not a reference"):
        parse_ref(text)


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a/b", "a" * 201, "a..b", "a\x00"])
def test_bad_names_are_refused(name: str) -> None:
    """A name that could not be referred to cannot be declared."""
    with pytest.raises(WrongUse, match="cannot be a name"):
        check_name(name)
