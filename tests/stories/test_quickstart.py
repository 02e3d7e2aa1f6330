"""From `trimtab init` to a served, labelled and traced prediction."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.stories.conftest import Server, Shell

pytestmark = pytest.mark.story
ROW = {"temperature": 85.0, "vibration": 3.4}


def test_project_runs_and_is_reused(quickstart: Shell) -> None:
    """The first run makes everything, the second reuses everything, and says so."""
    first = quickstart.json("run")
    assert {stage["state"] for stage in first["stages"]} == {"done"}
    second = quickstart.json("run")
    assert {stage["state"] for stage in second["stages"]} == {"reused"}
    plan = quickstart.json("plan")
    assert "trimtab apply" in quickstart("plan", "--check", expect=1).err
    assert {stage["action"] for stage in plan["stages"]} == {"reuse"}
    counts = quickstart.json("sql", "select count(*) as n from readings")
    quarantined = quickstart.json("sql", "select count(*) as n from readings.quarantine")
    assert counts["rows"][0][0] + quarantined["rows"][0][0] == 1200
    assert quarantined["rows"][0][0] == 7
    assert "did you mean 'model'" in quickstart("list", "modle", expect=2).err
    assert "nothing is called" in quickstart("runs", "nosuch", expect=2).err
    assert quickstart("--version").out.startswith("trimtab ")
    shown = quickstart("lineage", "failure_model").out
    assert "made from" in shown and "readings_raw:1" in shown


def test_a_changed_function_runs_again_with_what_depends_on_it(quickstart: Shell) -> None:
    """A change of code is named as the reason; comments are no change."""
    quickstart("run")
    path = quickstart.folder / "workload.py"
    path.write_text("# a comment\n" + path.read_text())
    assert {stage["action"] for stage in quickstart.json("plan")["stages"]} == {"reuse"}
    path.write_text(path.read_text().replace("strength: float = 1.0", "strength: float = 0.5"))
    plan = {stage["id"]: stage for stage in quickstart.json("plan")["stages"]}
    assert plan["make:readings"]["action"] == "reuse"
    assert plan["make:failure_model"]["action"] == "run"
    assert any("strength" in field for field in plan["make:failure_model"]["changed"])


def test_a_model_is_reproduced_bit_for_bit(quickstart: Shell) -> None:
    """The recorded code and data give the same model again, also after the code on disk has changed."""
    quickstart("run")
    path = quickstart.folder / "workload.py"
    path.write_text(path.read_text().replace("strength: float = 1.0", "strength: float = 0.1"))
    told = quickstart.json("reproduce", "failure_model:1")
    assert told["identical"] and told["versions"][0]["again"] == told["versions"][0]["original"]
    assert quickstart.json("reproduce", "readings_raw")["verified"]
    assert "identical" in quickstart("reproduce", "readings").out


def test_a_prediction_is_served_labelled_and_traced(quickstart: Shell, serve: Callable[..., Server]) -> None:
    """One row goes the whole way: endpoint, prediction id, label, table of calls, lineage to the source."""
    quickstart("run")
    server = serve(quickstart.folder)
    quickstart("apply")
    quickstart("plan", "--check")
    with server.client() as client:
        answer = client.post("/endpoints/failure_api/invocations", json={"rows": [ROW, ROW]})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert len(body["predictions"]) == len(body["scores"]) == len(body["prediction_ids"]) == 2
        columns = {"columns": {name: [value] for name, value in ROW.items()}}
        again = client.post("/endpoints/failure_api/invocations", json=columns).json()
        assert again["scores"][0] == body["scores"][0]
        label = {"prediction_id": body["prediction_ids"][0], "label": True}
        kept = client.post("/endpoints/failure_api/labels", json={"labels": [label]})
        assert kept.status_code == 200, kept.text
        unknown = {"prediction_id": "f" * 32 + ".0", "label": True}
        refused = client.post("/endpoints/failure_api/labels", json={"labels": [unknown]})
        assert refused.status_code == 404 and "f" * 32 in refused.json()["error"]["message"]
        strange = {"prediction_id": body["prediction_ids"][1], "label": "yes"}
        refused = client.post("/endpoints/failure_api/labels", json={"labels": [strange]})
        assert refused.status_code == 422 and "false, true" in refused.json()["error"]["fix"]
    calls = quickstart.json("sql", "select prediction_id, version, score from failure_api.calls")
    assert len(calls["rows"]) == 3
    traced = quickstart.json("lineage", body["prediction_ids"][0])
    kinds = [item["kind"] for item in traced["upstream"]]
    assert {"model", "table", "source"} <= set(kinds)
    server.stop()
    assert "answered calls in real time" in quickstart("up", "--clock", "simulated", expect=2).err


def test_code_that_was_recorded_runs_again(quickstart: Shell) -> None:
    """`run --manifest` runs the code of a plan, a run or an `apply`, whatever stands in the folder by now."""
    quickstart("run")
    recorded = quickstart.json("plan")["manifest"]
    file = quickstart.folder / "workload.py"
    file.write_text(file.read_text() + "\n\nraise RuntimeError('not finished')\n")
    assert "not finished" in quickstart("run", expect=2).err
    done = quickstart.json("run", "--manifest", recorded)
    assert {stage["state"] for stage in done["stages"]} == {"reused"}
    assert "no manifest" in quickstart("run", "--manifest", "sha256:" + "0" * 64, expect=None).err


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"rows": [{"temperature": 1.0}]}, 422, "vibration"),
        ({"rows": [{**ROW, "colour": "red"}]}, 422, "colour"),
        ({"rows": [{**ROW, "temperature": "hot"}]}, 422, "rows[0].temperature"),
        ({"rows": []}, 422, "row"),
        ({"lines": [ROW]}, 422, "rows"),
        ([1, 2], 422, "rows"),
    ],
)
def test_bad_requests_name_the_field(served: tuple[Shell, Server], body: object, status: int, says: str) -> None:
    """Each bad request gets a 4xx that names what and where."""
    _, server = served
    with server.client() as client:
        answer = client.post("/endpoints/failure_api/invocations", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert says in error["message"] + error["where"] and error["fix"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A served quickstart for the tests that only read."""
    folder = tmp_path_factory.mktemp("served")
    Shell(folder)("init", "hello")
    shell = Shell(folder / "hello")
    shell("run")
    server = Server(shell.folder)
    server.start()
    try:
        shell("apply")
        yield shell, server
    finally:
        server.stop()


def test_the_door_is_closed_without_a_token(served: tuple[Shell, Server]) -> None:
    """No token, no answer; another Host or Origin, no answer."""
    _, server = served
    with server.client() as client:
        good = client.post("/endpoints/failure_api/invocations", json={"rows": [ROW]})
        assert good.status_code == 200
        host = client.get("/api/v1/endpoints", headers={"Host": "evil.example"})
        origin = client.post(
            "/endpoints/failure_api/invocations",
            json={"rows": [ROW]},
            headers={"Origin": "http://evil.example"},
        )
        assert host.status_code in (400, 403, 421) and origin.status_code == 403
        client.headers.pop("Authorization")
        assert client.post("/endpoints/failure_api/invocations", json={"rows": [ROW]}).status_code == 401
        assert client.get("/api/v1/endpoints").status_code == 401
        assert client.get("/health").status_code == 200


def test_many_labels_one_by_one(served: tuple[Shell, Server]) -> None:
    """Callers may send each label by itself, one after the other, as fast as they like."""
    _, server = served
    with server.client() as client:
        rows = {"rows": [ROW] * 300}
        ids = client.post("/endpoints/failure_api/invocations", json=rows).json()["prediction_ids"]
        for one in ids:
            label = {"labels": [{"prediction_id": one, "label": True}]}
            assert client.post("/endpoints/failure_api/labels", json=label, timeout=5).status_code == 200


def test_unsafe_combinations_are_refused(shell: Shell) -> None:
    """Off loopback there is no server without a token and none on simulated time."""
    assert "refused" in shell("up", "--host", "0.0.0.0", "--auth", "none", expect=2).err
    assert "refused" in shell("up", "--host", "0.0.0.0", "--clock", "simulated", expect=2).err


def test_decorated_functions_are_unit_testable(quickstart: Shell) -> None:
    """The test that `trimtab init` writes passes."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=quickstart.folder, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()
