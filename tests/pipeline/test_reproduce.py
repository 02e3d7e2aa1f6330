"""Doing recorded steps again: equal digests, what differs where they are not, and what cannot be done again."""

from __future__ import annotations

import pytest

from tests.pipeline.conftest import Folder
from trimtab.core.errors import NotFound, StepFailed, WrongUse
from trimtab.pipeline.reproduce import reproduce
from trimtab.store import facts


def test_the_same_code_and_inputs_give_the_same(folder: Folder) -> None:
    """A version is made again from the snapshot of its run, whatever the project's files say now."""
    folder.run()
    folder.edit("helpers.py", "2 * x", "3 * x")
    folder.write("data/a.txt", "something else")
    before = facts.list_versions(folder.store.ledger, "sizes")
    told = reproduce(folder.store, folder.project, "sizes:1")
    assert told["identical"] and not told["verified"] and not told["metrics"]
    assert told["versions"][0]["original"] == told["versions"][0]["again"] == before[0].digest
    assert facts.list_versions(folder.store.ledger, "sizes") == before
    assert folder.actions("sizes")["make:sizes"] == "run"


def test_what_came_of_it_is_recorded(folder: Folder) -> None:
    """One run says what was done again, with what, and what came of it; nothing is published."""
    folder.run()
    gate = facts.list_runs(folder.store.ledger, kind="gate", name="best")[0]
    told = reproduce(folder.store, folder.project, gate.id)
    assert told["identical"] and (told["op"], told["asset"]) == ("gate", "best")
    run = facts.get_run(folder.store.ledger, told["by"])
    assert run is not None and run.kind == "reproduce" and run.facts["run"] == gate.id
    roles = {role for _, role in facts.used_by(folder.store.ledger, run.id)}
    assert roles == {"candidate", "total"}
    assert facts.made_by(folder.store.ledger, run.id) == []


def test_a_source_is_read_in_full(folder: Folder) -> None:
    """What came from outside cannot be fetched again; the kept version is compared with its digest."""
    folder.run()
    told = reproduce(folder.store, folder.project, "raw")
    assert told["identical"] and told["verified"]


def test_what_is_not_reproducible_is_told(folder: Folder) -> None:
    """A step that depends on something that is not recorded is not identical, and the digests are shown."""
    mark = folder.write("mark.txt", "1")
    text = f"return {{'score': total + plus + int(open({str(mark)!r}).read())}}"
    folder.edit("steps.py", "return {'score': total + plus}".replace("'", '"'), text)
    folder.run()
    mark.write_text("2")
    told = reproduce(folder.store, folder.project, "best:1")
    assert not told["identical"]
    (version,) = told["versions"]
    assert version["ref"] == "best:1" and version["original"] != version["again"]


def test_content_that_was_taken_up_again_is_traced_to_its_run(folder: Folder) -> None:
    """A version that took up cached content is made again as the run did that made the content."""
    folder.run()
    folder.run("sizes", params={"sizes": {"factor": 4}})
    folder.run("sizes")
    newest = facts.resolve(folder.store.ledger, "sizes")
    assert newest.ref == "sizes:3"
    told = reproduce(folder.store, folder.project, "sizes:3")
    assert told["identical"] and told["run"] == facts.resolve(folder.store.ledger, "sizes:1").run_id


def test_params_are_those_of_the_run(folder: Folder) -> None:
    """A run with other params than the defaults is done again with them."""
    folder.run("sizes", params={"sizes": {"factor": 4}})
    assert reproduce(folder.store, folder.project, "sizes:1")["identical"]


def test_lost_code_and_wrong_references_are_told(folder: Folder) -> None:
    """What cannot be done again says what is missing."""
    folder.run()
    with pytest.raises(NotFound, match="did you mean 'sizes'"):
        reproduce(folder.store, folder.project, "size")
    told = reproduce(folder.store, folder.project, "sizes")
    with pytest.raises(WrongUse, match="no finished step"):
        reproduce(folder.store, folder.project, told["by"])
    run = facts.get_run(folder.store.ledger, told["run"])
    assert run is not None
    folder.store.blobs.path(run.code["manifest"]).unlink()
    with pytest.raises(NotFound, match="is not in this store"):
        reproduce(folder.store, folder.project, "sizes")


def test_a_step_that_fails_this_time_is_told(folder: Folder) -> None:
    """A step that no longer works is an error with its own words."""
    mark = folder.write("mark.txt", "1")
    folder.edit("steps.py", 'return "other"', f"return open({str(mark)!r}).read()")
    folder.run()
    mark.unlink()
    with pytest.raises(StepFailed, match="other failed this time"):
        reproduce(folder.store, folder.project, "other")
