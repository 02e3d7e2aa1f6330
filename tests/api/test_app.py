"""The control process over HTTP: health, clock, labels, records, errors; and its ticking."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.scene import DAY, Scene, shifted, usual
from tests.serve.stand import START, make_version, put_endpoint, wait_for
from trimtab.api.app import Control, make_app, routes_of
from trimtab.api.routes import PERMISSIONS
from trimtab.check.declare import drift
from trimtab.core.errors import Unavailable
from trimtab.core.optional import need
from trimtab.serve.routes import publish
from trimtab.store import live
from trimtab.store.store import open_store


def _error(answer: Any, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    error: dict[str, str] = answer.json()["error"]
    assert set(error) == {"type", "message", "where", "fix"} and error["message"]
    return error


def test_health_tells_version_clock_and_routes(client: Any) -> None:
    """A server that can read its ledger and has published routes is well."""
    told = client.get("/health").json()
    assert told["status"] == "ok" and told["version"] and told["routes"] >= 1 and told["problem"] == {}
    assert told["clock"] == {"mode": "simulated", "now": START.isoformat()}


def test_health_is_503_without_routes(client: Any, scene: Scene) -> None:
    """Without routes nothing can be answered, and health says so."""
    for path in scene.store.home.routes.iterdir():
        path.unlink()
    assert "no routes" in _error(client.get("/health"), 503)["message"]


def test_every_route_has_a_permission(control: Control) -> None:
    """Each address declares a permission; only health is open; what acts takes a small body, tracking clients aside."""
    routes = routes_of(control).all()
    assert all(route.permission in PERMISSIONS for route in routes)
    assert [route.path for route in routes if route.permission == "health"] == ["/health"]
    acting = [route for route in routes if route.method != "GET"]
    tracked = [route for route in acting if route.permission in ("read", "track")]
    assert {(route.path, route.permission) for route in acting if route not in tracked} == {
        ("/clock", "operate"),
        ("/endpoints/{name:str}/labels", "label"),
    }
    assert all(0 < route.limit <= 1 << 23 for route in acting if route not in tracked)
    assert all(route.path.startswith(("/api/", "/ajax-api/", "/graphql", "/v1/traces")) for route in tracked)
    assert all(route.limit <= 1 << 26 or "/mlflow-artifacts/" in route.path for route in tracked)


def test_the_clock_advances_and_settles(client: Any, scene: Scene) -> None:
    """Moving the clock answers when all that was due is settled; the same time again changes nothing."""
    scene.automate(drift("api.calls"))
    draw = random.Random(1)
    for day in range(6):
        scene.send([shifted(draw) for _ in range(100)], START + (day + 0.5) * DAY, take=False)
        told = client.post("/clock", json={"to": (START + (day + 1) * DAY).isoformat()}).json()
        assert told["calls"] == 1 and told["now"] == (START + (day + 1) * DAY).isoformat()
    alarms = client.get("/api/v1/alarms", params={"endpoint": "api"}).json()["alarms"]
    assert alarms and alarms[0]["data"]["signal"] == "drift"
    again = client.post("/clock", json={"to": told["now"]}).json()
    assert (again["calls"], again["alarms"], again["firings"], again["decisions"]) == (0, 0, 0, [])
    assert client.get("/clock").json() == {"mode": "simulated", "now": told["now"]}


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        (b'{"to": 5}', 422, "to"), (b"{}", 422, "to"), (b"[]", 422, "to"), (b"{", 422, "$"), (b"\xff", 422, "$"),
        (b'{"to": "soon"}', 400, "POST /clock"), (b'{"to": "2020-01-01T00:00:00Z"}', 400, "POST /clock"),
    ],
)  # fmt: skip
def test_bad_times_are_refused(client: Any, body: bytes, status: int, where: str) -> None:
    """What is no time, or lies before the clock, is refused with its place and changes nothing."""
    error = _error(client.post("/clock", content=body), status)
    assert error["where"] == where and error["fix"]
    assert client.get("/clock").json()["now"] == START.isoformat()


def test_real_time_cannot_be_moved(tmp_path: Path) -> None:
    """A server on real time refuses to advance the clock."""
    made = Control(open_store(tmp_path / "store"), "")
    with need("litestar.testing").TestClient(make_app(made)) as client:
        error = _error(client.post("/clock", json={"to": "2030-01-01T00:00:00Z"}), 409)
    assert error["type"] == "Conflict" and "simulated" in error["fix"]
    made.close()


def test_labels_are_kept_or_refused_whole(client: Any, scene: Scene) -> None:
    """Known ids are kept once; an unknown one refuses its batch; the answer counts repeats and corrections."""
    ids = scene.send([usual(random.Random(1)) for _ in range(3)], START, take=False)

    def post(*labels: tuple[str, Any]) -> Any:
        items = [{"prediction_id": one, "label": label} for one, label in labels]
        return client.post("/endpoints/api/labels", json={"labels": items})

    error = _error(post((ids[0], True), ("f" * 32 + ".0", True)), 404)
    assert "f" * 32 in error["message"] and error["where"] == "labels[1].prediction_id"
    assert post((ids[0], True), (ids[1], False)).json() == {"accepted": 2, "duplicates": 0, "corrections": 0}
    assert post((ids[0], True), (ids[1], True)).json() == {"accepted": 1, "duplicates": 1, "corrections": 1}
    assert "nowhere" in _error(client.post("/endpoints/nowhere/labels", json={"labels": []}), 404)["message"]
    _error(client.post("/endpoints/api/labels", json=[1]), 422)
    _error(client.post("/endpoints/api/labels", json={"labels": [{"prediction_id": ids[0]}]}), 422)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: Any) -> None:
    """Limits hold before parsing."""
    assert "larger" in _error(client.post("/clock", content=b" " * 70_000), 413)["message"]


def test_unknown_addresses_and_methods_have_the_same_shape(client: Any) -> None:
    """404, 405 and bad parameters are told like every other error."""
    assert _error(client.get("/nowhere"), 404)["type"] == "NotFound"
    _error(client.get("/endpoints/api/labels"), 405)
    _error(client.post("/api/v1/settle"), 404)
    assert _error(client.get("/api/v1/runs", params={"limit": "many"}), 422)["where"] == "limit"
    assert "did you mean 'limit'" in _error(client.get("/api/v1/runs?limt=5"), 422)["message"]
    assert _error(client.get("/api/v1/runs?limit=5&limit=6"), 422)["where"] == "limit"
    assert _error(client.get("/api/v1/runs", params={"limit": 0}), 422)["where"] == "limit"
    assert "did you mean 'api'" in _error(client.get("/api/v1/endpoints/apj"), 404)["message"]


def test_an_endpoint_tells_all_about_itself(client: Any, scene: Scene) -> None:
    """Deployments with their shares, rollouts, watches by signal, automations and realised metrics by month."""
    scene.automate(drift("api.calls"), actions=[("run", "line")])
    scene.days(3)
    (told,) = client.get("/api/v1/endpoints").json()["endpoints"]
    assert told == client.get("/api/v1/endpoints/api").json()
    assert [(one["version"], one["share"], one["state"]) for one in told["deployments"]] == [("line:1", 100.0, "ready")]
    assert {one["signal"] for one in told["watches"]} == {"drift", "performance"} and told["automations"] == ["again"]
    assert [(one["period"], one["rows"]) for one in told["months"]] == [("2026-01", 300)]
    assert 0.2 < told["months"][0]["brier"] < 0.25


def test_records_are_listed(client: Any, scene: Scene) -> None:
    """Runs, versions, verdicts, firings and readiness can be read."""
    assert [run["name"] for run in client.get("/api/v1/runs", params={"kind": "make"}).json()["runs"]] == ["line"]
    (version,) = client.get("/api/v1/assets/line/versions").json()["versions"]
    (verdict,) = client.get(f"/api/v1/verdicts/{version['id']}").json()["verdicts"]
    assert verdict["status"] == "pass"
    assert client.get("/api/v1/firings").json() == {"firings": []}
    told = client.get("/api/v1/readiness").json()
    assert told["endpoints"][0]["retrain"] is False and told["verdicts"][0]["status"] == "fail"


def test_metrics_are_prometheus_text(client: Any, scene: Scene) -> None:
    """The metrics come as text of the version that scrapers know."""
    scene.send([usual(random.Random(1))], START)
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'trimtab_requests_total{endpoint="api",deployment="1",version="line:1",status="200"} 1' in answer.text


def test_settling_goes_on_in_real_time(tmp_path: Path) -> None:
    """In real time calls are taken in without anybody asking; what goes wrong is told by health, and passes."""
    with open_store(tmp_path / "store", actor="tests") as store:
        put_endpoint(store)
        make_version(store)
        publish(store)
        control = Control(open_store(store.home.root, actor="control"), "")
        broken = threading.Event()
        tick = control.monitors.tick

        def stumble(now: Any) -> Any:
            if broken.is_set():
                raise RuntimeError("a fault of ours")
            return tick(now)

        control.monitors.tick = stumble  # type: ignore[method-assign]
        broken.set()
        with need("litestar.testing").TestClient(make_app(control)) as client:
            wait_for(lambda: client.get("/health").json()["problem"], "the problem")
            assert client.get("/health").json()["problem"]["message"] == "the server failed with RuntimeError"
            broken.clear()
            wait_for(lambda: not client.get("/health").json()["problem"], "the problem to pass")
        control.close()


def test_a_fault_says_nothing_of_the_inside(client: Any, control: Control, capsys: Any) -> None:
    """An error of ours is a 500 without its text; the log has it."""

    def fail() -> Any:
        raise KeyError("a secret path")

    control.monitors.verdicts = fail  # type: ignore[method-assign,assignment]
    error = _error(client.get("/api/v1/endpoints/api"), 500)
    assert "secret" not in json.dumps(error)
    assert "Traceback" in capsys.readouterr().err


def test_unavailable_is_503(client: Any, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment that does not become ready makes the clock's answer a 503 that can be asked again."""

    def late(*_: Any, **__: Any) -> Any:
        raise Unavailable("not ready in time", where="dep_1", fix="ask again")

    monkeypatch.setattr("trimtab.api.app.settle", late)
    error = _error(client.post("/clock", json={"to": (START + DAY).isoformat()}), 503)
    assert (error["where"], error["fix"]) == ("dep_1", "ask again")
    assert live.list_cases(control.store.ledger) == []
