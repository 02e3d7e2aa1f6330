"""What an error looks like over HTTP: one JSON shape, one status for each class of the error tree."""

from __future__ import annotations

import sys
import traceback

from trimtab.core.errors import (
    BadInput,
    Conflict,
    NotFound,
    Refused,
    TrimtabError,
    Unavailable,
    WrongUse,
)
from trimtab.core.nouns import Data

# The first class that an error is an instance of decides, so the special ones stand first.
STATUSES: tuple[tuple[type[TrimtabError], int], ...] = (
    (NotFound, 404),
    (BadInput, 422),
    (WrongUse, 400),
    (Conflict, 409),
    (Refused, 403),
    (Unavailable, 503),
)
_WORDS = {
    404: ("NotFound", "there is nothing at this address", "look at GET /health and the reference of the API"),
    405: ("WrongUse", "the address does not take this method", "use GET to read and POST to act"),
    413: ("BadInput", "the body is larger than this address takes", "send it in several requests"),
}


def status_of(error: BaseException) -> int:
    """Return the HTTP status that stands for ``error``."""
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return status
    return 500


def answer_for(error: BaseException, where: str) -> tuple[int, Data]:
    """Return the status and the JSON body that tell a client about ``error``.

    Args:
        error: what was raised; a framework's own error is one with a ``status_code``.
        where: method and path of the request, told when the error names no place itself.
    """
    if isinstance(error, TrimtabError):
        data = error.as_data()
        return status_of(error), {"error": {**data, "where": data["where"] or where}}
    status = getattr(error, "status_code", 500)
    if isinstance(status, int) and 400 <= status < 500:
        detail = str(getattr(error, "detail", "")) or "the request was not understood"
        kind, message, fix = _WORDS.get(status, ("WrongUse", detail, "correct the request"))
        return status, {"error": {"type": kind, "message": message, "where": where, "fix": fix}}
    # A client learns nothing about the inside of the server; the log does.
    print(f"{where}: {''.join(traceback.format_exception(error))}", file=sys.stderr, flush=True)
    message = f"the server failed with {type(error).__name__}"
    fix = "look at the log of the control process, then try again"
    return 500, {"error": {"type": "Fault", "message": message, "where": where, "fix": fix}}
