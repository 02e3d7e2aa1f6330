"""Prometheus text of what the endpoints did, from recorded calls; and of the processes (R65)."""

from __future__ import annotations

import resource

from trimtab.store import live
from trimtab.store.calls import get_offset
from trimtab.store.store import Store

_BOUNDS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000)
_CALLS = """SELECT deployment_id, v.number, a.name, count(DISTINCT request_id), sum(status >= 500), count(*)
FROM call c JOIN version v ON v.id = c.version_id JOIN asset a ON a.id = v.asset_id
WHERE c.endpoint_id = ? GROUP BY deployment_id, v.number, a.name ORDER BY deployment_id"""


def render(store: Store) -> str:
    """Return the metrics as Prometheus text, version 0.0.4."""
    lines: list[str] = []
    _head(lines, "trimtab_requests_total", "counter", "Requests that were answered.")
    rows = [
        (endpoint, row)
        for endpoint in live.list_endpoints(store.ledger)
        for row in store.ledger.query(_CALLS, (endpoint.id,))
    ]
    for endpoint, row in rows:
        lines.append(f"trimtab_requests_total{_labels(endpoint.name, row)} {row[3]}")
    _head(lines, "trimtab_errors_total", "counter", "Rows that were answered with status 500 or above.")
    for endpoint, row in rows:
        lines.append(f"trimtab_errors_total{_labels(endpoint.name, row)} {row[4]}")
    _head(lines, "trimtab_predictions_total", "counter", "Rows that were answered.")
    for endpoint, row in rows:
        lines.append(f"trimtab_predictions_total{_labels(endpoint.name, row)} {row[5]}")
    _latency(lines, store)
    _head(lines, "trimtab_traffic_percent", "gauge", "Share of an endpoint's traffic.")
    for endpoint in live.list_endpoints(store.ledger):
        for deployment in live.list_deployments(store.ledger, endpoint.id):
            share = endpoint.traffic.get(deployment.id, 0.0)
            if deployment.desired == "up":
                names = f'{{endpoint="{endpoint.name}",deployment="{deployment.number}"}}'
                lines.append(f"trimtab_traffic_percent{names} {share:g}")
    _head(lines, "trimtab_alarms_total", "counter", "Alarms that were raised.")
    lines.append(f"trimtab_alarms_total {len(live.list_alarms(store.ledger))}")
    _processes(lines, store)
    return "\n".join(lines) + "\n"


def _latency(lines: list[str], store: Store) -> None:
    _head(lines, "trimtab_request_seconds", "histogram", "Time of the attempt that was answered.")
    for endpoint in live.list_endpoints(store.ledger):
        cases = ", ".join(f"sum(latency_us <= {bound * 1000:g})" for bound in _BOUNDS_MS)
        sql = f"SELECT count(*), coalesce(sum(latency_us), 0), {cases} FROM call WHERE endpoint_id = ? AND row = 0"  # noqa: S608
        count, total, *within = store.ledger.query(sql, (endpoint.id,))[0]
        for bound, seen in zip(_BOUNDS_MS, within, strict=True):
            name = f'{{endpoint="{endpoint.name}",le="{bound / 1000:g}"}}'
            lines.append(f"trimtab_request_seconds_bucket{name} {seen or 0}")
        lines.append(f'trimtab_request_seconds_bucket{{endpoint="{endpoint.name}",le="+Inf"}} {count}')
        lines.append(f'trimtab_request_seconds_sum{{endpoint="{endpoint.name}"}} {total / 1e6:g}')
        lines.append(f'trimtab_request_seconds_count{{endpoint="{endpoint.name}"}} {count}')


def _processes(lines: list[str], store: Store) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _head(lines, "trimtab_control_cpu_seconds_total", "counter", "CPU time of the control process.")
    lines.append(f"trimtab_control_cpu_seconds_total {usage.ru_utime + usage.ru_stime:g}")
    _head(lines, "trimtab_control_memory_bytes", "gauge", "Largest resident memory of the control process.")
    lines.append(f"trimtab_control_memory_bytes {usage.ru_maxrss * 1024}")
    behind = get_offset(store.ledger, "calls")
    _head(lines, "trimtab_calls_segment", "gauge", "Segment of the calls log that is being read.")
    lines.append(f"trimtab_calls_segment {behind.segment}")


def _head(lines: list[str], name: str, kind: str, text: str) -> None:
    lines.append(f"# HELP {name} {text}")
    lines.append(f"# TYPE {name} {kind}")


def _labels(endpoint: str, row: tuple[object, ...]) -> str:
    return f'{{endpoint="{endpoint}",version="{row[2]}:{row[1]}",deployment="{row[0]}"}}'
