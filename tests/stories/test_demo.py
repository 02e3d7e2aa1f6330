"""The demo on a few days: the report's contract, the second run, and the same report after kill -9 of anything."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.stories.conftest import Shell, _env

pytestmark = pytest.mark.story
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flights"
UNTIL = "2013-04-03"
KILLS = int(os.environ.get("TRIMTAB_KILLS", "3"))
VOLATILE = {"id", "seconds", "p50_ms", "p99_ms", "reason"}


def _copy(target: Path) -> Path:
    return Path(
        shutil.copytree(
            EXAMPLE, target / "flights", ignore=shutil.ignore_patterns(".trimtab", "landing", "build", "__pycache__")
        )
    )


def _start(folder: Path) -> subprocess.Popen[bytes]:
    log = (folder / "demo.log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, "demo.py", "--out", "out", "--until", UNTIL],
            cwd=folder, stdout=log, stderr=log, env=_env(), start_new_session=True,
        )  # fmt: skip


def _finish(folder: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    code = process.wait(240)
    assert code == 0, (folder / "demo.log").read_text()[-4000:]
    return dict(json.loads((folder / "out" / "report.json").read_text()))


def _stable(value: Any) -> Any:
    """Return a report without what may differ: timings and ids (and texts that quote timings)."""
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if key not in VOLATILE}
    return [_stable(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An undisturbed short demo and its report."""
    folder = _copy(tmp_path_factory.mktemp("demo"))
    return folder, _finish(folder, _start(folder))


def test_report_keeps_its_contract(done: tuple[Path, dict[str, Any]]) -> None:
    """Every promised field is there, and the numbers fit together."""
    _, report = done
    month = report["months"][0]
    assert set(month) == {
        "month", "rows", "delay_rate", "auc_frozen", "auc_operated", "logloss_frozen", "logloss_operated",
    }  # fmt: skip
    assert month["month"] == "2013-04" and 0 < month["delay_rate"] < 1
    assert month["auc_operated"] == pytest.approx(month["auc_frozen"])
    assert set(report["requests"]) == {"sent", "failed", "p50_ms", "p99_ms"}
    assert report["requests"]["sent"] > 100 and report["requests"]["failed"] == 0
    assert set(report["seconds"]) == {"total", "compute"}
    kinds = [item["kind"] for item in report["lineage_of_one_prediction"]]
    assert kinds[0] == "prediction" and {"model", "table", "features", "source"} <= set(kinds)
    assert {"alarms", "retrainings", "gates"} <= set(report)


def test_report_page_is_self_contained(done: tuple[Path, dict[str, Any]]) -> None:
    """The page holds its charts and loads nothing."""
    folder, _ = done
    page = (folder / "out" / "report.html").read_text()
    assert page.count("<svg") >= 3 and "<script" not in page and 'src="' not in page


def test_second_run_reuses_everything(done: tuple[Path, dict[str, Any]]) -> None:
    """The same command again runs no step, replays no day, and ends with the same report."""
    folder, report = done
    again = _finish(folder, _start(folder))
    assert _stable(again) == _stable(report)
    told = (folder / "demo.log").read_text()
    assert "reused: the pipeline has run" in told and "3 of 3 days had been settled before" in told


def test_commands_answer_in_the_example_folder(done: tuple[Path, dict[str, Any]]) -> None:
    """The store stays in the folder and answers the contract's commands."""
    folder, report = done
    shell = Shell(folder)
    assert shell.json("show", "delay_api")
    assert shell.json("why", "delays")
    prediction = report["lineage_of_one_prediction"][0]["id"]
    assert any(item["kind"] == "source" for item in shell.json("lineage", prediction)["upstream"])
    calls = shell.json("sql", "select count(distinct request_id) as n from delay_api.calls")
    assert calls["rows"] == [[report["requests"]["sent"]]]


@pytest.mark.timeout(600 + 20 * KILLS)
def test_kill_anything_and_go_on(tmp_path: Path, done: tuple[Path, dict[str, Any]]) -> None:
    """After kill -9 of any process at any moment, the same command ends with the same report."""
    folder = _copy(tmp_path)
    draw = random.Random(7)
    for _ in range(KILLS):
        process = _start(folder)
        time.sleep(draw.uniform(2, 14))
        victims = _processes_of(process.pid)
        if process.poll() is None and victims:
            os.kill(draw.choice(victims), signal.SIGKILL)
            time.sleep(draw.uniform(0, 2))
        if process.poll() is None and draw.random() < 0.7:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        elif process.poll() is None:
            process.wait(240)
    report = _finish(folder, _start(folder))
    assert _stable(report) == _stable(done[1])


def _processes_of(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found
