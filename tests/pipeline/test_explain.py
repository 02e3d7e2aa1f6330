"""Why a step ran, and all about one thing."""

from __future__ import annotations

import json

import pytest

from tests.pipeline.conftest import Folder
from trimtab.core.errors import NotFound, WrongUse
from trimtab.pipeline.explain import show, why
from trimtab.store import facts, live


def test_why_it_ran(folder: Folder) -> None:
    """The first run is told as such; later ones by what changed, with both values."""
    folder.run()
    assert why(folder.store, "sizes")["reason"] == "it was the first run of this step"
    folder.edit("helpers.py", "2 * x", "3 * x")
    folder.run()
    answer = why(folder.store, "sizes:2")
    assert answer["reason"] == "code of helpers.double changed"
    (change,) = answer["changed"]
    assert change["field"] == "code.helpers.double" and change["before"] != change["after"]
    assert answer["subject"]["version"] == "sizes:2"
    assert why(folder.store, "total")["reason"] == "input sizes changed"
    assert why(folder.store, answer["run"]["id"]) == answer


def test_why_old_content_came_back(folder: Folder) -> None:
    """A version whose content was taken up again says from where."""
    folder.run("sizes")
    folder.run("sizes", params={"sizes": {"factor": 4}})
    folder.run("sizes")
    assert "its key is that of sizes:1" in why(folder.store, "sizes")["reason"]


def test_why_with_a_plan(folder: Folder) -> None:
    """With a plan it also says what would happen next."""
    folder.run()
    folder.edit("helpers.py", "2 * x", "3 * x")
    answer = why(folder.store, "sizes", plan=folder.plan())
    assert answer["next"] == [
        {
            "stage": "make:sizes",
            "action": "run",
            "reason": "code of helpers.double changed",
            "changed": ["code.helpers.double"],
        }
    ]


def test_why_after_a_failure(folder: Folder) -> None:
    """A run after one that failed with the same key says so."""
    folder.edit("steps.py", 'return "other"', "import os; return 1 if os.path.exists('ok') else 1 / 0")
    folder.run("other")
    folder.write("ok", "")
    folder.run("other")
    assert "ended as failed" in why(folder.store, "other")["reason"]


def test_show_everything(folder: Folder) -> None:
    """Assets, versions, runs, verdicts and endpoints can be shown by name, reference and id, as JSON."""
    folder.run()
    reader = folder.store.ledger
    folder.store.ledger.write(lambda tx: live.put_endpoint(tx, name="api", spec={}, at=folder.store.now()), what="test")
    version = facts.resolve(reader, "best")
    asset = facts.find_asset(reader, "best")
    endpoint = live.need_endpoint(reader, "api")
    at = folder.store.now()
    automation = folder.store.ledger.write(
        lambda tx: live.put_automation(tx, name="x -> run best", spec={}, enabled=True, at=at), what="test"
    )
    alarm = folder.store.ledger.write(
        lambda tx: live.add_alarm(tx, check="drift", endpoint_id=endpoint.id, at=at, data={}), what="test"
    )
    verdict = facts.verdicts_of(reader, version.id)[0]
    assert asset is not None
    wanted = {
        "best": "asset",
        asset.id: "asset",
        "best:1": "version",
        version.id: "version",
        version.run_id: "run",
        verdict.id: "verdict",
        "api": "endpoint",
        endpoint.id: "endpoint",
        automation.id: "automation",
        "x -> run best": "automation",
        alarm.id: "alarm",
    }
    for ref, kind in wanted.items():
        shown = show(folder.store, ref)
        assert shown["kind"] == kind
        json.dumps(shown)
    shown = show(folder.store, "best:1")
    assert shown["made_from"][0]["version"] == "total:1"
    assert shown["verdicts"][0]["status"] == "pass" and shown["used_by"][0]["kind"] == "gate"
    assert show(folder.store, "best")["versions"][0]["ref"] == "best:1"


def test_what_is_not_there(folder: Folder) -> None:
    """Unknown things are told with the closest name."""
    folder.run("sizes")
    with pytest.raises(NotFound, match="did you mean 'sizes'"):
        show(folder.store, "size")
    with pytest.raises(WrongUse, match="not a reference"):
        show(folder.store, "../x")
    with pytest.raises(NotFound):
        show(folder.store, "run_" + "0" * 32)
    with pytest.raises(NotFound):
        why(folder.store, "nothing")
