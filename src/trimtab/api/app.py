"""The control process: health, clock, labels and records over HTTP, and the loop that settles what is due."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from trimtab import __version__
from trimtab.api.delivery import Deliveries
from trimtab.api.errors import answer_for
from trimtab.api.metrics import Counts, render
from trimtab.api.mlflow.mount import mount
from trimtab.api.mlflow.server import refused
from trimtab.api.mlflow.wire import number
from trimtab.api.routes import Routes
from trimtab.automate.jobs import Jobs
from trimtab.automate.loop import Loop
from trimtab.automate.settle import settle
from trimtab.core.clock import parse_time
from trimtab.core.errors import BadInput, Conflict, TrimtabError, Unavailable
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.monitor.history import history
from trimtab.monitor.readiness import judge_readiness, readiness
from trimtab.monitor.signals import rules
from trimtab.monitor.watch import Monitors
from trimtab.serve.labels import accept_labels
from trimtab.serve.routes import load
from trimtab.store import facts, live
from trimtab.store.history import Bucket
from trimtab.store.history import buckets as metric_buckets
from trimtab.store.store import Store

_TICK_S = 0.25
_PATIENCE_S = 3.0
_LABELS = 4 * 1024 * 1024
_SMALL = 64 * 1024
_MOST_RUNS = 1000
_MOST_BUCKETS = 10_000
_LAST_STEP = (1 << 63) - 1


class Control:
    """What the routes act on.

    Args:
        store: the store.
        project: the project's folder, or an empty string.
        router: asks the router for its own counts, for the metrics.
        pages: the folder of MLflow's pages, where they are wanted.
    """

    def __init__(
        self,
        store: Store,
        project: str,
        router: Callable[[], Mapping[str, Any]] | None = None,
        pages: Path | None = None,
    ) -> None:
        self.store = store
        self.pages = pages
        self._router = router
        self._counts = Counts()
        home = store.home
        self.jobs = (
            Jobs(project=Path(project), store=home.root, environment=store.environment, logs=home.logs)
            if project
            else None
        )
        self.monitors = Monitors(store)
        self.loop = Loop(store, self.jobs, self.monitors)
        self.deliveries = Deliveries(store)
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self.problem: Data = {}

    def health(self) -> Data:
        """Answer when the ledger does and routes are published; ``problem`` says what settling stumbled over last.

        Raises:
            Unavailable: no routes are published.
        """
        table = load(self.store.home.routes)
        if table is None:
            raise Unavailable("no routes are published", fix="start the server again; see its log")
        return {
            "status": "ok",
            "version": __version__,
            "environment": self.store.environment,
            "clock": self.clock(),
            "routes": table.epoch,
            "problem": self.problem or self.deliveries.problem or self._dropped(),
        }

    def _dropped(self) -> Data:
        """Return what is wrong where answers could not be recorded."""
        try:
            dropped = self._router().get("dropped_frames", 0) if self._router is not None else 0
        except Unavailable:
            return {}
        if not dropped:
            return {}
        text = f"{dropped} answers since the router started are not on record: they cannot be labelled or watched"
        fix = "make room on the disk of the store's folder; the router goes on recording by itself"
        return Unavailable(text, where=str(self.store.home.intake), fix=fix).as_data()

    def clock(self) -> Data:
        """Return event time and whether it is simulated."""
        return {"mode": self.store.clock_mode(), "now": self.store.now().isoformat()}

    def advance(self, body: Any) -> Data:
        """Move simulated time and answer when all that fell due has settled; the same time again goes on.

        Raises:
            BadInput: ``to`` is missing.
            Conflict: this server lives on real time.
        """
        if not isinstance(body, dict) or not isinstance(body.get("to"), str):
            raise BadInput("to is missing", where="to", fix='{"to": "2013-04-02T00:00:00Z"}')
        if self.store.clock_mode() != "simulated":
            raise Conflict("this server lives on real time", fix="start it with --clock simulated")
        to = parse_time(body["to"])
        with self._turn:
            self.store.set_clock("simulated", to)
            done = settle(self.store, self.loop, self.monitors, to, wait=True)
        return {"now": to.isoformat(), **done}

    def labels(self, name: str, body: Any) -> Data:
        """Keep labels; see ``serve.labels``."""
        if not isinstance(body, dict) or set(body) != {"labels"}:
            raise BadInput("the body is not an object with labels", where="$", fix='{"labels": [{...}]}')
        with self._turn:
            return accept_labels(self.store, name, body["labels"], self.store.now())

    def endpoints(self) -> Data:
        """List endpoints."""
        return {"endpoints": [self.endpoint(one.name) for one in live.list_endpoints(self.store.ledger)]}

    def endpoint(self, name: str) -> Data:
        """Return one endpoint with its deployments, rollouts and watches."""
        ledger, now = self.store.ledger, self.store.now()
        found = live.need_endpoint(ledger, name)
        deployments = []
        for one in live.list_deployments(ledger, found.id):
            share = found.traffic.get(one.id, 0.0)
            version = facts.get_version(ledger, one.version_id).ref
            deployments.append({**msgspec.to_builtins(one), "version": version, "share": share})
        return {
            "id": found.id,
            "name": found.name,
            "serves": found.spec.get("serves"),
            "epoch": found.epoch,
            "deployments": deployments,
            "rollouts": [msgspec.to_builtins(one) for one in live.list_rollouts(ledger, found.id)],
            "automations": [one.automation.name for one in rules(ledger) if one.endpoint == name],
            "watches": self.monitors.verdicts(now, name),
            "months": [one.as_data() for one in history(ledger, found.id)],
        }

    def runs(self, kind: str = "", name: str = "", state: str = "", limit: int = 100) -> Data:
        """List runs, newest first.

        Raises:
            BadInput: the limit is out of range.
        """
        if not 1 <= limit <= _MOST_RUNS:
            raise BadInput(f"limit={limit} is out of range", where="limit", fix=f"1 to {_MOST_RUNS}")
        return {"runs": facts.list_runs(self.store.ledger, kind=kind, name=name, state=state, limit=limit)}

    def metric(
        self, run: str, name: str, buckets: int = 500, start_step: int | None = None, end_step: int | None = None
    ) -> Data:
        """Return a metric's history of a run as at most ``buckets`` ranges of steps, for a plot.

        Raises:
            BadInput: there are too many ranges, or the steps are out of order.
            NotFound: there is no such run.
        """
        if not 1 <= buckets <= _MOST_BUCKETS:
            raise BadInput(f"buckets is {buckets}", where="buckets", fix=f"1 to {_MOST_BUCKETS}")
        first, last = (-(1 << 63) if start_step is None else start_step, _LAST_STEP if end_step is None else end_step)
        if first > last:
            raise BadInput(f"start_step {first} comes after end_step {last}", where="start_step", fix="swap them")
        chosen = None if start_step is None and end_step is None else (first, last)
        found = metric_buckets(self.store.ledger, run, name, most=buckets, steps=chosen)
        return {"run": run, "metric": name, "buckets": [_bucket(one) for one in found]}

    def versions(self, name: str) -> Data:
        """List the versions of an asset."""
        facts.resolve(self.store.ledger, name)
        return {"versions": facts.list_versions(self.store.ledger, name)}

    def alarms(self, endpoint: str = "") -> Data:
        """List alarms, of one endpoint or of all, oldest first."""
        ledger = self.store.ledger
        return {"alarms": live.list_alarms(ledger, live.need_endpoint(ledger, endpoint).id if endpoint else "")}

    def firings(self) -> Data:
        """List what automations did, oldest first."""
        return {"firings": live.list_firings(self.store.ledger)}

    def verdicts(self, subject: str) -> Data:
        """List the verdicts about one subject."""
        return {"verdicts": facts.verdicts_of(self.store.ledger, subject)}

    def readiness(self) -> Data:
        """Say for each endpoint whether collection, alarm and retraining rules are there; missing ones fail (R71)."""
        ledger, now = self.store.ledger, self.store.now()
        return {"endpoints": readiness(ledger), "verdicts": judge_readiness(ledger, now)}

    def metrics(self) -> str:
        """Return Prometheus text."""
        return render(self.store, self._counts, self._router)

    def tick(self) -> None:
        """Settle what is due, until the server ends; simulated time settles only when it is moved.

        What goes wrong is told by ``health`` and on standard error, and the next tick tries again.
        """
        while not self._stop.wait(_TICK_S):
            try:
                if self.store.clock_mode() == "real":
                    with self._turn:
                        settle(self.store, self.loop, self.monitors, self.store.now(), wait=False)
                self.problem = {}
            except Exception as error:
                # A thread that died here would leave a server that looks well and does nothing.
                if not self._stop.is_set():
                    self.problem = answer_for(error, "settling")[1]["error"]

    def close(self) -> None:
        """End what was started."""
        self._stop.set()
        if self.jobs is not None:
            self.jobs.close()
        self.deliveries.close()
        # Who waits for a deployment may hold the turn for long; what it has not committed is carried on later.
        self._turn.acquire(timeout=_PATIENCE_S)
        self.store.close()


def _bucket(one: Bucket) -> Data:
    """Return a range of steps as an answer has it; what JSON has no number for is a text."""
    told = {"low": one.low, "high": one.high, "last": one.last}
    numbers = {name: value if value is None else number(value) for name, value in told.items()}
    return {"first_step": one.first, "last_step": one.last_step, "count": one.count, **numbers}


def routes_of(control: Control) -> Routes:
    """Return every address of the control process, each with its permission."""
    routes = Routes()
    reading: list[tuple[str, Callable[..., Any]]] = [
        ("/clock", control.clock),
        ("/api/v1/endpoints", control.endpoints),
        ("/api/v1/endpoints/{name:str}", control.endpoint),
        ("/api/v1/runs", control.runs),
        ("/api/v1/runs/{run:str}/metrics/{name:str}", control.metric),
        ("/api/v1/assets/{name:str}/versions", control.versions),
        ("/api/v1/alarms", control.alarms),
        ("/api/v1/firings", control.firings),
        ("/api/v1/verdicts/{subject:str}", control.verdicts),
        ("/api/v1/readiness", control.readiness),
    ]
    routes.add("GET", "/health", control.health, permission="health")
    for path, handler in reading:
        routes.add("GET", path, handler, permission="read")
    routes.add("GET", "/metrics", control.metrics, permission="read", media="text/plain; version=0.0.4")
    routes.add("POST", "/clock", control.advance, permission="operate", limit=_SMALL)
    routes.add("POST", "/endpoints/{name:str}/labels", control.labels, permission="label", limit=_LABELS)
    mount(routes, control.store, control.pages)
    return routes


def make_app(control: Control) -> Any:
    """Return the control process as an ASGI application."""
    litestar = need("litestar")

    def told(request: Any, error: Exception) -> Any:
        status, body = answer_for(error, f"{request.method} {request.url.path}")
        if not isinstance(error, TrimtabError):
            other = refused(request.method, request.url.path, status, body["error"]["message"])
            status, body = other or (status, body)
        return litestar.Response(body, status_code=status)

    def started() -> None:
        threading.Thread(target=control.tick, name="tick", daemon=True).start()
        threading.Thread(target=control.deliveries.run, name="deliveries", daemon=True).start()

    return litestar.Litestar(
        route_handlers=routes_of(control).handlers(),
        exception_handlers={Exception: told},
        on_startup=[started],
        openapi_config=None,
        logging_config=None,
    )
