"""What is said of traces, and times, as clients write and read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from trimtab.api.mlflow.tracking import now_ms
from trimtab.api.mlflow.wire import MlflowError, invalid
from trimtab.core.nouns import Data
from trimtab.store.assessments import KINDS, Assessment

_SOURCE_RUN = "mlflow.assessment.sourceRunId"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")


def an_object(value: Any, path: str) -> Data:
    """Return an object that a request holds at a path.

    Raises:
        MlflowError: it is missing, or none.
    """
    if value is None:
        raise MlflowError(f"Missing value for required parameter '{path}'.")
    if not isinstance(value, dict):
        raise invalid(path, value)
    return value


def texts_in(value: Any, path: str) -> dict[str, str]:
    """Return an object that holds texts only; errors as in ``an_object``."""
    found = an_object(value, path)
    if not all(isinstance(item, str) for item in found.values()):
        raise invalid(path, value)
    return found


def time_from(value: Any, path: str) -> int:
    """Return milliseconds since 1970 of a time such as ``2026-01-31T12:00:00.123Z``.

    Raises:
        MlflowError: it is none.
    """
    try:
        found = datetime.fromisoformat(value)
        return (found - EPOCH) // timedelta(milliseconds=1)
    except (TypeError, ValueError, OverflowError):
        raise invalid(path, value) from None


def time_text(ms: int) -> str:
    """Return a time as answers have it."""
    found = (EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")
    return found.replace(".000", "").replace("+00:00", "Z")


def duration_from(value: Any, path: str) -> int:
    """Return milliseconds of a duration such as ``1.500s``.

    Raises:
        MlflowError: it is none.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise invalid(path, value)
    found = int(match[2]) * 1000 + int((match[3] or "")[:3].ljust(3, "0"))
    return -found if match[1] else found


def duration_text(ms: int) -> str:
    """Return a duration as answers have it."""
    seconds, rest = divmod(abs(ms), 1000)
    return f"{'-' if ms < 0 else ''}{seconds}{f'.{rest:03d}' if rest else ''}s"


def assessment_from(value: Any, trace_id: str) -> Assessment:
    """Return what a client says of a trace.

    Raises:
        MlflowError: a field is missing or none.
    """
    item = an_object(value, "assessment")
    kinds = [kind for kind in KINDS if item.get(kind) is not None]
    if len(kinds) != 1:
        raise MlflowError("Exactly one of `expectation`, `feedback`, or `issue` should be specified.")
    source = an_object(item.get("source") or {}, "assessment.source")
    for name in ("assessment_id", "assessment_name", "span_id", "rationale", "overrides"):
        if not isinstance(item.get(name), str | None):
            raise invalid(f"assessment.{name}", item[name])
    metadata, now = texts_in(item.get("metadata") or {}, "assessment.metadata"), now_ms()
    created, updated = (
        time_from(item[name], f"assessment.{name}") if item.get(name) else now
        for name in ("create_time", "last_update_time")
    )
    return Assessment(
        trace_id=trace_id,
        id=item.get("assessment_id") or "",
        kind=kinds[0],
        name=item.get("assessment_name") or "",
        value=_said(item, kinds[0]),
        source_type=str(source.get("source_type", "SOURCE_TYPE_UNSPECIFIED")),
        source_id=str(source.get("source_id", "")),
        run_id=metadata.get(_SOURCE_RUN, ""),
        span_id=item.get("span_id") or "",
        rationale=item.get("rationale"),
        metadata=metadata,
        overrides=item.get("overrides") or "",
        valid=item.get("valid") is not False,
        created_ms=created,
        updated_ms=updated,
    )


def _said(item: Data, kind: str) -> Data:
    """Return what is said; an error stands in it, and beside it where older clients put it."""
    found = an_object(item[kind], f"assessment.{kind}")
    if kind == "feedback" and item.get("error") is not None and "error" not in found:
        return {**found, "error": item["error"]}
    return found


def changed_from(known: Assessment, paths: set[str], item: Data) -> Assessment:
    """Return what someone said with what a client changes of it.

    Args:
        known: what was said.
        paths: the fields that change.
        item: holds them anew.

    Raises:
        MlflowError: a field is none, or does not go with what kind of assessment it is.
    """
    if {"expectation", "feedback"} <= paths:
        raise MlflowError("Cannot specify both `expectation` and `feedback` parameters.")
    for kind, other in (("expectation", "a Feedback"), ("feedback", "an Expectation")):
        if kind in paths and known.kind != kind:
            raise MlflowError(f"Cannot update {kind} value on {other} assessment.")
    fields: Mapping[str, Any] = {
        "name": item.get("assessment_name") or known.name if "assessment_name" in paths else known.name,
        "value": _said(item, known.kind) if known.kind in paths and item.get(known.kind) is not None else known.value,
        "rationale": item.get("rationale") if "rationale" in paths else known.rationale,
        "metadata": {
            **known.metadata,
            **(texts_in(item.get("metadata") or {}, "metadata") if "metadata" in paths else {}),
        },
        "valid": item.get("valid") is True if "valid" in paths else known.valid,
        "updated_ms": now_ms(),
    }
    return msgspec.structs.replace(known, **fields)


def assessment_data(one: Assessment) -> Data:
    """Return what was said of a trace as an answer has it."""
    told = {"span_id": one.span_id, "rationale": one.rationale, "metadata": one.metadata, "overrides": one.overrides}
    return {
        "assessment_id": one.id,
        "assessment_name": one.name,
        "trace_id": one.trace_id,
        "source": {"source_type": one.source_type, "source_id": one.source_id},
        "create_time": time_text(one.created_ms),
        "last_update_time": time_text(one.updated_ms),
        one.kind: one.value,
        **{name: value for name, value in told.items() if value},
        "valid": one.valid,
    }
