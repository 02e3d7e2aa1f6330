"""Prometheus text of what the endpoints did, from recorded calls, and of the processes that did it (R65)."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from trimtab.core.errors import Unavailable
from trimtab.serve.collect import STREAM
from trimtab.serve.frames import calls_folder
from trimtab.store import facts, live
from trimtab.store.calls import get_offset
from trimtab.store.intake import read
from trimtab.store.ledger import Reader
from trimtab.store.store import Store

BOUNDS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000)
LATE_US = 600_000_000
"""Calls that are recorded later than this after their event time may be missing until the next start."""
MOST_BACKLOG = 10_000
_WITHIN = ", ".join(f"total(row = 0 AND latency_us <= {bound * 1000:g})" for bound in BOUNDS_MS)
_SQL = (
    "SELECT deployment_id, version_id, status, total(row = 0), count(*), total((row = 0) * latency_us), "  # noqa: S608
    f"{_WITHIN} FROM call WHERE endpoint_id = ? AND at >= ? AND at < ? GROUP BY 1, 2, 3"
)
Key = tuple[str, str, str, int]
Row = tuple[float, ...]


class Counts:
    """Counts of recorded calls, kept from scrape to scrape so that each call is read about once.

    What is older than ``LATE_US`` behind the newest call is added up for good; only the rest is read again.
    """

    def __init__(self) -> None:
        self._sealed: dict[Key, Row] = {}
        self._until: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self, reader: Reader, endpoint_id: str) -> dict[Key, Row]:
        """Return by endpoint, deployment, version and status: requests, rows, microseconds, and requests by bound."""
        with self._lock:
            newest = reader.query("SELECT max(at) FROM call WHERE endpoint_id = ?", (endpoint_id,))[0][0]
            if newest is None:
                return {}
            start = self._until.get(endpoint_id, -(1 << 62))
            seal = max(start, int(newest) - LATE_US)
            _add(self._sealed, reader, endpoint_id, start, seal)
            self._until[endpoint_id] = seal
            found = {key: row for key, row in self._sealed.items() if key[0] == endpoint_id}
            _add(found, reader, endpoint_id, seal, 1 << 62)
            return found


def _add(into: dict[Key, Row], reader: Reader, endpoint_id: str, start: int, end: int) -> None:
    for deployment, version, status, *values in reader.query(_SQL, (endpoint_id, start, end)):
        key = (endpoint_id, deployment, version, status)
        into[key] = tuple(a + b for a, b in zip(into.get(key, (0.0,) * len(values)), values, strict=True))


class Page:
    """A page of metrics that is being written."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> None:
        """Write one family: its help, its type and a line for each sample."""
        self._head(name, kind, text)
        self._lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]

    def histogram(self, name: str, text: str, samples: Iterable[tuple[Mapping[str, str], Row, float, float]]) -> None:
        """Write a histogram: for each sample the requests by bound, all requests, and the seconds in all."""
        self._head(name, "histogram", text)
        for labels, within, count, total in samples:
            for bound, seen in zip(BOUNDS_MS, within, strict=True):
                self._lines.append(f"{name}_bucket{_labels({**labels, 'le': f'{bound / 1000:g}'})} {_number(seen)}")
            self._lines.append(f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {_number(count)}")
            self._lines.append(f"{name}_sum{_labels(labels)} {_number(total)}")
            self._lines.append(f"{name}_count{_labels(labels)} {_number(count)}")

    def text(self) -> str:
        """Return the page as Prometheus text, version 0.0.4."""
        return "\n".join(self._lines) + "\n"

    def _head(self, name: str, kind: str, text: str) -> None:
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def render(store: Store, counts: Counts, router: Callable[[], Mapping[str, Any]] | None = None) -> str:
    """Return the metrics of a store's endpoints and processes as Prometheus text.

    Args:
        store: the store.
        counts: kept between calls.
        router: asks the router for its own counts; by default it is not asked.
    """
    page = Page()
    _endpoints(page, store, counts)
    _operations(page, store)
    _processes(page)
    _router(page, router)
    return page.text()


def _endpoints(page: Page, store: Store, counts: Counts) -> None:
    ledger = store.ledger
    rows: list[tuple[dict[str, str], Row]] = []
    traffic = []
    versions: dict[str, str] = {}
    for endpoint in live.list_endpoints(ledger):
        numbers = {}
        for one in live.list_deployments(ledger, endpoint.id):
            numbers[one.id] = str(one.number)
            if one.desired == "up":
                named = {"endpoint": endpoint.name, "deployment": str(one.number), "state": one.state}
                traffic.append((named, endpoint.traffic.get(one.id, 0.0)))
        for (_, deployment, version, status), row in sorted(counts.read(ledger, endpoint.id).items()):
            if version not in versions:
                versions[version] = facts.get_version(ledger, version).ref
            labels = {"endpoint": endpoint.name, "deployment": numbers[deployment], "version": versions[version]}
            rows.append(({**labels, "status": str(status)}, row))
    page.family("trimtab_requests_total", "counter", "Requests, by the status that they were answered with.",
                [(labels, row[0]) for labels, row in rows])  # fmt: skip
    page.family("trimtab_errors_total", "counter", "Requests that failed by our fault: status 500 and above.",
                [(labels, row[0]) for labels, row in rows if int(labels["status"]) >= 500])  # fmt: skip
    page.family("trimtab_predictions_total", "counter", "Rows that were answered.",
                [(labels, row[1]) for labels, row in rows if int(labels["status"]) < 400])  # fmt: skip
    page.histogram("trimtab_request_seconds", "Time of the attempt that was answered.",
                   [(labels, row[3:], row[0], row[2] / 1e6) for labels, row in rows])  # fmt: skip
    page.family("trimtab_traffic_percent", "gauge", "Share of an endpoint's traffic.", traffic)


def _operations(page: Page, store: Store) -> None:
    ledger, home = store.ledger, store.home
    alarms = live.list_alarms(ledger)
    open_now = sum(alarm.resolved_at is None for alarm in alarms)
    waiting, _ = read(calls_folder(home.intake), get_offset(ledger, STREAM), MOST_BACKLOG)
    states = [firing.state for firing in live.list_firings(ledger)]
    disk = shutil.disk_usage(home.root)
    page.family("trimtab_alarms_total", "counter", "Alarms that were raised.", [({}, len(alarms))])
    page.family("trimtab_alarms_open", "gauge", "Alarms that are not resolved.", [({}, open_now)])
    page.family("trimtab_firings", "gauge", "What automations did, by state.",
                [({"state": state}, states.count(state)) for state in sorted(set(states))])  # fmt: skip
    text = f"Calls in the log that are not taken in yet, at most {MOST_BACKLOG}."
    page.family("trimtab_calls_waiting", "gauge", text, [({}, len(waiting))])
    page.family("trimtab_disk_free_bytes", "gauge", "Room left where the store lies.", [({}, disk.free)])


def _router(page: Page, router: Callable[[], Mapping[str, Any]] | None) -> None:
    try:
        told = router() if router else {}
    except Unavailable:
        told = {"up": 0}
    page.family("trimtab_router_up", "gauge", "The router answers.", [({}, float(told.get("up", bool(told))))])
    for name, kind, text in (
        ("answered", "counter", "Requests that the router answered since its start."),
        ("failed", "counter", "Requests that failed at the router or behind it since its start."),
        ("dropped_frames", "counter", "Call records that were dropped since the router's start."),
    ):
        if name in told:
            ending = "_total" if kind == "counter" else ""
            page.family(f"trimtab_router_{name}{ending}", kind, text, [({}, float(told[name]))])


def _processes(page: Page) -> None:
    found = [({"process": name, "pid": str(pid)}, seconds, memory) for name, pid, seconds, memory in processes()]
    page.family("trimtab_process_cpu_seconds_total", "counter", "CPU time of a process.",
                [(labels, seconds) for labels, seconds, _ in found])  # fmt: skip
    page.family("trimtab_process_memory_bytes", "gauge", "Resident memory of a process.",
                [(labels, memory) for labels, _, memory in found])  # fmt: skip


def processes(root: Path = Path("/proc")) -> list[tuple[str, int, float, float]]:
    """Return this process, its parent and its parent's children: name, pid, CPU seconds, resident bytes.

    Where there is no such file system nothing is told.
    """
    ticks, page_size, parent = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE"), os.getppid()
    found = []
    for folder in sorted(root.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        pid = int(folder.name)
        if pid not in (os.getpid(), parent) and int(fields[1]) != parent:
            continue
        seconds = (int(fields[11]) + int(fields[12])) / ticks
        found.append((_name(pid, words), pid, seconds, float(int(fields[21]) * page_size)))
    return found


def _name(pid: int, words: list[str]) -> str:
    """Return what a process is called: its part here, the last word of its module, or its program."""
    if pid in (os.getpid(), os.getppid()):
        return "control" if pid == os.getpid() else "supervisor"
    modules = [after for before, after in pairwise(words) if before == "-m"]
    return modules[0].rpartition(".")[2] if modules else Path(words[0] or "?").name


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
