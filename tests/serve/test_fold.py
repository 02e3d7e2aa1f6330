"""Calls and labels as tables: every row once, through kills, growing signatures and other types."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from tests.serve.stand import ROW, SIGNATURE, START, Traffic, deploy, make_version, put_endpoint
from trimtab.core.errors import Unavailable
from trimtab.core.nouns import Data
from trimtab.serve import fold as room
from trimtab.serve.collect import collect
from trimtab.serve.fold import fold
from trimtab.serve.frames import CallFrame, calls_folder, encode
from trimtab.serve.labels import accept_labels
from trimtab.store import facts, leases, live
from trimtab.store.calls import put_offset
from trimtab.store.intake import Buffered, Offset
from trimtab.store.store import Store, open_store


@pytest.fixture
def endpoint(store: Store) -> str:
    """Return an endpoint with one deployment."""
    made = put_endpoint(store)
    deploy(store, made, make_version(store), share=100)
    return made


def _table(store: Store, name: str) -> list[Data]:
    version = facts.current(store.ledger, name)
    assert version is not None
    rows: list[Data] = store.tables.scan(version.location).sort("prediction_id").collect().to_dicts()
    assert version.meta["rows"] == len(rows)
    return rows


def _put(store: Store, endpoint_id: str, request: Any, answer: Any, number: int, deployment: int = -1) -> None:
    """Record one request with these bodies."""
    one = live.list_deployments(store.ledger, endpoint_id)[deployment]
    frame = CallFrame(
        1, endpoint_id, one.id, one.version_id, f"{number:032x}", 10**15 + number, 1.0, 0.0, False, 200, 900, 1, "",
        msgspec.json.encode(request), msgspec.json.encode(answer),
    )  # fmt: skip
    log = Buffered(calls_folder(store.home.intake), 1 << 20, flush_every=0)
    assert log.append(encode(frame))
    log.close()
    collect(store)


def test_calls_become_a_table(store: Store, endpoint: str) -> None:
    """One row for each prediction, inputs flattened and typed; a second fold finds nothing to do."""
    with Traffic(store) as traffic:
        traffic.send(3, START, score=0.9)
        traffic.send(1, START, status=lambda candidate, number: 500)
        assert fold(store) == 4
        assert fold(store) == 0
        traffic.sent = 0
        traffic.send(5, START)  # four of them again
        assert fold(store) == 2  # a new one, and the one that had failed
    rows = _table(store, "api.calls")
    assert len(rows) == 6 and len({row["prediction_id"] for row in rows}) == 6
    good = next(row for row in rows if row["prediction_id"] == "0" * 32 + ".0")
    assert good["input_x"] == 1.0 and good["input_c"] == "a" and good["version"] == "line:1"
    assert good["prediction"] == "true" and good["score"] == 0.9 and good["event_time"] == START
    (failed,) = [row for row in rows if row["status"] == 500]
    assert failed["input_x"] is None and failed["prediction"] is None
    runs = facts.list_runs(store.ledger, kind="fold", name="api.calls")
    assert len(runs) == 2 and [one.ref for one, _ in facts.used_by(store.ledger, runs[0].id)] == ["line:1"]


def test_labels_become_a_table(store: Store, endpoint: str) -> None:
    """The newest label of each prediction, with how often it was corrected."""
    with Traffic(store) as traffic:
        ids = traffic.send(3, START)
    accept_labels(store, "api", [{"prediction_id": one, "label": True} for one in ids], START)
    fold(store)
    accept_labels(store, "api", [{"prediction_id": ids[0], "label": False}], START)
    fold(store)
    rows = _table(store, "api.labels")
    assert [(row["label"], row["corrections"]) for row in rows] == [("false", 1), ("true", 0), ("true", 0)]


def test_a_fold_that_was_killed_is_repeated(store: Store, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead between the commit and the ledger row, or between that and the offset: each row is there once."""
    with Traffic(store) as traffic:
        traffic.send(3, START)
    with monkeypatch.context() as patched:
        patched.setattr(room, "_record", _die)
        with pytest.raises(RuntimeError, match="killed"):
            fold(store)
    assert facts.current(store.ledger, "api.calls") is None
    with monkeypatch.context() as patched:
        patched.setattr(room, "put_offset", _die)
        with pytest.raises(RuntimeError, match="killed"):
            fold(store)
    assert fold(store) == 0
    assert len(_table(store, "api.calls")) == 3


def _die(*_: object, **__: object) -> None:
    raise RuntimeError("killed")


def test_new_inputs_are_new_columns(store: Store, endpoint: str) -> None:
    """A version with another input adds a column; older rows have null there."""
    _put(store, endpoint, {"rows": [ROW]}, {"predictions": [True], "scores": [0.5]}, 1)
    fold(store)
    wider = {"inputs": [*SIGNATURE["inputs"], _input("flag", "boolean")], "unseen": "refuse"}
    deploy(store, endpoint, make_version(store, 2.0, signature=wider))
    _put(store, endpoint, {"rows": [{**ROW, "flag": True}]}, {"predictions": [True], "scores": [0.5]}, 2)
    fold(store)
    assert [row["input_flag"] for row in _table(store, "api.calls")] == [None, True]


def test_an_input_may_get_another_type(store: Store, endpoint: str) -> None:
    """A number that becomes text is kept as text, what was there included."""
    _put(store, endpoint, {"rows": [{"x": 1.5, "c": "a"}]}, {"predictions": [True], "scores": [0.5]}, 1)
    fold(store)
    other = {"inputs": [_input("x", "string"), SIGNATURE["inputs"][1]], "unseen": "refuse"}
    deploy(store, endpoint, make_version(store, 2.0, signature=other))
    _put(store, endpoint, {"columns": {"x": ["many"], "c": ["a"]}}, {"predictions": [True], "scores": [0.5]}, 2)
    assert fold(store) == 1
    assert [row["input_x"] for row in _table(store, "api.calls")] == ["1.5", "many"]


def test_whole_numbers_and_numbers_share_a_column(store: Store, endpoint: str) -> None:
    """JSON writes 3 and 3.0; the signature says what the column is."""
    for number, value in enumerate((3, 3.0, 2.5, None)):
        _put(store, endpoint, {"rows": [{"x": value, "c": "a"}]}, {"predictions": ["late"], "scores": None}, number)
    fold(store)
    rows = _table(store, "api.calls")
    assert [row["input_x"] for row in rows] == [3.0, 3.0, 2.5, None]
    assert {row["prediction"] for row in rows} == {"late"} and {row["score"] for row in rows} == {None}


def _input(name: str, kind: str) -> Data:
    return {"name": name, "type": kind, "nullable": True, "categories": None}


def test_one_fold_at_a_time(store: Store, endpoint: str) -> None:
    """A second one waits for the first and then says so."""
    with Traffic(store) as traffic:
        traffic.send(1, START)
    code = (
        "import sys, time; from pathlib import Path; from trimtab.store.store import open_store\n"
        "from trimtab.store.leases import acquire\n"
        "store = open_store(Path(sys.argv[1])); assert acquire(store.ledger, 'fold'); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(store.home.root)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable, match="another process folds"):
            fold(store, wait_s=0.1)
    finally:
        holder.kill()
        holder.communicate()
    assert fold(store) == 1, "the claim of a dead process does not count"
    lease = leases.acquire(store.ledger, "fold")
    assert lease is not None


def test_segments_go_when_every_reader_is_behind_them(store: Store, endpoint: str) -> None:
    """While one reader of one environment has not read a segment, it stays."""
    for number in range(3):
        _put(store, endpoint, {"rows": [ROW]}, {"predictions": [True], "scores": [0.5]}, number)
    folder = calls_folder(store.home.intake)
    fold(store)
    assert len(list(folder.glob("*.seg"))) == 3, "the monitors have not read anything"
    store.ledger.write(lambda tx: put_offset(tx, "monitors", Offset(3, 0)), what="read")
    with open_store(store.home.root, environment="prod") as other:
        put_endpoint(other, name="api")
        fold(store)
        assert len(list(folder.glob("*.seg"))) == 3, "the other environment has not"
        for stream in room.READERS:
            other.ledger.write(lambda tx, stream=stream: put_offset(tx, stream, Offset(2, 0)), what="read")  # type: ignore[misc]
    fold(store)
    assert sorted(int(path.stem) for path in folder.glob("*.seg")) == [2, 3]
    assert fold(store) == 0 and len(_table(store, "api.calls")) == 3


def test_a_fold_is_a_short_process(store: Store, endpoint: str) -> None:
    """`python -m trimtab.serve.fold ROOT ENVIRONMENT` prints the new rows."""
    with Traffic(store) as traffic:
        traffic.send(2, START)
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.serve.fold", str(store.home.root), "dev"], capture_output=True, check=True
    )
    assert done.stdout == b"2\n" and len(_table(store, "api.calls")) == 2
