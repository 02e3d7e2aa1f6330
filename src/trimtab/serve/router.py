"""The data plane: one public port; scoring requests go to a worker, everything else to the control process.

The router holds no ledger and no model. It picks a deployment by a keyed hash, asks its worker through restarts, and
appends one frame for each request to the buffered log before the caller sees the answer, so that an answer that was
seen is on record whatever dies then. It runs as ``python -m trimtab.serve.router SETTINGS.json``.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Struct

from trimtab.core.clock import monotonic, parse_time, to_micros, wall_seconds
from trimtab.core.errors import Fault, NotFound, TrimtabError, Unavailable, WrongUse, closest
from trimtab.core.ids import IdMaker
from trimtab.core.optional import need
from trimtab.serve.dispatch import Crashed, Gone, Workers
from trimtab.serve.door import MAX_BODY, Door, Refusal, check_length, error_body, too_large
from trimtab.serve.frames import VERSION, CallFrame, calls_folder, encode
from trimtab.serve.relay import STREAMED, relay
from trimtab.serve.routes import Route, Target, Watcher, load
from trimtab.serve.serving import leave, run_app
from trimtab.serve.split import Split, fingerprint, make_split
from trimtab.serve.wire import Broken, Pool, Response, TooSlow, head_of
from trimtab.store.intake import Buffered
from trimtab.store.layout import Home

_REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_ROWS = re.compile(rb"\r\ntrimtab-rows: (\d+)\r\n")
_SCORING = re.compile(r"/endpoints/([A-Za-z0-9_.]+)/invocations")
_HOPS = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "content-length", "expect",
})  # fmt: skip
_JSON = ("content-type", "application/json")
_CONTROL_TIMEOUT = 3600.0
_QUIET_S = 60.0


class Settings(Struct, frozen=True, kw_only=True):
    """What `trimtab up` tells the router.

    Attributes:
        root: the store's folder.
        control: the control process's unix socket.
        token: what callers must know, or an empty string.
        clock: ``real`` or ``simulated``.
        hosts: more values of the Host header that are let in.
    """

    root: str
    host: str
    port: int
    control: str
    token: str
    clock: str
    hosts: tuple[str, ...] = ()


class Plan(NamedTuple):
    """A route, ready for use.

    Attributes:
        place: deployment id and number, as text -> its position.
    """

    route: Route
    split: Split
    candidate: int
    place: dict[str, int]


class Pick(NamedTuple):
    """Which deployment answers, and the probabilities under which it was chosen."""

    target: Target
    weight: float
    candidate_weight: float
    candidate: bool


class _Random:
    """The system's random bytes, fetched many at a time: a system call for each request would show."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        if self._at + count > len(self._bytes):
            self._bytes, self._at = os.urandom(4096), 0
        self._at += count
        return self._bytes[self._at - count : self._at]


class _Asked(NamedTuple):
    """A scoring request, read and checked."""

    request_id: str
    at_us: int
    key: str
    wanted: str
    content_type: str
    body: bytes


def plan_of(route: Route) -> Plan:
    """Return a route with its split made."""
    ids = [target.id for target in route.deployments]
    place = {target.id: index for index, target in enumerate(route.deployments)}
    place |= {str(target.number): index for index, target in enumerate(route.deployments)}
    return Plan(
        route=route,
        split=make_split(route.salt, [target.share for target in route.deployments]),
        candidate=ids.index(route.candidate) if route.candidate in ids else -1,
        place=place,
    )


def pick(plan: Plan, name: str, key: str, wanted: str) -> Pick:
    """Return the deployment for a request.

    Args:
        plan: the endpoint's route.
        name: the endpoint's name, for messages.
        key: what the hash goes by.
        wanted: number or id of the deployment that the caller asks for, or an empty string.

    Raises:
        NotFound: the caller asks for a deployment that is not up.
        Unavailable: the endpoint has no traffic yet.
    """
    route, split = plan.route, plan.split
    if wanted:
        if wanted not in plan.place:
            known = ", ".join(str(target.number) for target in route.deployments) or "none"
            raise NotFound(
                f"{name} has no deployment {wanted[:60]!r} that is up", where="Trimtab-Deployment", fix=f"up: {known}"
            )
        index = plan.place[wanted]
        chosen = index == plan.candidate
        return Pick(route.deployments[index], 1.0, float(chosen), chosen)
    if not split.owners:
        states = "; ".join(f"deployment {target.number} is {target.state}" for target in route.deployments)
        raise Unavailable(
            f"{name} takes no traffic yet: {states or 'nothing is deployed'}",
            where=name,
            fix="wait until a deployment is ready, or look at `trimtab show`",
        )
    index = split.pick(key)
    share = split.weights[plan.candidate] if plan.candidate >= 0 else 0.0
    return Pick(route.deployments[index], split.weights[index], share, index == plan.candidate)


class Router:
    """The RSGI application."""

    def __init__(self, settings: Settings) -> None:
        home = Home(Path(settings.root))
        self._door = Door(host=settings.host, port=settings.port, token=settings.token, hosts=settings.hosts)
        self._simulated = settings.clock == "simulated"
        self._folder = home.routes
        self._watcher = Watcher(home.routes)
        self._plans: dict[str, Plan] = {}
        self._epoch = 0
        self._workers = Workers()
        self._control = Pool(settings.control)
        self._log = calls_folder(home.intake)
        self._calls = Buffered(self._log)
        self._say_again = 0.0
        self._client_gone: type[Exception] = need("granian.rsgi").ProtocolClosed
        self._ids = IdMaker(random=_Random())
        self._answered = 0
        self._failed = 0

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        if scope.proto != "http":
            return
        try:
            answer = await self._respond(scope, protocol)
            if answer is None:
                return
            status, headers, body = answer
        except TrimtabError as error:
            # Only what the client caused, or can wait for, is raised up to here.
            status = 404 if isinstance(error, NotFound) else 400 if isinstance(error, WrongUse) else 503
            headers, body = [_JSON], msgspec.json.encode({"error": error.as_data()})
        except (self._client_gone, ConnectionError, asyncio.IncompleteReadError):
            return
        except Exception as error:
            # The border of the process: the caller gets one shape of error whatever went wrong, the log the rest.
            traceback.print_exception(error)
            told = Fault(f"the router failed with {type(error).__name__}", where=scope.path, fix="see its log")
            status, headers, body = 500, [_JSON], msgspec.json.encode({"error": told.as_data()})
        if scope.method == "HEAD":
            protocol.response_empty(status, headers)
        else:
            protocol.response_bytes(status, headers, body)

    async def _respond(self, scope: Any, protocol: Any) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """Return the answer to a request, or None where it was passed on part by part."""
        self.refresh()
        streamed = STREAMED.fullmatch(scope.path) is not None
        scoring = _SCORING.fullmatch(scope.path)
        public = scope.path == "/health" and scope.method in ("GET", "HEAD")
        refused = self._door.check(scope.method, scope.headers, public=public)
        refused = refused or (None if streamed else check_length(scope.headers))
        if refused is None and scoring and scope.method != "POST":
            refused = Refusal(405, "WrongUse", f"{scope.path} takes POST", scope.method, "POST rows to it")
        if refused is not None:
            return _refuse(refused)
        if scope.path == "/router" and scope.method == "GET":
            return 200, [_JSON], msgspec.json.encode(self.status())
        if streamed:
            await relay(self._control.path, scope, _target(scope), _passed_on(scope), protocol)
            return None
        body = await _read(protocol, scope.headers)
        if isinstance(body, Refusal):
            return _refuse(body)
        if scoring:
            return await self._score(scoring[1], await self._asked(scoring[1], scope.headers, body))
        return await self._proxy(scope, body)

    def refresh(self) -> None:
        """Take up the newest routing table, if there is a newer one; requests at work keep theirs."""
        if not self._watcher.changed():
            return
        table = load(self._folder)
        if table is None or table.epoch <= self._epoch:
            return
        self._plans = {name: plan_of(route) for name, route in table.endpoints.items()}
        self._epoch = table.epoch
        self._workers.keep({one.socket for route in table.endpoints.values() for one in route.deployments})

    def status(self) -> dict[str, int]:
        """Return counts since the start, and the epoch of the routing table."""
        return {
            "epoch": self._epoch,
            "answered": self._answered,
            "failed": self._failed,
            "dropped_frames": self._calls.dropped,
        }

    def close(self) -> None:
        """Write what is buffered to disk."""
        self._calls.close()

    async def _asked(self, name: str, headers: Any, body: bytes) -> _Asked:
        plan = self._plan(name)
        request_id = headers.get("trimtab-request-id") or self._ids.hex()
        if _REQUEST_ID.fullmatch(request_id) is None:
            raise WrongUse(
                f"{request_id[:60]!r} is not a request id", where="Trimtab-Request-Id", fix="32 lower-case hex digits"
            )
        session = headers.get(plan.route.sticky.lower()) if plan.route.sticky else None
        return _Asked(
            request_id=request_id,
            at_us=await self._event_time(headers.get("trimtab-time")),
            key=session or "",
            wanted=headers.get("trimtab-deployment") or "",
            content_type=headers.get("content-type") or "",
            body=body,
        )

    async def _event_time(self, given: str | None) -> int:
        if not self._simulated:
            if given is not None:
                raise WrongUse(
                    "event time is the time of day here",
                    where="Trimtab-Time",
                    fix="leave the header out, or start with `trimtab up --clock simulated`",
                )
            return int(wall_seconds() * 1e6)
        if given is not None:
            return to_micros(parse_time(given))
        answer = await self._ask_control("GET", "/clock", [("host", "control")], b"")
        now = msgspec.json.decode(answer.body).get("now") if answer.status == 200 else None
        if not isinstance(now, str):
            raise Unavailable("event time is not known", where="Trimtab-Time", fix="send the header Trimtab-Time")
        return to_micros(parse_time(now))

    def _plan(self, name: str) -> Plan:
        plan = self._plans.get(name)
        if plan is None:
            raise NotFound(
                f"there is no endpoint {name!r}{closest(name, self._plans)}",
                where=f"/endpoints/{name}",
                fix="trimtab apply makes declared endpoints live",
            )
        return plan

    async def _score(self, name: str, asked: _Asked) -> tuple[int, list[tuple[str, str]], bytes]:
        while True:
            plan = self._plan(name)
            chosen = pick(plan, name, asked.key or asked.request_id, asked.wanted)
            try:
                status, body, latency, rows = await self._ask_worker(name, plan, chosen.target, asked)
            except Gone:
                # The routes changed while the worker was down: whoever has its traffic now answers.
                continue
            break
        frame = CallFrame(
            v=VERSION,
            endpoint_id=plan.route.id,
            deployment_id=chosen.target.id,
            version_id=chosen.target.version_id,
            request_id=asked.request_id,
            at_us=asked.at_us,
            weight=chosen.weight,
            candidate_weight=chosen.candidate_weight,
            candidate=chosen.candidate,
            status=status,
            latency_us=latency,
            rows=rows,
            key=fingerprint(plan.split.hash, asked.key) if asked.key else "",
            request=asked.body,
            response=body,
            named=bool(asked.wanted),
        )
        recorded = self._calls.append(encode(frame))
        self._answered += 1
        self._failed += status >= 500
        headers = [_JSON, ("trimtab-request-id", asked.request_id)]
        if not recorded:
            # Recording never stands in the way of an answer, but nobody is to take this one for recorded.
            headers.append(("trimtab-recorded", "false"))
            self._say_dropped()
        return status, headers, body

    def _say_dropped(self) -> None:
        if monotonic() >= self._say_again:
            self._say_again = monotonic() + _QUIET_S
            told = f"{self._calls.dropped} answers since the start are not on record: no room in {self._log}"
            print(f"router: {told}", file=sys.stderr, flush=True)

    async def _ask_worker(self, name: str, plan: Plan, target: Target, asked: _Asked) -> tuple[int, bytes, int, int]:
        """Return status, body, microseconds and rows of a worker's answer, or of the error that stands for none."""
        timeout = plan.route.timeout_s

        def wanted() -> bool:
            self.refresh()
            now = self._plans.get(name)
            found = now.place.get(target.id) if now else None
            return found is not None and now is not None and now.route.deployments[found].state != "failed"

        if target.state == "failed":
            return _error(503, "Unavailable", f"deployment {target.number} of {name} failed: {target.reason}", target)
        head = (
            f"POST /score HTTP/1.1\r\nhost: worker\r\ncontent-type: {_line(asked.content_type)}\r\n"
            f"trimtab-request-id: {asked.request_id}\r\ncontent-length: {len(asked.body)}\r\n\r\n"
        ).encode("latin-1", "replace")
        try:
            answer, latency = await self._workers.ask(target.socket, head, asked.body, timeout=timeout, wanted=wanted)
        except TooSlow:
            text = f"deployment {target.number} of {name} did not answer within {timeout:g} s"
            return _error(504, "Unavailable", text, target, int(timeout * 1e6))
        except Crashed as error:
            return _error(502, "Fault", f"deployment {target.number} of {name}: {error.message}", target)
        rows = _ROWS.search(answer.head)
        return answer.status, answer.body, latency, int(rows[1]) if rows else 0

    async def _proxy(self, scope: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        try:
            answer = await self._ask_control(scope.method, _target(scope), _passed_on(scope), body)
        except Unavailable as error:
            raise Unavailable(
                "the control process does not answer; scoring goes on",
                where=scope.path,
                fix="try again in a moment; `trimtab up` starts it again",
            ) from error
        return answer.status, [item for item in answer.headers() if item[0] not in _HOPS], answer.body

    async def _ask_control(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> Response:
        head = head_of(method, target, headers, len(body))
        safe = method in ("GET", "HEAD")
        for attempt in (1, 2):
            try:
                return await self._control.request(
                    head, body, timeout=_CONTROL_TIMEOUT, fresh=not safe or attempt == 2, bodiless=method == "HEAD"
                )
            except Broken as error:
                # Only reading may be repeated, and only where the connection may have been closed while idle.
                if not (safe and error.reused):
                    raise
        raise Unavailable("the control process ends its connections", where=target)


def _target(scope: Any) -> str:
    path = quote(scope.path, safe="/:@!$&'()*+,;=-._~")
    return f"{path}?{scope.query_string}" if scope.query_string else path


def _passed_on(scope: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in scope.headers.items() if name not in _HOPS]


def _line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _error(status: int, kind: str, message: str, target: Target, latency: int = 0) -> tuple[int, bytes, int, int]:
    error = {"type": kind, "message": message, "where": target.version, "fix": "try again; see the worker's log"}
    return status, msgspec.json.encode({"error": error}), latency, 0


def _refuse(refused: Refusal) -> tuple[int, list[tuple[str, str]], bytes]:
    body: Mapping[str, Any] = error_body(refused)
    return refused.status, [_JSON, *refused.headers], msgspec.json.encode(body)


async def _read(protocol: Any, headers: Any) -> bytes | Refusal:
    if headers.get("content-length") is not None:
        return bytes(await protocol())
    if headers.get("transfer-encoding") is None:
        return b""
    parts, size = [], 0
    async for part in protocol:
        size += len(part)
        if size > MAX_BODY:
            return too_large()
        parts.append(bytes(part))
    return b"".join(parts)


async def _serve(settings: Settings) -> None:
    router = Router(settings)
    try:
        await run_app(router, host=settings.host, port=settings.port)
    finally:
        router.close()


def main(arguments: list[str]) -> int:
    """Run the router with the settings in a file; return the exit code."""
    settings = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Settings)
    try:
        asyncio.run(_serve(settings))
    except TrimtabError as error:
        print(f"router: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
