"""The frozen plan: what would run, and why."""

from __future__ import annotations

import time

import pytest

from tests.pipeline.conftest import Folder
from trimtab.core.errors import NotFound, ProjectError, WrongUse
from trimtab.pipeline.plan import Stage
from trimtab.store import facts


def _stages(folder: Folder) -> dict[str, Stage]:
    return {stage.id: stage for stage in folder.plan().stages}


def test_first_plan_runs_everything(folder: Folder) -> None:
    """A project that never ran is made as a whole, inputs first."""
    plan = folder.plan()
    assert {stage.action for stage in plan.stages} == {"run"}
    ids = [stage.id for stage in plan.stages]
    assert ids.index("make:raw") < ids.index("make:sizes") < ids.index("make:total") < ids.index("gate:best")
    assert plan.stages[0].reason == "never run"
    assert _stages(folder)["make:total"].reason == "never run; input sizes will be made anew"
    assert _stages(folder)["gate:best"].after == ["make:best"]


def test_planning_changes_nothing(folder: Folder) -> None:
    """Two plans in a row say the same."""
    before = folder.store.ledger.changes()
    assert folder.actions() == folder.actions()
    assert folder.store.ledger.changes() == before


def test_second_plan_reuses_everything(folder: Folder) -> None:
    """Nothing changed, so everything is reused, by its version."""
    folder.run()
    stages = _stages(folder)
    assert {stage.action for stage in stages.values()} == {"reuse"}
    assert stages["make:sizes"].version == "sizes:1"
    assert stages["gate:best"].reason == "best:1 passed its gate"


def test_lost_data_is_made_again(folder: Folder) -> None:
    """A cached version whose content is gone is not reused: the plan says so, and running mends it."""
    folder.run()
    version = facts.resolve(folder.store.ledger, "sizes")
    folder.store.blobs.path(version.location["blob"]).unlink()
    stage = _stages(folder)["make:sizes"]
    assert stage.action == "run" and stage.reason.startswith("its data is gone: blob sha256:")
    assert folder.run().ok and folder.value("sizes") == folder.value("sizes:1")
    assert {stage.action for stage in _stages(folder).values()} == {"reuse"}


def test_changed_helper_is_named(folder: Folder) -> None:
    """A changed function that a step calls is named; what follows waits for it."""
    folder.run()
    folder.edit("helpers.py", "2 * x", "3 * x")
    stages = _stages(folder)
    assert stages["make:sizes"].reason == "code of helpers.double changed"
    assert stages["make:sizes"].changed == ["code.helpers.double"]
    assert stages["make:total"].reason == "input sizes will be made anew"
    assert stages["make:raw"].action == stages["make:other"].action == "reuse"


def test_what_does_not_matter_changes_nothing(folder: Folder) -> None:
    """Comments, docstrings, unrelated functions, owners and freshness limits leave the plan empty."""
    folder.run()
    folder.edit("helpers.py", "return x\n", "return x + 1\n")
    folder.edit("steps.py", "    return sum", '    """Sum it."""\n    # all of it\n    return sum')
    folder.edit("steps.py", '@tt.table(layer="silver")', '@tt.table(layer="silver", owner="me", fresh="2d")')
    assert set(folder.actions().values()) == {"reuse"}


def test_options_and_checks_matter(folder: Folder) -> None:
    """An option of the declaration, or a check, is told by its name."""
    folder.run()
    folder.edit("steps.py", 'layer="silver"', 'layer="gold", checks=[ck.row_count(1)]')
    folder.edit("steps.py", "import trimtab as tt", "import trimtab as tt\nfrom trimtab import check as ck")
    reason = _stages(folder)["make:sizes"].reason
    assert "option layer changed" in reason and "check row_count(1, None) is new" in reason


def test_source_files_are_told(folder: Folder) -> None:
    """A new or changed file of a source is named."""
    folder.run()
    folder.write("data/b.txt", "three")
    stage = _stages(folder)["make:raw"]
    assert stage.action == "run" and stage.reason == "data/b.txt is new"
    folder.run()
    folder.write("data/b.txt", "fours")
    assert _stages(folder)["make:raw"].reason == "data/b.txt changed"


def test_targets_and_what_they_need(folder: Folder) -> None:
    """Asking for one asset plans it and what it is made from."""
    assert list(folder.actions("sizes")) == ["make:raw", "make:sizes"]
    with pytest.raises(NotFound, match="did you mean 'sizes'"):
        folder.plan("size")


def test_params(folder: Folder) -> None:
    """A param given on the command line counts in the key, and is checked against its default."""
    folder.run()
    plan = folder.plan("sizes", params={"sizes": {"factor": 4}})
    assert plan.stages[-1].reason == "param factor changed" and plan.stages[-1].params == {"factor": 4}
    with pytest.raises(NotFound, match="did you mean 'factor'"):
        folder.plan(params={"sizes": {"factr": 4}})
    with pytest.raises(NotFound, match="did you mean 'sizes'"):
        folder.plan(params={"size": {"factor": 4}})
    with pytest.raises(WrongUse, match="factor of sizes is int"):
        folder.plan(params={"sizes": {"factor": "4"}})
    with pytest.raises(WrongUse, match="factor of sizes is int"):
        folder.plan(params={"sizes": {"factor": True}})


def test_runtime_lock_matters(folder: Folder) -> None:
    """A declared lock file is part of every key."""
    folder.write("trimtab.yaml", "project: p\nmodules: [steps]\nlock: lock.txt\n")
    folder.write("lock.txt", "polars==1")
    folder.run()
    assert set(folder.actions().values()) == {"reuse"}
    folder.write("lock.txt", "polars==2")
    stage = _stages(folder)["make:other"]
    assert stage.action == "run" and stage.reason == "runtime lock changed"


def test_project_file_names_what_is_declared(folder: Folder) -> None:
    """An endpoint in the project file that nothing declares is told with its line and the closest name."""
    folder.write("steps.py", (folder.root / "steps.py").read_text() + "\ntt.endpoint('best_api', serves=best)\n")
    text = "project: p\nmodules: [steps]\nenvironments:\n  dev:\n    endpoints:\n      best_apy: {}\n"
    folder.write("trimtab.yaml", text)
    with pytest.raises(ProjectError, match="did you mean 'best_api'") as caught:
        folder.plan()
    assert caught.value.where == "trimtab.yaml:6"
    folder.write("trimtab.yaml", text.replace("best_apy", "best_api"))
    folder.plan()


def test_wrong_project_is_refused(folder: Folder) -> None:
    """What does not hang together cannot be planned."""
    folder.edit("steps.py", "def total(sizes)", "def total(size)")
    with pytest.raises(ProjectError, match="did you mean 'sizes'"):
        folder.plan()


def test_a_thousand_steps_are_planned_at_once(folder: Folder) -> None:
    """Planning a thousand steps takes well under a second (the budget, 100 ms, is measured in benchmarks)."""
    lines = ["import trimtab as tt", "@tt.table", "def t0(): return 0"]
    lines += [f"@tt.table\ndef t{i}(t{i - 1}): return t{i - 1}" for i in range(1, 1000)]
    folder.write("steps.py", "\n".join(lines) + "\n")
    folder.manifest()
    started = time.process_time()
    assert len(folder.plan().stages) == 1000
    assert time.process_time() - started < 2.0
