"""What people, judges and code say of traces: feedback, expectations and issues."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.core.errors import NotFound
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.store import tracking
from trimtab.store.ledger import Reader, Tx
from trimtab.store.traces import SESSION, find_trace, get_trace

KINDS = ("feedback", "expectation", "issue")


class Assessment(Struct, frozen=True, kw_only=True):
    """One assessment of a trace.

    Attributes:
        id: by default a new one.
        kind: one of ``KINDS``.
        value: what is said, exactly as it was sent: an object with ``value``, or as its kind has it.
        source_type: HUMAN, LLM_JUDGE, CODE or another; ``source_id`` says who or what.
        run_id: of the run that made it, as its client knows it.
        span_id: of the span that is meant, or empty for the whole trace.
        overrides: id of the one that this one stands for; that one is no longer ``valid``.
    """

    trace_id: str
    kind: str
    name: str
    value: Data
    source_type: str = "SOURCE_TYPE_UNSPECIFIED"
    source_id: str = ""
    run_id: str = ""
    span_id: str = ""
    rationale: str | None = None
    metadata: dict[str, str] = {}
    overrides: str = ""
    valid: bool = True
    created_ms: int = 0
    updated_ms: int = 0
    id: str = ""


_COLUMNS = (
    "id, kind, name, value, source_type, source_id, run_id, span_id, rationale, metadata, overrides, valid,"
    " created_ms, updated_ms"
)


def create_assessment(tx: Tx, given: Assessment) -> Assessment:
    """Record an assessment; the one that it overrides is no longer valid.

    Raises:
        NotFound: there is no such trace, or nothing that it could override.
    """
    trace = get_trace(tx, given.trace_id)
    if given.overrides:
        sql = "UPDATE assessment SET valid=0 WHERE trace=? AND id=? RETURNING 1"
        if not tx.execute(sql, (trace.id, given.overrides)):
            text = f"Assessment with ID '{given.overrides}' not found for trace '{given.trace_id}'"
            raise NotFound(text, where="overrides")
    made = msgspec.structs.replace(given, id=given.id or f"a-{new_hex()}")
    _put(tx, trace.id, made, trace.metadata.get(SESSION, ""))
    tx.note(given.trace_id, assessment=made.id, name=made.name)
    return made


def _put(tx: Tx, ident: str, one: Assessment, session: str) -> None:
    # An assessment of a session is found from each of its traces.
    session = session if SESSION in one.metadata and len(session) <= 250 else ""
    tx.execute(
        f"INSERT OR REPLACE INTO assessment(trace, workspace, environment, {_COLUMNS}, text, number, session)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (ident, tx.workspace, tx.environment, one.id, one.kind, one.name, msgspec.json.encode(one.value).decode(),
         one.source_type, one.source_id, one.run_id, one.span_id, one.rationale,
         msgspec.json.encode(one.metadata).decode(), one.overrides, int(one.valid), one.created_ms, one.updated_ms,
         text_of(one.value), number_of(one.value), session),
    )  # fmt: skip


def text_of(value: Mapping[str, Any]) -> str:
    """Return what an assessment says as the text that filters compare: a text itself, else JSON."""
    found = value.get("value")
    kept = value.get("serialized_value")
    if isinstance(kept, dict):
        return str(kept.get("value", ""))
    if isinstance(found, float) and found.is_integer() and abs(found) < 1 << 53:
        found = int(found)
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()


def number_of(value: Mapping[str, Any]) -> float | None:
    """Return what an assessment says as a number: true and yes are 1, false and no 0, other texts none."""
    found = value.get("value")
    if isinstance(found, str):
        return {"yes": 1.0, "no": 0.0}.get(found)
    return float(found) if isinstance(found, int | float) and abs(found) < math.inf else None


def get_assessment(reader: Reader, trace_id: str, ident: str) -> Assessment:
    """Return an assessment.

    Raises:
        NotFound: there is no such trace, or it has no such assessment.
    """
    trace = find_trace(reader, trace_id)
    if trace is None:
        raise NotFound(f"Trace with request_id '{trace_id}' not found", where="trace_id")
    rows = reader.query(f"SELECT {_COLUMNS} FROM assessment WHERE trace=? AND id=?", (trace.id, ident))
    if not rows:
        raise NotFound(f"Assessment with ID '{ident}' not found for trace '{trace_id}'", where="assessment_id")
    return _assessment(trace_id, rows[0])


def assessments_of(reader: Reader, traces: Mapping[str, str]) -> dict[str, list[Assessment]]:
    """Return the assessments of traces, oldest first.

    Args:
        reader: the ledger.
        traces: the ledger's id of each -> what clients know it by; the answer goes by the former.
    """
    found: dict[str, list[Assessment]] = {}
    for part in tracking.parts(list(traces)):
        sql = (
            f"SELECT trace, {_COLUMNS} FROM assessment WHERE trace IN ({','.join('?' * len(part))})"
            " ORDER BY trace, created_ms, id"
        )
        for row in reader.query(sql, part):
            found.setdefault(row[0], []).append(_assessment(traces[row[0]], row[1:]))
    return found


def _assessment(trace_id: str, row: Sequence[Any]) -> Assessment:
    return Assessment(
        trace_id=trace_id, id=row[0], kind=row[1], name=row[2], value=msgspec.json.decode(row[3]), source_type=row[4],
        source_id=row[5], run_id=row[6], span_id=row[7], rationale=row[8], metadata=msgspec.json.decode(row[9]),
        overrides=row[10], valid=bool(row[11]), created_ms=row[12], updated_ms=row[13],
    )  # fmt: skip


def update_assessment(tx: Tx, changed: Assessment) -> None:
    """Let an assessment that is there say something else; see ``get_assessment`` for errors."""
    get_assessment(tx, changed.trace_id, changed.id)
    trace = get_trace(tx, changed.trace_id)
    _put(tx, trace.id, changed, trace.metadata.get(SESSION, ""))
    tx.note(changed.trace_id, assessment=changed.id, changed=True)


def delete_assessment(tx: Tx, trace_id: str, ident: str) -> None:
    """Delete an assessment, if it is there; the one that it overrode is valid again.

    Raises:
        NotFound: there is no such trace.
    """
    trace = get_trace(tx, trace_id)
    sql = "DELETE FROM assessment WHERE trace=? AND id=? RETURNING overrides"
    rows = tx.execute(sql, (trace.id, ident))
    if rows and rows[0][0]:
        tx.execute("UPDATE assessment SET valid=1 WHERE trace=? AND id=?", (trace.id, rows[0][0]))
    tx.note(trace_id, assessment=ident, deleted=bool(rows))
