"""Traces come over."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from trimtab.api.mlflow.spans import BadSpan
from trimtab.core.errors import BadInput
from trimtab.core.nouns import Data
from trimtab.migrate.move import Move, fields_differ
from trimtab.migrate.source import Broken, Files, OldTrace
from trimtab.migrate.spans import span_from
from trimtab.store import assessments, bring, traces
from trimtab.store.ledger import Tx
from trimtab.store.traces import PLACE_TAG, ROOT_TAG, Span, Trace

_FILE = "traces.json"
_FIELDS = ("experiment", "state", "start_ms", "duration_ms", "client_id", "request", "response", "metadata", "tags")


def move_traces(move: Move) -> None:
    """Let the traces come over."""
    for old in move.source.traces(list(move.homes)):
        if isinstance(old, Broken):
            move.broken(old)
            continue
        move.saw("traces", assessments=len(old.said))
        move.unit("trace", old.trace.trace_id, lambda old=old: _trace(move, old))  # type: ignore[misc]


def _trace(move: Move, old: OldTrace) -> None:
    trace, owner = old.trace, f"trace {old.trace.trace_id}"
    files = move.source.files(old.root) if old.root else None
    spans = old.spans or _read(files, trace.trace_id)
    home = move.homes[trace.experiment]
    wanted = replace(trace, experiment=home.new)
    skip = frozenset({_FILE}) if spans else frozenset[str]()
    move.report.seen.update(spans=len(spans))
    known = traces.find_trace(move.ledger, trace.trace_id)
    if known is not None:
        listed = move.listed(owner, files, skip)
        move.report.seen.update(files=len(listed))
        different = _differs(move, old, wanted, known, spans)
        move.compared("traces", trace.trace_id, different, spans=len(spans), assessments=len(old.said),
                      files=len(listed))  # fmt: skip
        return
    key = f"trace:{trace.trace_id}"
    if move.mark(key) is not None:
        move.gone("trace", trace.trace_id)
        return
    kept = move.kept(owner, files, skip)
    move.report.seen.update(files=len(kept))

    def put(tx: Tx) -> Data:
        bring.put_trace(tx, wanted, spans=spans, said=old.said, links=old.links, files=kept)
        return {}

    if not move.dry:
        move.write(put, what="trace", key=key)
    move.done("traces", copied=True, spans=len(spans), assessments=len(old.said), files=len(kept))


def _read(files: Files | None, trace_id: str) -> Sequence[Span]:
    """Return the spans of a trace that has them in a file, nothing where there is no such file.

    Raises:
        BadInput: there is one, and it cannot be read.
    """
    if files is None or all(isinstance(one, Broken) or one.path != _FILE for one in files.listed()):
        return ()
    try:
        with files.local(_FILE) as place:
            data = json.loads(place.read_bytes())
        return [span_from(one, trace_id) for one in data["spans"]]
    except (BadSpan, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{_FILE} cannot be read: {error}", where=trace_id) from error


def _differs(move: Move, old: OldTrace, wanted: Trace, known: Trace, spans: Sequence[Span]) -> list[str]:
    own = (PLACE_TAG, ROOT_TAG)
    there, here = ({name: getattr(one, name) for name in _FIELDS} for one in (wanted, known))
    for one in (there, here):
        one["tags"] = {name: value for name, value in one["tags"].items() if name not in own}
    found = fields_differ(here, there)
    contents = traces.span_contents(move.ledger, [known.id])[known.id]
    if sorted(contents) != sorted({one.span_id: one.content for one in spans}.values()):
        found.append("spans")
    said = assessments.assessments_of(move.ledger, {known.id: known.trace_id}).get(known.id, [])
    if {one.id: msgspec.to_builtins(one) for one in said} != {one.id: msgspec.to_builtins(one) for one in old.said}:
        found.append("assessments")
    return found
