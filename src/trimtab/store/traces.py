"""Traces: what one request of an application did, as a tree of spans, each kept exactly as it was sent.

A trace is begun by whichever comes first, its spans or its client's word about it as a whole; the client's word stands
above what its spans tell. Times of traces are milliseconds, those of spans nanoseconds, since 1970.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.core.errors import BadInput, NotFound
from trimtab.core.ids import new_hex
from trimtab.store import artifacts, tracking
from trimtab.store.engine import ALL, Value
from trimtab.store.ledger import Reader, Tx

NAME_TAG, PLACE_TAG, ROOT_TAG = "mlflow.traceName", "mlflow.trace.spansLocation", "mlflow.artifactLocation"
RUN, SESSION, USER = "mlflow.sourceRun", "mlflow.trace.session", "mlflow.trace.user"
TOKENS, COST = "mlflow.trace.tokenUsage", "mlflow.trace.cost"
TOKEN_KEYS = ("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
COST_KEYS = ("input_cost", "output_cost", "total_cost")
HERE = "TRACKING_STORE"
OPEN = ("IN_PROGRESS", "STATE_UNSPECIFIED")
_ID = re.compile(r"(?!\.+$)[\w.:\-]{1,100}", re.ASCII)
_SEARCHED = 4000
_SESSION = 250
_MOST_PARAMS = 50
_MOST_MS = 253_402_300_799_999


class Trace(Struct, frozen=True, kw_only=True):
    """What is known of a trace as a whole.

    Attributes:
        id: the ledger's own; ``trace_id`` is what clients know it by.
        state: OK, ERROR, IN_PROGRESS or STATE_UNSPECIFIED.
        duration_ms: nothing while it is going on.
        request: what came in, shortened, and ``response`` what went out.
        final: whether its client told of it as a whole, above what its spans tell.
    """

    trace_id: str
    experiment: int
    state: str
    start_ms: int
    duration_ms: int | None = None
    client_id: str | None = None
    request: str | None = None
    response: str | None = None
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    final: bool = False
    id: str = ""


class Span(Struct, frozen=True, kw_only=True):
    """A span, and what it is found by.

    Attributes:
        span_id: 16 hex digits; ``parent_id`` is empty for the root.
        status: OK, ERROR or UNSET.
        end_ns: nothing while it is going on.
        content: the whole span as JSON, exactly.
        attributes: name -> text, as far as it is searched.
        metrics: tokens and cost by name.
        about: of the whole trace, from this span: ``session``, ``user``, ``request`` and ``response``.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    type: str
    status: str
    start_ns: int
    end_ns: int | None
    content: str
    model: str = ""
    provider: str = ""
    attributes: dict[str, str] = {}
    metrics: dict[str, float] = {}
    about: dict[str, str] = {}


TRACE_COLUMNS = "id, trace_id, experiment, state, start_ms, duration_ms, client_id, request, response, final"
_TRACE = f"SELECT {TRACE_COLUMNS} FROM trace"


def start_trace(tx: Tx, given: Trace) -> Trace:
    """Record what a client says of a trace as a whole; of one that is there already too.

    Raises:
        NotFound: there is no such experiment.
        BadInput: it is deleted, or the id or a time is none.
    """
    home = _active(tx, given.experiment)
    _check(given)
    known = find_trace(tx, given.trace_id)
    ident = known.id if known else f"trc_{new_hex()}"
    request = given.request if given.request is not None or not known else known.request
    response = given.response if given.response is not None or not known else known.response
    tx.execute(
        "INSERT INTO trace(id, workspace, environment, trace_id, experiment, state, start_ms, duration_ms, client_id,"
        " request, response, session, final) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET"
        " experiment=excluded.experiment, state=excluded.state, start_ms=excluded.start_ms,"
        " duration_ms=excluded.duration_ms, client_id=excluded.client_id, request=excluded.request,"
        " response=excluded.response, session=excluded.session, final=excluded.final",
        (ident, tx.workspace, tx.environment, given.trace_id, given.experiment, given.state, given.start_ms,
         given.duration_ms, given.client_id, request, response, _session(given.metadata), int(given.final)),
    )  # fmt: skip
    tracking.put_tags(tx, ident, {**given.tags, ROOT_TAG: root_of(home, given.trace_id)})
    put_metadata(tx, ident, given.metadata)
    totals = {**_numbers(given.metadata.get(TOKENS), TOKEN_KEYS), **_numbers(given.metadata.get(COST), COST_KEYS)}
    _put_metrics(tx, ident, {"": totals})
    tx.note(given.trace_id, trace=given.state, experiment=given.experiment)
    return get_trace(tx, given.trace_id)


def end_trace(tx: Tx, trace_id: str, state: str, end_ms: int, metadata: Mapping[str, str]) -> Trace:
    """Record that a trace has ended, and metadata that came with the end.

    Raises:
        NotFound: there is none.
        BadInput: the time is none.
    """
    known = get_trace(tx, trace_id)
    _check(known, end_ms)
    session = _session({**known.metadata, **metadata})
    sql = "UPDATE trace SET state=?, duration_ms=?, session=? WHERE id=?"
    tx.execute(sql, (state, end_ms - known.start_ms, session, known.id))
    put_metadata(tx, known.id, metadata)
    tx.note(trace_id, trace=state)
    return get_trace(tx, trace_id)


def root_of(home: tracking.Experiment, trace_id: str) -> str:
    """Return where a trace's own files go, as a URI."""
    return f"{home.root.rstrip('/')}/traces/{trace_id}/artifacts"


def _active(tx: Tx, number: int) -> tracking.Experiment:
    home = tracking.get_experiment(tx, number)
    if home.stage != "active":
        raise BadInput(
            f"The experiment {number} must be in the 'active' state. Current state is {home.stage}.",
            where="experiment_id",
        )
    return home


def _check(trace: Trace, *times: int) -> None:
    if not is_trace_id(trace.trace_id):
        raise BadInput(f"Invalid trace ID: '{trace.trace_id[:200]}'", where="trace_id", fix="letters, digits and _.:-")
    for value in (trace.start_ms, trace.duration_ms or 0, *times):
        if not -_MOST_MS <= value <= _MOST_MS:
            raise BadInput(f"{value} is not a time in milliseconds that a calendar has", where="request_time")


def is_trace_id(text: str) -> bool:
    """Say whether a trace can have this id: 1 to 100 letters, digits and ``_.:-``."""
    return _ID.fullmatch(text) is not None


def _session(metadata: Mapping[str, str]) -> str:
    found = metadata.get(SESSION, "")
    return found if len(found) <= _SESSION else ""


def _numbers(text: str | None, names: Sequence[str]) -> dict[str, float]:
    """Return the numbers by these names in a JSON object, nothing of what is not one."""
    try:
        found = msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {}
    return numbers_in(found, names) if isinstance(found, dict) else {}


def numbers_in(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Return what stands under these names and is a finite number."""
    return {
        name: float(value)
        for name in names
        if isinstance(value := data.get(name), int | float) and not isinstance(value, bool) and abs(value) < math.inf
    }


def find_trace(reader: Reader, trace_id: str) -> Trace | None:
    """Return a trace, or None if there is none."""
    rows = reader.query(f"{_TRACE} WHERE workspace=? AND trace_id=?", (reader.workspace, trace_id))
    return traces_of(reader, rows)[0] if rows else None


def get_trace(reader: Reader, trace_id: str) -> Trace:
    """Return a trace.

    Raises:
        NotFound: there is none.
    """
    found = find_trace(reader, trace_id)
    if found is None:
        raise NotFound(f"Trace with ID '{trace_id}' not found.", where="trace_id")
    return found


def get_traces(reader: Reader, trace_ids: Sequence[str]) -> list[Trace]:
    """Return those traces that are there, in the order of their ids as asked."""
    rows: list[tuple[Any, ...]] = []
    for part in tracking.parts(list(dict.fromkeys(trace_ids))):
        marks = ",".join("?" * len(part))
        rows += reader.query(f"{_TRACE} WHERE workspace=? AND trace_id IN ({marks})", (reader.workspace, *part))
    found = {trace.trace_id: trace for trace in traces_of(reader, rows)}
    return [found[one] for one in dict.fromkeys(trace_ids) if one in found]


def traces_of(reader: Reader, rows: Sequence[tuple[Any, ...]]) -> list[Trace]:
    """Return traces from rows of ``TRACE_COLUMNS``, with their tags and metadata."""
    ids = [row[0] for row in rows]
    tags, metadata = tracking.tags_of(reader, ids), _metadata_of(reader, ids)
    return [
        Trace(
            id=row[0], trace_id=row[1], experiment=row[2], state=row[3], start_ms=row[4], duration_ms=row[5],
            client_id=row[6], request=row[7], response=row[8], final=bool(row[9]), tags=tags.get(row[0], {}),
            metadata=metadata.get(row[0], {}),
        )
        for row in rows
    ]  # fmt: skip


def _metadata_of(reader: Reader, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for part in tracking.parts(ids):
        sql = f"SELECT trace, name, value FROM trace_metadata WHERE trace IN ({','.join('?' * len(part))})"
        for trace, name, value in reader.query(f"{sql} ORDER BY trace, name", part):
            found.setdefault(trace, {})[name] = value
    return found


def put_metadata(tx: Tx, ident: str, metadata: Mapping[str, str]) -> None:
    """Set metadata of a trace, by the ledger's id; the last one of a name stands."""
    tx.execute_many(
        "INSERT OR REPLACE INTO trace_metadata(trace, workspace, environment, name, value) VALUES (?,?,?,?,?)",
        [(ident, tx.workspace, tx.environment, name, value) for name, value in metadata.items()],
    )


def log_spans(tx: Tx, experiment: int, spans: Sequence[Span]) -> None:
    """Record spans, and of their traces what they tell; a span that comes again replaces itself.

    Args:
        tx: the transaction.
        experiment: where traces go that are not there yet.
        spans: of any number of traces.

    Raises:
        NotFound: there is no such experiment.
        BadInput: it is deleted, or an id or time is none.
    """
    grouped: dict[str, list[Span]] = {}
    for span in spans:
        grouped.setdefault(span.trace_id, []).append(span)
    known = {trace.trace_id: trace for trace in get_traces(tx, list(grouped))}
    for trace_id, group in grouped.items():
        trace = known.get(trace_id) or _begin(tx, experiment, trace_id, group)
        _put_spans(tx, trace.id, group)
        _learn(tx, trace, group)
        tx.note(trace_id, spans=len(group))


def _begin(tx: Tx, experiment: int, trace_id: str, spans: Sequence[Span]) -> Trace:
    start = min(span.start_ns for span in spans) // 1_000_000
    begun = Trace(trace_id=trace_id, experiment=experiment, state="IN_PROGRESS", start_ms=start)
    return start_trace(tx, begun)


def _put_spans(tx: Tx, ident: str, spans: Sequence[Span]) -> None:
    rows: dict[str, tuple[Value, ...]] = {
        span.span_id: (span.span_id, span.parent_id, span.name, span.type, span.status, span.start_ns, span.end_ns,
                       span.model, span.provider, span.content)
        for span in spans
    }  # fmt: skip
    columns = "span_id, parent_id, name, type, status, start_ns, end_ns, model, provider, content"
    new = _put_rows(tx, "IGNORE", "span", columns, ident, list(rows.values()))
    again = [span_id for span_id in rows if span_id not in new]
    _put_rows(tx, "REPLACE", "span", columns, ident, [rows[span_id] for span_id in again])
    for table in ("span_attribute", "span_metric"):
        tx.execute_many(f"DELETE FROM {table} WHERE trace=? AND span_id=?", [(ident, span_id) for span_id in again])
    last = {span.span_id: span for span in spans}.values()
    texts = {
        (span.span_id, name[:_SEARCHED]): text[:_SEARCHED] for span in last for name, text in span.attributes.items()
    }
    found = [(*key, text) for key, text in texts.items()]
    _put_rows(tx, "REPLACE", "span_attribute", "span_id, name, value", ident, found)
    _put_metrics(tx, ident, {span.span_id: span.metrics for span in last})


def _put_rows(tx: Tx, how: str, table: str, columns: str, ident: str, rows: Sequence[tuple[Value, ...]]) -> set[str]:
    """Put rows of a trace, of which no two have one key, several in each statement: a server answers each one.

    Returns:
        The ids of the spans whose rows were put: with IGNORE only of those that were not there.
    """
    # A driver reads a longer statement anew each time.
    size, put = _MOST_PARAMS // (3 + len(columns.split(","))), set[str]()
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        marks = ",".join([f"({','.join('?' * (len(part[0]) + 3))})"] * len(part))
        done = tx.execute(
            f"INSERT OR {how} INTO {table}(trace, workspace, environment, {columns}) VALUES {marks} RETURNING span_id",
            [value for row in part for value in (ident, tx.workspace, tx.environment, *row)],
        )
        put |= {row[0] for row in done}
    return put


def _put_metrics(tx: Tx, ident: str, metrics: Mapping[str, Mapping[str, float]]) -> None:
    rows = [(span_id, name, value) for span_id, values in metrics.items() for name, value in values.items()]
    _put_rows(tx, "REPLACE", "span_metric", "span_id, name, value", ident, rows)


def _learn(tx: Tx, trace: Trace, spans: Sequence[Span]) -> None:
    """Let a trace know what its spans tell, except of what its client has told."""
    start, duration, state = trace.start_ms, trace.duration_ms, trace.state
    root = next((span for span in spans if not span.parent_id), None)
    if not trace.final:
        ends = [span.end_ns // 1_000_000 for span in spans if span.end_ns is not None]
        ends += [start + duration] if duration is not None else []
        start = min(start, *(span.start_ns // 1_000_000 for span in spans))
        duration = max(ends) - start if ends else None
    tags, metadata, told = {PLACE_TAG: HERE}, dict[str, str](), dict[str, str]()
    if root is not None:
        state = ("ERROR" if root.status == "ERROR" else "OK") if state in OPEN else state
        tags = {NAME_TAG: root.name, **tags} if NAME_TAG not in trace.tags else tags
        told = root.about
    for name, key in (("session", SESSION), ("user", USER)):
        found = next((span.about[name] for span in spans if span.about.get(name)), None)
        if found and key not in trace.metadata:
            metadata[key] = found
    if any(span.metrics for span in spans):
        metadata |= _totals(tx, trace)
    tx.execute(
        "UPDATE trace SET start_ms=?, duration_ms=?, state=?, request=coalesce(request, ?),"
        " response=coalesce(response, ?), session=? WHERE id=?",
        (start, duration, state, told.get("request"), told.get("response"),
         _session({**metadata, **trace.metadata}), trace.id),
    )  # fmt: skip
    tracking.put_tags(tx, trace.id, tags)
    put_metadata(tx, trace.id, metadata)


def _totals(tx: Tx, trace: Trace) -> dict[str, str]:
    """Sum up what the spans used, for what the client gave no sum itself; spans sent twice count once."""
    sql = "SELECT name, sum(value) FROM span_metric WHERE trace=? AND span_id<>'' GROUP BY name ORDER BY name"
    sums = {name: float(value) for name, value in tx.query(sql, (trace.id,))}
    found = {}
    for key, names in ((TOKENS, TOKEN_KEYS), (COST, COST_KEYS)):
        totals = {name: sums[name] for name in names if name in sums}
        if totals and not (trace.final and key in trace.metadata):
            _put_metrics(tx, trace.id, {"": totals})
            shown = {name: int(value) if key == TOKENS else value for name, value in totals.items()}
            found[key] = msgspec.json.encode(shown).decode()
    return found


def span_contents(reader: Reader, idents: Sequence[str]) -> dict[str, list[str]]:
    """Return ledger's id of a trace -> the contents of its spans: roots first, then by their begin."""
    found: dict[str, list[str]] = {ident: [] for ident in idents}
    for part in tracking.parts(idents):
        sql = (
            f"SELECT trace, content FROM span WHERE trace IN ({','.join('?' * len(part))})"
            " ORDER BY trace, CASE parent_id WHEN '' THEN 0 ELSE 1 END, start_ns, span_id"
        )
        for trace, content in reader.query(sql, part):
            found[trace].append(content)
    return found


def set_tag(tx: Tx, trace_id: str, name: str, value: str) -> None:
    """Set a tag of a trace.

    Raises:
        NotFound: there is no such trace.
    """
    tracking.put_tags(tx, get_trace(tx, trace_id).id, {name: value})
    tx.note(trace_id, tag=name)


def delete_tag(tx: Tx, trace_id: str, name: str) -> None:
    """Remove a tag of a trace.

    Raises:
        NotFound: there is no such trace or tag.
    """
    if not tracking.drop_tag(tx, get_trace(tx, trace_id).id, name):
        raise NotFound(f"No trace tag with key '{name}' for trace with ID '{trace_id}'", where="key")
    tx.note(trace_id, untag=name)


def link(tx: Tx, kind: str, trace_ids: Sequence[str], targets: Sequence[str]) -> None:
    """Link traces, which may come later, to runs or versions of prompts; a link that is there stays one.

    Args:
        tx: the transaction.
        kind: ``run`` or ``prompt``.
        trace_ids: the traces.
        targets: ids of runs as their clients know them, or ``name/version`` of prompts.
    """
    tx.execute_many(
        "INSERT OR IGNORE INTO trace_link(workspace, environment, trace_id, kind, target) VALUES (?,?,?,?,?)",
        [(tx.workspace, tx.environment, one, kind, target) for one in trace_ids for target in targets],
    )
    for one in trace_ids:
        tx.note(one, **{kind: list(targets)})


def linked(reader: Reader, trace_id: str, kind: str) -> list[str]:
    """Return what a trace is linked to; see ``link``."""
    sql = "SELECT target FROM trace_link WHERE workspace=? AND trace_id=? AND kind=? ORDER BY target"
    return [row[0] for row in reader.query(sql, (reader.workspace, trace_id, kind))]


def delete_traces(
    tx: Tx, experiment: int, *, trace_ids: Sequence[str] | None = None, until_ms: int | None = None, most: int = ALL
) -> int:
    """Delete traces of an experiment for good, with their files, and return how many.

    Args:
        tx: the transaction.
        experiment: its number.
        trace_ids: only these.
        until_ms: only those that began then or before, the oldest first.
        most: only so many.
    """
    sql = "SELECT id, trace_id FROM trace WHERE workspace=? AND experiment=?"
    params: list[Value] = [tx.workspace, experiment]
    if until_ms is not None:
        sql, params = f"{sql} AND start_ms<=?", [*params, until_ms]
    found: list[tuple[Any, ...]] = []
    parts: list[Sequence[str]] = [()] if trace_ids is None else tracking.parts(list(dict.fromkeys(trace_ids)))
    for part in parts:
        among = f" AND trace_id IN ({','.join('?' * len(part))})" if part else ""
        found += tx.query(f"{sql}{among} ORDER BY start_ms, trace_id LIMIT ?", (*params, *part, most))
    if not found:
        return 0
    root = tracking.get_experiment(tx, experiment).root
    for table, column in _OWNED:
        tx.execute_many(f"DELETE FROM {table} WHERE {column}=?", [(row[0],) for row in found])
    sql = "DELETE FROM trace_link WHERE workspace=? AND trace_id=?"
    tx.execute_many(sql, [(tx.workspace, row[1]) for row in found])
    for _, trace_id in found:
        if root.startswith("mlflow-artifacts:"):
            base = root.removeprefix("mlflow-artifacts:").strip("/")
            artifacts.drop_artifacts(tx, artifacts.PROXIED, f"{base}/traces/{trace_id}")
        tx.note(trace_id, deleted=True)
    return len(found)


_OWNED = (
    ("span_attribute", "trace"), ("span_metric", "trace"), ("span", "trace"), ("assessment", "trace"),
    ("trace_metadata", "trace"), ("tag", "subject"), ("trace", "id"),
)  # fmt: skip
