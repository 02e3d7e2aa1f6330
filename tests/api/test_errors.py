"""Every class of the error tree has its HTTP status."""

from __future__ import annotations

import pytest

from trimtab.api.errors import answer_for, status_of
from trimtab.core import errors


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("NotFound", 404), ("BadInput", 422), ("BadSource", 422), ("WrongUse", 400), ("ProjectError", 400),
        ("MissingExtra", 400), ("Conflict", 409), ("Refused", 403), ("GateFailed", 403), ("StaleInput", 403),
        ("Unavailable", 503), ("Fault", 500), ("StepFailed", 500), ("Corrupt", 500),
    ],
)  # fmt: skip
def test_status_of_each_error(name: str, status: int) -> None:
    """The most special class decides, and the body tells type, message, place and fix."""
    error = getattr(errors, name)("what", where="there", fix="so")
    assert status_of(error) == status
    told = {"type": name, "message": "what", "where": "there", "fix": "so"}
    assert answer_for(error, "GET /") == (status, {"error": told})


def test_an_error_without_a_place_gets_the_request() -> None:
    """Where the error names no place, the request is the place."""
    assert answer_for(errors.Conflict("x"), "POST /clock")[1]["error"]["where"] == "POST /clock"


def test_other_errors_are_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is a 500 that tells its class only; its text is in the log."""
    status, body = answer_for(ValueError("secret"), "GET /")
    assert status == 500 and "secret" not in str(body) and "ValueError" in body["error"]["message"]
    assert "secret" in capsys.readouterr().err
