"""Traces: begun, found, tagged, linked and deleted."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from trimtab.api.mlflow import limits
from trimtab.api.mlflow.artifacts import SCHEME, Artifacts, download
from trimtab.api.mlflow.assessments import (
    EPOCH,
    an_object,
    assessment_data,
    assessment_from,
    changed_from,
    duration_from,
    duration_text,
    texts_in,
    time_from,
    time_text,
)
from trimtab.api.mlflow.entities import pairs
from trimtab.api.mlflow.items import tags_from
from trimtab.api.mlflow.spans import shown
from trimtab.api.mlflow.tracking import experiment_number
from trimtab.api.mlflow.wire import (
    LIST,
    NEEDED,
    TEXT,
    TEXTS,
    WHOLE,
    Field,
    MlflowError,
    Spec,
    arguments,
    as_number,
    as_whole,
    error_of,
    invalid,
    number,
)
from trimtab.api.routes import JSON, Route
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store import assessments, traces, tracking
from trimtab.store.assessments import Assessment
from trimtab.store.engine import ALL
from trimtab.store.ledger import Tx
from trimtab.store.store import Store
from trimtab.store.tracemetrics import BUCKET, Aggregate, Point, trace_metrics
from trimtab.store.traces import PLACE_TAG, Trace
from trimtab.store.tracesearch import count_traces, search_traces

FILE = "traces.json"
_STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")
_OLD = ("TRACE_STATUS_UNSPECIFIED", *_STATES[1:])
_MOST_PAGE, _MOST_LINKS, _MOST_AT_ONCE = 500, 100, 1000
_STATS = "mlflow.trace.sizeStats"
_PATIENCE_S, _PAUSE_S = 3.0, 0.1
_POINTS, _MOST_POINTS, _LONGEST_S = 1000, 10_000, 10**9


class Traces:
    """The operations on traces and on what is said of them.

    Args:
        store: whose ledger is read and written.
        kept: the artifacts.
    """

    def __init__(self, store: Store, kept: Artifacts) -> None:
        self._ledger = store.ledger
        self.kept = kept

    def start(self, given: Data) -> Data:
        """Record a trace as a whole, with what is said of it already."""
        info = an_object(an_object(given["trace"], "trace").get("trace_info"), "trace.trace_info")
        trace = trace_from(info)
        said = [assessment_from(item, trace.trace_id) for item in info.get("assessments") or []]

        def put(tx: Tx) -> Trace:
            made = traces.start_trace(tx, trace)
            for one in said:
                assessments.create_assessment(tx, one)
            return made

        made = self._ledger.write(put, what="start trace")
        return {"trace": {"trace_info": self._infos([made])[0]}}

    def start_old(self, given: Data) -> Data:
        """Begin a trace, as clients of the second version do."""
        trace = Trace(
            trace_id=new_hex(),
            experiment=experiment_number(given.get("experiment_id") or "0"),
            state="IN_PROGRESS",
            start_ms=given.get("timestamp_ms") or 0,
            metadata=_mapping(given.get("request_metadata") or [], "request_metadata"),
            tags=_mapping(given.get("tags") or [], "tags"),
        )
        made = self._ledger.write(lambda tx: traces.start_trace(tx, trace), what="start trace")
        return {"trace_info": old_info(made)}

    def end_old(self, given: Data) -> Data:
        """End a trace that was begun so."""
        state = _enum(_OLD, given.get("status") or 0, "status")
        metadata = _mapping(given.get("request_metadata") or [], "request_metadata")
        tags = _mapping(given.get("tags") or [], "tags")

        def put(tx: Tx) -> Trace:
            at = given.get("timestamp_ms") or 0
            ended = traces.end_trace(tx, given["trace_id"], _STATES[_OLD.index(state)], at, metadata)
            tracking.put_tags(tx, ended.id, tags)
            return traces.get_trace(tx, ended.trace_id)

        return {"trace_info": old_info(self._ledger.write(put, what="end trace"))}

    def info(self, given: Data) -> Data:
        """Return what is known of a trace as a whole."""
        found = traces.get_trace(self._ledger, given["trace_id"])
        return {"trace": {"trace_info": self._infos([found])[0]}}

    def info_old(self, given: Data) -> Data:
        """Return what is known of a trace, as clients of the second version read it."""
        return {"trace_info": old_info(traces.get_trace(self._ledger, given["trace_id"]))}

    def get(self, given: Data) -> Data:
        """Return a trace with its spans; those that are announced are waited for, for a moment."""
        ident, until = given["trace_id"], time.monotonic() + _PATIENCE_S
        while True:
            trace = traces.find_trace(self._ledger, ident)
            if trace is None:
                raise MlflowError(f"Trace with ID {ident} is not found.", "RESOURCE_DOES_NOT_EXIST")
            whole = self._whole([trace])[0]
            if given.get("allow_partial") or len(whole["spans"]) >= announced(trace):
                return {"trace": whole}
            if time.monotonic() > until:
                text = f"Trace with ID {ident} is not fully exported yet, please try again later."
                raise MlflowError(text, "RESOURCE_DOES_NOT_EXIST")
            time.sleep(_PAUSE_S)

    def batch(self, given: Data) -> Data:
        """Return several traces with their spans, without those of which spans are on the way."""
        wanted = _at_once(given["trace_ids"])
        found = [trace for trace in traces.get_traces(self._ledger, wanted) if trace.tags.get(PLACE_TAG) == traces.HERE]
        pairs_of = zip(found, self._whole(found), strict=True)
        return {
            "traces": [whole for trace, whole in pairs_of if whole["spans"] and len(whole["spans"]) >= announced(trace)]
        }

    def batch_infos(self, given: Data) -> Data:
        """Return what is known of several traces as wholes."""
        return {"trace_infos": self._infos(traces.get_traces(self._ledger, _at_once(given["trace_ids"])))}

    def search(self, given: Data) -> Data:
        """Return a page of traces."""
        places = [an_object(item, "locations") for item in given["locations"]]
        homes = [
            an_object(place["mlflow_experiment"], "locations") for place in places if place.get("mlflow_experiment")
        ]
        found, token = self._search(given, [str(home.get("experiment_id", "")) for home in homes])
        return {"traces": self._infos(found), **({"next_page_token": token} if token else {})}

    def search_old(self, given: Data) -> Data:
        """Return a page of traces, as clients of the second version read them."""
        found, token = self._search(given, given["experiment_ids"])
        return {"traces": [old_info(trace) for trace in found], **({"next_page_token": token} if token else {})}

    def _search(self, given: Data, experiments: Sequence[str]) -> tuple[list[Trace], str]:
        most = given.get("max_results", 100)
        if not 1 <= most <= _MOST_PAGE:
            raise invalid("max_results", most)
        return search_traces(
            self._ledger,
            [experiment_number(one) for one in dict.fromkeys(experiments)],
            filter=given.get("filter") or "",
            order=given.get("order_by") or [],
            most=most,
            token=given.get("page_token") or "",
        )

    def correlate(self, given: Data) -> Data:
        """Say how far the traces that pass one filter are those that pass another."""
        homes = [experiment_number(one) for one in dict.fromkeys(given["experiment_ids"])]
        base, first, second = ([text] if text else [] for text in (
            given.get("base_filter"), given["filter_string1"], given["filter_string2"]
        ))  # fmt: skip
        filters = (base, base + first, base + second, base + first + second)
        total, one, two, both = (count_traces(self._ledger, homes, items) for items in filters)
        return {
            "npmi": number(mutual(total, one, two, both, 0.0)),
            "npmi_smoothed": number(mutual(total, one, two, both, 0.5)),
            "filter1_count": one,
            "filter2_count": two,
            "joint_count": both,
            "total_count": total,
        }

    def measure(self, given: Data) -> Data:
        """Return counts, latency, tokens, cost or what was said, in groups."""
        wanted = [an_object(item, "aggregations") for item in given["aggregations"]]
        start, end = given.get("start_time_ms"), given.get("end_time_ms")
        bucket = given.get("time_interval_seconds") or 0
        if bucket and (start is None or end is None):
            raise MlflowError("start_time_ms and end_time_ms are required if time_interval_seconds is set")
        if not 0 <= bucket <= _LONGEST_S or not 0 <= given.get("max_results", 0) <= _MOST_POINTS:
            raise MlflowError("time_interval_seconds or max_results is out of its range")
        points = trace_metrics(
            self._ledger,
            [experiment_number(one) for one in given["experiment_ids"]],
            given["view_type"],
            given["metric_name"],
            [_aggregate(item) for item in wanted],
            dimensions=given.get("dimensions") or [],
            filters=given.get("filters") or [],
            bucket_s=bucket,
            span_ms=(start, end),
            most=given.get("max_results") or _POINTS,
        )
        return {"data_points": [_point_data(given["metric_name"], point) for point in points]}

    def delete(self, given: Data) -> Data:
        """Delete traces for good."""
        until, most, wanted = (given.get(name) for name in ("max_timestamp_millis", "max_traces", "request_ids"))
        if not wanted and until is None:
            raise MlflowError("Either `max_timestamp_millis` or `trace_ids` must be specified.")
        if wanted and until is not None:
            raise MlflowError("Only one of `max_timestamp_millis` and `trace_ids` can be specified.")
        if wanted and most is not None:
            raise MlflowError("`max_traces` can't be specified if `trace_ids` is specified.")
        if most is not None and most <= 0:
            raise MlflowError(f"`max_traces` must be a positive integer, received {most}.")
        home = experiment_number(given["experiment_id"])
        count = self._ledger.write(
            lambda tx: traces.delete_traces(tx, home, trace_ids=wanted or None, until_ms=until, most=most or ALL),
            what="delete traces",
        )
        return {"traces_deleted": count}

    def set_tag(self, given: Data) -> Data:
        """Set a tag of a trace."""
        tags = tags_from([{"key": given["key"], "value": given.get("value", "")}], "", limits.TAG)
        (pair,) = tags.items()
        self._ledger.write(lambda tx: traces.set_tag(tx, given["trace_id"], *pair), what="tag trace")
        return {}

    def delete_tag(self, given: Data) -> Data:
        """Remove a tag of a trace."""
        self._ledger.write(lambda tx: traces.delete_tag(tx, given["trace_id"], given["key"]), what="untag trace")
        return {}

    def link_run(self, given: Data) -> Data:
        """Link traces, which may come later, to a run."""
        wanted = given["trace_ids"]
        if len(wanted) > _MOST_LINKS:
            raise MlflowError(
                f"Cannot link more than {_MOST_LINKS} traces to a run in a single request."
                f" Provided {len(wanted)} traces."
            )
        for one in wanted:
            if not traces.is_trace_id(one):
                raise invalid("trace_ids", one)

        def put(tx: Tx) -> None:
            tracking.need_run(tx, given["run_id"], active=False)
            traces.link(tx, "run", wanted, [given["run_id"]])

        self._ledger.write(put, what="link traces")
        return {}

    def link_prompts(self, given: Data) -> Data:
        """Link versions of prompts to a trace."""
        items = [an_object(item, "prompt_versions") for item in given["prompt_versions"]]
        wanted = [f"{item.get('name', '')}/{item.get('version', '')}" for item in items]
        if not traces.is_trace_id(given["trace_id"]):
            raise invalid("trace_id", given["trace_id"])
        self._ledger.write(lambda tx: traces.link(tx, "prompt", [given["trace_id"]], wanted), what="link prompts")
        return {}

    # What is said of traces

    def create_assessment(self, given: Data) -> Data:
        """Record what someone says of a trace."""
        one = assessment_from(given["assessment"], given["trace_id"])
        made = self._ledger.write(lambda tx: assessments.create_assessment(tx, one), what="assess trace")
        return {"assessment": assessment_data(made)}

    def get_assessment(self, given: Data) -> Data:
        """Return what someone said of a trace."""
        found = assessments.get_assessment(self._ledger, given["trace_id"], given["assessment_id"])
        return {"assessment": assessment_data(found)}

    def update_assessment(self, given: Data) -> Data:
        """Change what someone said of a trace, as far as the mask names it."""
        mask, item = given["update_mask"].split(","), an_object(given["assessment"], "assessment")
        paths = {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", name.strip()) for name in mask}

        def change(tx: Tx) -> Assessment:
            known = assessments.get_assessment(tx, given["trace_id"], given["assessment_id"])
            changed = changed_from(known, paths, item)
            assessments.update_assessment(tx, changed)
            return changed

        return {"assessment": assessment_data(self._ledger.write(change, what="change assessment"))}

    def delete_assessment(self, given: Data) -> Data:
        """Delete what someone said of a trace."""
        ident, trace_id = given["assessment_id"], given["trace_id"]
        self._ledger.write(lambda tx: assessments.delete_assessment(tx, trace_id, ident), what="delete assessment")
        return {}

    # Answers

    def _infos(self, found: Sequence[Trace]) -> list[Data]:
        said = assessments.assessments_of(self._ledger, {trace.id: trace.trace_id for trace in found})
        return [info_data(trace, said.get(trace.id, [])) for trace in found]

    def _whole(self, found: Sequence[Trace]) -> list[Data]:
        contents = traces.span_contents(self._ledger, [trace.id for trace in found])
        infos = self._infos(found)
        return [
            {"trace_info": info, "spans": [msgspec.Raw(content.encode()) for content in contents[trace.id]]}
            for trace, info in zip(found, infos, strict=True)
        ]

    def spans_file(self, trace_id: str) -> bytes | None:
        """Return a trace's spans as its file has them, or None where only the file has them."""
        trace = traces.get_trace(self._ledger, trace_id)
        if trace.tags.get(PLACE_TAG) != traces.HERE:
            return None
        contents = traces.span_contents(self._ledger, [trace.id])[trace.id]
        return msgspec.json.encode({"spans": [shown(content, trace_id) for content in contents]})

    def file_path(self, trace_id: str, path: str) -> str:
        """Return where one of a trace's files lies in the artifact proxy.

        Raises:
            MlflowError: the files are in another storage.
        """
        root = self._root(trace_id)
        if not root.startswith(SCHEME):
            text = f"The artifacts at '{root}' are not kept by this server; read them where they are"
            raise MlflowError(text, "NOT_IMPLEMENTED")
        return f"{root.removeprefix(SCHEME).strip('/')}/{path}"

    def _root(self, trace_id: str) -> str:
        # Not by the tag: that a client can set, to a place where it must not read.
        trace = traces.get_trace(self._ledger, trace_id)
        return traces.root_of(tracking.get_experiment(self._ledger, trace.experiment), trace_id)


def announced(trace: Trace) -> int:
    """Return how many spans a trace's client says that it has, 0 if it does not."""
    try:
        found = msgspec.json.decode(trace.metadata.get(_STATS, "{}"))
        return int(found.get("num_spans", 0)) if isinstance(found, dict) else 0
    except (msgspec.DecodeError, TypeError, ValueError, OverflowError):
        return 0


def mutual(total: int, one: int, two: int, both: int, more: float) -> float:
    """Return the normalized pointwise mutual information of two events (Bouma 2009), NaN where it is undefined.

    Args:
        total: how many there are.
        one: how many have the first.
        two: how many have the second.
        both: how many have both.
        more: what is added to each of the four counts; 0.5 is Jeffreys' prior.
    """
    cells = [both, one - both, two - both, total - one - two + both]
    if total <= 0 or not one or not two or min(cells) < 0:
        return math.nan
    if not both and not more:
        return -1.0
    whole = sum(cells) + 4 * more
    joint, first, second = (cells[0] + more) / whole, (one + 2 * more) / whole, (two + 2 * more) / whole
    if joint >= 1.0:
        return 1.0
    return max(-1.0, min(1.0, math.log(joint / (first * second)) / -math.log(joint)))


def _aggregate(item: Data) -> Aggregate:
    """Return how a metric is to be aggregated; a percentile's percentage is from 0 to 100."""
    kind, percent = str(item.get("aggregation_type", "")), item.get("percentile_value")
    try:
        found = Aggregate(kind, 0.0 if percent is None else as_number(percent))
    except (TypeError, ValueError, OverflowError):
        raise invalid("aggregations", item) from None
    if (kind == "PERCENTILE") != (percent is not None) or not 0 <= found.percent <= 100:
        raise invalid("aggregations", item)
    return found


def _point_data(metric: str, point: Point) -> Data:
    held = dict(point.dimensions)
    if BUCKET in held:
        held[BUCKET] = (EPOCH + timedelta(milliseconds=int(held[BUCKET]))).isoformat()
    return {
        "metric_name": metric,
        "dimensions": held,
        "values": {label: number(value) for label, value in point.values.items()},
    }


def _at_once(wanted: Sequence[str]) -> Sequence[str]:
    if len(wanted) > _MOST_AT_ONCE:
        raise MlflowError(f"At most {_MOST_AT_ONCE} traces can be asked for at once. Got {len(wanted)}.")
    return wanted


def _mapping(items: Sequence[Any], path: str) -> dict[str, str]:
    found = {}
    for item in items:
        entry = an_object(item, path)
        key, value = entry.get("key"), entry.get("value", "")
        if not isinstance(key, str) or not isinstance(value, str):
            raise invalid(path, item)
        found[key] = value
    return found


def _enum(names: Sequence[str], value: Any, path: str) -> str:
    if isinstance(value, str) and value in names:
        return value
    try:
        return names[as_whole(value)]
    except (TypeError, ValueError, OverflowError, IndexError):
        raise invalid(path, value) from None


def trace_from(info: Data) -> Trace:
    """Return what a client says of a trace.

    Raises:
        MlflowError: a field is missing or none.
    """
    place = an_object(info.get("trace_location") or {}, "trace_location")
    home = an_object(place.get("mlflow_experiment") or {}, "trace_location.mlflow_experiment")
    duration = info.get("execution_duration")
    for name in ("trace_id", "client_request_id", "request_preview", "response_preview"):
        if not isinstance(info.get(name), str | None):
            raise invalid(name, info[name])
    return Trace(
        trace_id=info.get("trace_id") or "",
        experiment=experiment_number(str(home.get("experiment_id", ""))),
        state=_enum(_STATES, info.get("state") or 0, "state"),
        start_ms=time_from(info["request_time"], "request_time") if info.get("request_time") else 0,
        duration_ms=None if duration is None else duration_from(duration, "execution_duration"),
        client_id=info.get("client_request_id"),
        request=info.get("request_preview"),
        response=info.get("response_preview"),
        metadata=texts_in(info.get("trace_metadata") or {}, "trace_metadata"),
        tags=texts_in(info.get("tags") or {}, "tags"),
        final=True,
    )


def info_data(trace: Trace, said: Sequence[Assessment] = ()) -> Data:
    """Return a trace as a whole as an answer has it."""
    told = {
        "client_request_id": trace.client_id,
        "request_preview": trace.request,
        "response_preview": trace.response,
        "execution_duration": None if trace.duration_ms is None else duration_text(trace.duration_ms),
    }
    home = {"experiment_id": str(trace.experiment)}
    return {
        "trace_id": trace.trace_id,
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": home},
        "request_time": time_text(trace.start_ms),
        "state": trace.state,
        "trace_metadata": trace.metadata,
        "tags": trace.tags,
        **{name: value for name, value in told.items() if value is not None},
        **({"assessments": [assessment_data(one) for one in said]} if said else {}),
    }


def old_info(trace: Trace) -> Data:
    """Return a trace as clients of the second version read it."""
    duration = {} if trace.duration_ms is None else {"execution_time_ms": trace.duration_ms}
    return {
        "request_id": trace.trace_id,
        "experiment_id": str(trace.experiment),
        "timestamp_ms": trace.start_ms,
        **duration,
        "status": _OLD[_STATES.index(trace.state)],
        "request_metadata": pairs(trace.metadata),
        "tags": pairs(trace.tags),
    }


_TAG: Spec = {"key": NEEDED, "value": TEXT}
_PAGE: Spec = {"filter": TEXT, "max_results": WHOLE, "order_by": TEXTS, "page_token": TEXT}
_DELETE: Spec = {
    "experiment_id": NEEDED, "max_timestamp_millis": WHOLE, "max_traces": WHOLE, "request_ids": TEXTS,
}  # fmt: skip
_IDS: Spec = {"trace_ids": Field("texts", required=True)}
_SAID: Spec = {"assessment": Field("object", required=True)}
_OLD_TRACE: Spec = {"timestamp_ms": WHOLE, "request_metadata": LIST, "tags": LIST}
_AT = "traces/{trace_id:str}"
_ASSESSMENT = f"{_AT}/assessments/{{assessment_id:str}}"
Operation = tuple[str, str, Spec, Callable[[Traces, Data], Data]]
OPERATIONS: tuple[Operation, ...] = (
    ("POST", "traces", {"trace": Field("object", required=True)}, Traces.start),
    ("GET", _AT, {}, Traces.info),
    ("GET", "traces/get", {"trace_id": NEEDED, "allow_partial": Field("flag")}, Traces.get),
    ("GET", "traces/batchGet", _IDS, Traces.batch),
    ("POST", "traces/batchGetInfos", _IDS, Traces.batch_infos),
    ("POST", "traces/search", {"locations": Field("list", required=True), **_PAGE}, Traces.search),
    (
        "POST",
        "traces/calculate-filter-correlation",
        {
            "experiment_ids": Field("texts", required=True),
            "filter_string1": NEEDED,
            "filter_string2": NEEDED,
            "base_filter": TEXT,
        },
        Traces.correlate,
    ),
    (
        "POST",
        "traces/metrics",
        {
            "experiment_ids": Field("texts", required=True),
            "view_type": NEEDED,
            "metric_name": NEEDED,
            "aggregations": Field("list", required=True),
            "dimensions": TEXTS,
            "filters": TEXTS,
            "time_interval_seconds": WHOLE,
            "start_time_ms": WHOLE,
            "end_time_ms": WHOLE,
            "max_results": WHOLE,
            "page_token": TEXT,
        },
        Traces.measure,
    ),
    ("POST", "traces/delete-traces", _DELETE, Traces.delete),
    ("PATCH", f"{_AT}/tags", _TAG, Traces.set_tag),
    ("DELETE", f"{_AT}/tags", {"key": NEEDED}, Traces.delete_tag),
    ("POST", f"{_AT}/assessments", _SAID, Traces.create_assessment),
    ("GET", _ASSESSMENT, {}, Traces.get_assessment),
    ("PATCH", _ASSESSMENT, {**_SAID, "update_mask": NEEDED}, Traces.update_assessment),
    ("DELETE", _ASSESSMENT, {}, Traces.delete_assessment),
)
"""Method, path below ``/api/3.0/mlflow/``, the request's fields, and what answers it."""
OLD_OPERATIONS: tuple[Operation, ...] = (
    ("POST", "traces", {"experiment_id": TEXT, **_OLD_TRACE}, Traces.start_old),
    ("PATCH", _AT, {"status": TEXT, **_OLD_TRACE}, Traces.end_old),
    ("GET", f"{_AT}/info", {}, Traces.info_old),
    ("GET", "traces", {"experiment_ids": Field("texts", required=True), **_PAGE}, Traces.search_old),
    ("POST", "traces/delete-traces", _DELETE, Traces.delete),
    ("PATCH", f"{_AT}/tags", _TAG, Traces.set_tag),
    ("DELETE", f"{_AT}/tags", {"key": NEEDED}, Traces.delete_tag),
    ("POST", "traces/link-to-run", {**_IDS, "run_id": NEEDED}, Traces.link_run),
    (
        "POST",
        "traces/link-prompts",
        {"trace_id": NEEDED, "prompt_versions": Field("list", required=True)},
        Traces.link_prompts,
    ),
)
"""The same below ``/api/2.0/mlflow/``."""


def artifact(kept: Traces) -> Callable[[Route], Callable[..., Any]]:
    """Return what makes Litestar's handler of ``get-trace-artifact``: a trace's spans, or one of its attachments."""

    def wire(route: Route) -> Callable[..., Any]:
        del route
        litestar = need("litestar")

        async def handle(request: Any) -> Any:
            try:
                query = {name: [value] for name, value in request.query_params.multi_items()}
                given = arguments({}, {"request_id": NEEDED, "path": TEXT}, query)
                ident, path = given["request_id"], given.get("path")
                content = None if path else await asyncio.to_thread(kept.spans_file, ident)
                if content is not None:
                    return litestar.Response(content, media_type=JSON)
                place = await asyncio.to_thread(kept.file_path, ident, f"attachments/{path}" if path else FILE)
                return await download(kept.kept, place, request)
            except Exception as error:
                status, told = error_of(error)
                return litestar.Response(msgspec.json.encode(told), status_code=status, media_type=JSON)

        handle.__annotations__ = {"request": litestar.Request, "return": Any}
        return handle

    return wire
