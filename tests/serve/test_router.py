"""The router in this process, in front of small servers of the test's own: routes, weights, records, errors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.serve.stand import ROW, START, Up, deploy, frames_of, make_version, put_endpoint, running
from trimtab.core.errors import NotFound, Unavailable
from trimtab.core.ids import new_id
from trimtab.serve.frames import inputs_of
from trimtab.serve.router import Router, Settings, pick, plan_of
from trimtab.serve.routes import Route, Target, publish
from trimtab.store import live
from trimtab.store.live import RolloutRow
from trimtab.store.store import Store, open_store

HOST = "127.0.0.1:8571"
OK = b'{"predictions": [true], "scores": [0.5]}'


def _route(shares: list[float], candidate: int | None = None, **more: Any) -> Route:
    targets = [
        Target(id=f"dep_{number}", number=number, version="m:1", version_id="ver", socket="", share=share)
        for number, share in enumerate(shares, start=1)
    ]
    chosen = None if candidate is None else f"dep_{candidate}"
    return Route(id="end", salt="s", sticky="", timeout_s=5, candidate=chosen, deployments=targets, **more)


def test_a_request_falls_to_the_deployment_of_its_key() -> None:
    """The same key is always answered by the same deployment, with the probability that it really had."""
    plan = plan_of(_route([90, 10], candidate=2))
    first = pick(plan, "api", "k", "")
    assert pick(plan, "api", "k", "") == first
    seen = {pick(plan, "api", str(number), "") for number in range(200)}
    assert {(one.target.number, one.weight, one.candidate_weight, one.candidate) for one in seen} == {
        (1, 0.9, 0.1, False), (2, 0.1, 0.1, True),
    }  # fmt: skip


def test_a_deployment_can_be_asked_for() -> None:
    """By number or id, with probability one, so that the call is no evidence."""
    plan = plan_of(_route([90, 10], candidate=2))
    for wanted in ("2", "dep_2"):
        chosen = pick(plan, "api", "k", wanted)
        assert (chosen.target.number, chosen.weight, chosen.candidate_weight) == (2, 1.0, 1.0)
    with pytest.raises(NotFound, match=r"no deployment '3'"):
        pick(plan, "api", "k", "3")


def test_an_endpoint_without_traffic_says_what_it_waits_for() -> None:
    """Before the first deployment is ready the caller hears so."""
    with pytest.raises(Unavailable, match="deployment 1 is ready"):
        pick(plan_of(_route([0.0])), "api", "k", "")


class Headers(dict[str, str]):
    """As granian gives them."""


class Scope:
    """A request's head, as granian gives it."""

    proto = "http"

    def __init__(self, method: str, path: str, headers: dict[str, str], query: str = "") -> None:
        self.method, self.path, self.query_string = method, path, query
        self.headers = Headers({"host": HOST, **headers})


class Protocol:
    """A request's body, and what is answered."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.answer: tuple[int, list[tuple[str, str]], bytes] = (0, [], b"")

    async def __call__(self) -> bytes:
        """Return the body."""
        return self._body

    async def __aiter__(self) -> Any:
        """Yield the body in parts."""
        for start in range(0, len(self._body), 1 << 20):
            yield self._body[start : start + (1 << 20)]

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Take the answer."""
        self.answer = (status, headers, body)

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Take an answer without a body."""
        self.answer = (status, headers, b"")


class Asked:
    """Sends requests to a router in this process."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.headers: dict[str, str] = {}

    async def __call__(self, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, Any]:
        """Return status and JSON of the answer."""
        sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if "transfer-encoding" not in named:
            named.setdefault("content-length", str(len(sent)))
        protocol = Protocol(sent)
        await self._router.__rsgi__(Scope(method, path, named), protocol)
        status, told, answer = protocol.answer
        self.headers = dict(told)
        return status, msgspec.json.decode(answer) if answer else None

    async def score(self, **headers: str) -> tuple[int, Any]:
        """Send one row to the endpoint."""
        return await self("POST", "/endpoints/api/invocations", {"rows": [ROW]}, **headers)


async def _fake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer like a worker, or like the control process: with what was asked."""
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
        await reader.readexactly(length)
        body = OK if head.startswith("POST /score") else msgspec.json.encode({"head": head, "now": "2026-02-01"})
        writer.write(b"HTTP/1.1 200 OK\r\ntrimtab-rows: 1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    writer.close()


def _run(store: Store, work: Callable[[Asked], Awaitable[None]], *, control: bool = True, **options: Any) -> None:
    async def all_of_it() -> None:
        sockets = [target for one in live.list_endpoints(store.ledger) for target in _targets(store, one.id)]
        publish(store)
        path = store.home.sockets / "control.sock"
        settings = Settings(
            root=str(store.home.root), host="127.0.0.1", port=8571, control=str(path), token=options.get("token", ""),
            clock=options.get("clock", "real"),
        )  # fmt: skip
        listening = [*sockets, path] if control else sockets
        servers = [await asyncio.start_unix_server(_fake, str(one)) for one in listening]
        router = Router(settings)
        try:
            await work(Asked(router))
        finally:
            router.close()
            router._workers.keep(set())
            router._control.drop_idle()
            for server in servers:
                server.close()
            await asyncio.sleep(0.02)
            for one in [*sockets, path]:
                one.unlink(missing_ok=True)

    asyncio.run(all_of_it())


def _targets(store: Store, endpoint_id: str) -> list[Path]:
    return [
        store.home.sockets / f"{one.id[-16:]}.sock"
        for one in live.list_deployments(store.ledger, endpoint_id)
        if one.state == "ready"
    ]


def _rolling(store: Store, share: float = 50.0, **spec: Any) -> tuple[str, str, str]:
    """Set up an endpoint with a rollout at ``share`` percent; return its id and those of both deployments."""
    version, endpoint = make_version(store), put_endpoint(store, **spec)
    one, two = deploy(store, endpoint, version, share=100), deploy(store, endpoint, version, share=share)
    row = RolloutRow(
        id=new_id("rol"), endpoint_id=endpoint, run_id="", state="stepping", stable_id=one, candidate_id=two, data={},
        updated_at=START,
    )  # fmt: skip
    store.ledger.write(lambda tx: live.add_rollout(tx, row), what="rollout")
    return endpoint, one, two


def test_each_request_leaves_one_frame_with_its_probabilities(store: Store) -> None:
    """Bodies, ids, weights and who answered are on record before the caller has the answer."""
    endpoint, one, two = _rolling(store)

    async def work(ask: Asked) -> None:
        for number in range(20):
            status, body = await ask.score(trimtab_request_id=f"{number:032x}")
            assert (status, body["predictions"]) == (200, [True])

    _run(store, work)
    frames = frames_of(store)
    assert [frame.request_id for frame in frames] == [f"{number:032x}" for number in range(20)]
    assert {frame.deployment_id for frame in frames} == {one, two}
    for frame in frames:
        assert (frame.endpoint_id, frame.weight, frame.candidate_weight) == (endpoint, 0.5, 0.5)
        assert frame.candidate == (frame.deployment_id == two) and not frame.named
        assert inputs_of(frame) == {"x": [1.0], "c": ["a"]} and frame.response == OK and frame.rows == 1


def test_a_named_deployment_is_recorded_as_such(store: Store) -> None:
    """The caller's own choice is no evidence."""
    _, _, two = _rolling(store)

    async def work(ask: Asked) -> None:
        assert (await ask.score(trimtab_deployment="2"))[0] == 200
        assert (await ask.score(trimtab_deployment="9"))[0] == 404

    _run(store, work)
    assert [(one.deployment_id, one.weight, one.named) for one in frames_of(store)] == [(two, 1.0, True)]


def test_sticky_callers_stay(store: Store) -> None:
    """Requests with the same session go to one deployment; the record holds a fingerprint only."""
    _rolling(store, sticky="X-Session")

    async def work(ask: Asked) -> None:
        for _ in range(5):
            for session in ("anna", "berta", "carla", "dora"):
                await ask.score(x_session=session)

    _run(store, work)
    frames = frames_of(store)
    assert len({(one.key, one.deployment_id) for one in frames}) == len({one.key for one in frames}) == 4
    assert not any("anna" in one.key for one in frames)


@pytest.mark.parametrize(
    ("headers", "status", "where"),
    [
        ({"trimtab_request_id": "nope"}, 400, "Trimtab-Request-Id"),
        ({"trimtab_request_id": "A" * 32}, 400, "Trimtab-Request-Id"),
        ({"trimtab_time": "2026-01-01"}, 400, "Trimtab-Time"),
        ({"content_length": str(17 * 1024 * 1024)}, 413, "body"),
        ({"origin": "http://evil.example"}, 403, "Origin"),
        ({"host": "evil.example"}, 421, "Host"),
    ],
)
def test_bad_heads_are_refused_and_not_recorded(store: Store, headers: dict[str, str], status: int, where: str) -> None:
    """What is wrong with the head is told, and nothing reaches a worker."""
    _rolling(store)

    async def work(ask: Asked) -> None:
        got, body = await ask.score(**headers)
        assert (got, body["error"]["where"]) == (status, where)

    _run(store, work)
    assert frames_of(store) == []


def test_a_chunked_giant_is_refused_while_it_comes(store: Store) -> None:
    """A body without a length is counted."""
    _rolling(store)

    async def work(ask: Asked) -> None:
        body = b"x" * (17 * 1024 * 1024)
        status, _ = await ask("POST", "/endpoints/api/invocations", body, transfer_encoding="chunked")
        assert status == 413

    _run(store, work)


def test_unknown_endpoints_and_methods(store: Store) -> None:
    """The closest name is told; scoring takes POST."""
    _rolling(store)

    async def work(ask: Asked) -> None:
        status, body = await ask("POST", "/endpoints/apu/invocations", {"rows": [ROW]})
        assert status == 404 and "did you mean 'api'" in body["error"]["message"]
        assert (await ask("GET", "/endpoints/api/invocations"))[0] == 405

    _run(store, work)


def test_simulated_time_comes_from_the_caller_or_the_control_process(store: Store) -> None:
    """Under a simulated clock a request carries its event time; without one the clock is asked."""
    _rolling(store)

    async def work(ask: Asked) -> None:
        assert (await ask.score(trimtab_time="2026-01-02T03:04:05Z"))[0] == 200
        assert (await ask.score())[0] == 200
        assert (await ask.score(trimtab_time="soon"))[0] == 400

    _run(store, work, clock="simulated")
    assert [frame.at_us for frame in frames_of(store)] == [1767323045000000, 1769904000000000]


def test_everything_else_goes_to_the_control_process(store: Store) -> None:
    """Path, query and headers arrive; hop-by-hop headers do not."""

    async def work(ask: Asked) -> None:
        status, body = await ask("GET", "/api/v1/a b", b"", authorization="Bearer t", connection="close", x_a="1")
        head = body["head"]
        assert status == 200 and head.startswith("GET /api/v1/a%20b HTTP/1.1")
        assert "x-a: 1" in head and "authorization: Bearer t" in head and "connection" not in head

    _run(store, work)


def test_without_the_control_process_scoring_goes_on(store: Store) -> None:
    """Health says 503 and names it; requests are answered."""
    _rolling(store)

    async def work(ask: Asked) -> None:
        status, body = await ask("GET", "/health")
        assert status == 503 and "control process" in body["error"]["message"]
        assert (await ask.score())[0] == 200

    _run(store, work, control=False)


def test_an_answer_that_is_not_on_record_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a full disk scoring goes on; the answer, the counts and the log tell that nothing was recorded."""
    _rolling(store)
    monkeypatch.setattr("trimtab.store.intake.Buffered.append", lambda *_: False)

    async def work(ask: Asked) -> None:
        for _ in range(3):
            assert (await ask.score())[0] == 200
            assert ask.headers["trimtab-recorded"] == "false"

    _run(store, work)
    assert capfd.readouterr().err.count("are not on record") == 1


def test_a_token_guards_everything_but_health(store: Store) -> None:
    """Auth goes by the matched route."""
    _rolling(store)

    async def work(ask: Asked) -> None:
        assert (await ask("GET", "/health"))[0] == 200
        for path in ("/healthz", "/health/", "//health", "/endpoints/api/invocations", "/router"):
            assert (await ask("POST" if "inv" in path else "GET", path, {"rows": [ROW]}))[0] == 401, path
        assert (await ask("POST", "/health", b""))[0] == 401
        assert (await ask.score(authorization="Bearer secret"))[0] == 200
        assert (await ask("GET", "/router", authorization="Bearer secret"))[1]["answered"] == 1

    _run(store, work, token="secret")


def test_a_fault_of_the_router_has_the_shape_of_every_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever breaks inside, the caller gets JSON and the log gets the trace."""
    _rolling(store)

    async def work(ask: Asked) -> None:
        monkeypatch.setattr("trimtab.serve.router.pick", lambda *_: 1 / 0)
        status, body = await ask.score()
        assert status == 500 and body["error"]["type"] == "Fault" and "ZeroDivisionError" in body["error"]["message"]

    _run(store, work)
    assert "Traceback" in capsys.readouterr().err


def test_a_new_table_counts_for_the_next_request(store: Store) -> None:
    """Traffic that was moved and published is moved for every request that comes afterwards."""
    endpoint, one, two = _rolling(store)

    async def work(ask: Asked) -> None:
        for number in range(30):
            to = (one, two)[number % 2]
            epoch = live.get_endpoint(store.ledger, endpoint).epoch
            store.ledger.write(
                lambda tx, to=to, epoch=epoch: live.set_traffic(tx, endpoint, {to: 100.0}, expect_epoch=epoch),  # type: ignore[misc]
                what="traffic",
            )
            publish(store)
            assert (await ask.score())[0] == 200
            assert frames_of(store)[-1].deployment_id == to

    _run(store, work)


def test_a_failed_deployment_is_answered_for(store: Store) -> None:
    """Its reason is told at once instead of waiting for nobody; the failure is on record."""
    _, one, two = _rolling(store)
    for deployment in (one, two):
        store.ledger.write(
            lambda tx, it=deployment: live.set_deployment_state(tx, it, "failed", "out of memory"),  # type: ignore[misc]
            what="failed",
        )

    async def work(ask: Asked) -> None:
        status, body = await ask.score()
        assert status == 503 and "out of memory" in body["error"]["message"]

    _run(store, work)
    assert [frame.status for frame in frames_of(store)] == [503]


@pytest.fixture
def up(tmp_path: Path) -> Any:
    """Return a running stand with one small model behind ``api``."""
    with open_store(tmp_path / "s") as store:
        deploy(store, put_endpoint(store), make_version(store), share=100)
    with running(tmp_path / "s") as started:
        started.wait_ready()
        yield started


def test_a_row_goes_through_real_processes(up: Up) -> None:
    """Router and worker answer over a real port; model faults and slow bodies keep their status."""
    assert up.score(Trimtab_Request_Id="a" * 32).json()["prediction_ids"] == ["a" * 32 + ".0"]
    assert up.score({"x": 500, "c": "a"}).status_code == 500
    assert up.score({"x": 400, "c": "a"}, ROW).status_code == 500
    assert up.score({"x": 404, "c": "a"}).status_code == 500
    assert up.score({"x": "q", "c": "a"}).status_code == 422
    poison = up.score({"x": 666, "c": "a"})
    assert poison.status_code == 502 and "died 2 times" in poison.text
    with socket.create_connection(("127.0.0.1", up.port)) as cut_off:
        head = f"POST /endpoints/api/invocations HTTP/1.1\r\nhost: 127.0.0.1:{up.port}\r\ncontent-length: 90\r\n\r\n"
        cut_off.sendall(head.encode() + b'{"rows": ')
    assert up.score().status_code == 200
    assert "Traceback" not in (up.root / "logs" / "router.log").read_text()
    with open_store(up.root) as store:
        assert sum(frame.request == b'{"rows": ' for frame in frames_of(store)) == 0
