"""One model behind a socket: good answers, clear errors, and no start without proof."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.serve.stand import MODULE, ROW, SIGNATURE, deploy, make_version, put_endpoint
from trimtab.core.errors import Refused, StepFailed
from trimtab.core.nouns import Data
from trimtab.serve.fetching import settings_of
from trimtab.serve.worker import Settings, Worker, check_answer, compare, load, pinned
from trimtab.store import live
from trimtab.store.store import Store

REQUEST = "0" * 31 + "1"


class Fake:
    """Answers with what it was given."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Data:
        """Return the answer, or raise it."""
        if isinstance(self._answer, Exception):
            raise self._answer
        rows = len(columns["x"])
        return {"predictions": self._answer[:rows], "scores": None} if isinstance(self._answer, list) else self._answer


def _worker(answer: Any) -> Worker:
    settings = Settings(
        deployment_id="dep", endpoint="api", number=3, version="line:1", socket="", files={}, granted=True,
        meta={"signature": SIGNATURE},
    )  # fmt: skip
    return Worker(settings, Fake(answer))


def _ask(worker: Worker, body: Any, kind: str = "application/json") -> tuple[int, Any, int]:
    sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
    status, answer, rows = worker.answer(sent, kind, REQUEST)
    return status, msgspec.json.decode(answer), rows


def test_an_answer_says_who_answered_and_how_to_label_it() -> None:
    """Rows and columns get predictions, ids and the version."""
    for body in ({"rows": [ROW, ROW]}, {"columns": {"x": [1.0, 1.0], "c": ["a", "a"]}}):
        status, answer, rows = _ask(_worker([True, False]), body)
        assert (status, rows) == (200, 2)
        assert answer == {
            "predictions": [True, False], "scores": None, "prediction_ids": [f"{REQUEST}.0", f"{REQUEST}.1"],
            "request_id": REQUEST, "endpoint": "api", "deployment": 3, "version": "line:1", "warnings": [],
        }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind", "status", "where"),
    [
        (b"{", "application/json", 400, "body"),
        (b"\xff\xfe", "application/json", 400, "body"),
        (b'{"rows": [{"x": NaN, "c": "a"}]}', "application/json", 400, "body"),
        (b"[" * 100_000, "application/json", 400, "body"),
        ({"rows": [ROW]}, "text/csv", 415, "Content-Type"),
        ({"rows": [ROW]}, "application/x-www-form-urlencoded", 415, "Content-Type"),
        ({"rows": [{"x": 1.0}]}, "application/json", 422, "rows[0].c"),
        ({"rows": [ROW, {**ROW, "x": "hot"}]}, "application/json; charset=utf-8", 422, "rows[1].x"),
        ({"columns": {"x": [1.0], "c": ["z"]}}, "", 422, "columns.c[0]"),
        ({"rows": [{**ROW, "y": 1}]}, "application/json", 422, "rows[0].y"),
    ],
)
def test_bad_requests_are_told_where(body: Any, kind: str, status: int, where: str) -> None:
    """Form, content type and fields have their own status, and the place is named."""
    got, answer, rows = _ask(_worker([True]), body, kind)
    assert (got, rows, answer["error"]["where"]) == (status, 0, where)
    assert answer["error"]["message"] and answer["error"]["fix"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ValueError("no such\ncolumn"), "the model raised ValueError: no such"),
        (StepFailed("wrong shape: 1 expected, got 2"), "wrong shape"),
        ([math.nan], "nan"),
        ({"predictions": [1.0], "scores": [math.inf]}, "inf"),
        ({"predictions": ["a"], "scores": [[0.5, math.nan]]}, "nan"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_models_fault_is_told_without_its_inside(answer: Any, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The caller gets one sentence and never a NaN; the log gets the trace."""
    status, body, _ = _ask(_worker(answer), {"rows": [ROW]})
    assert status == 500 and says in body["error"]["message"]
    assert "Traceback" not in str(body) and "File" not in str(body)
    assert "Traceback" in capsys.readouterr().err or isinstance(answer, StepFailed | list | dict)


def test_whole_numbers_and_texts_are_fine() -> None:
    """Only numbers that JSON cannot say are refused."""
    check_answer({"predictions": ["a", 3, True, None], "scores": [[0.1, 0.9], 0.5, 1, None]})


@pytest.mark.parametrize(
    ("wanted", "got", "worst"),
    [
        ([0.5, 2.0], [0.5, 2.0 * (1 + 5e-10)], 5e-10),
        ([0.0], [0.0], 0.0),
        ([[0.1, 0.9]], [[0.1, 0.9]], 0.0),
        (["a", True, 3], ["a", True, 3], 0.0),
        ([0.5], [0.5 + 1e-8], None),
        ([0.0], [1e-12], None),
        (["a"], ["b"], None),
        ([3], [4], None),
        ([1.0], [math.nan], None),
        ([1.0], [1.0, 2.0], None),
    ],
)
def test_golden_answers_are_compared(wanted: list[Any], got: list[Any], worst: float | None) -> None:
    """Numbers may be off by a billionth of their size; labels must be equal."""
    one, other = {"predictions": wanted, "scores": None}, {"predictions": got, "scores": None}
    if worst is None:
        with pytest.raises(StepFailed, match="golden"):
            compare(one, other, "line:1")
    else:
        assert compare(one, other, "line:1") == pytest.approx(worst, rel=1e-3)


@pytest.fixture
def no_trace() -> Iterator[None]:
    """Forget the snapshot's module and path after the test."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop(MODULE, None)


def test_a_worker_loads_and_proves(store: Store, no_trace: None) -> None:
    """From the ledger's facts to a proven model: package, snapshot, golden rows, grant."""
    settings = _settings(store)
    sys.modules.pop(MODULE, None)
    worker = load(settings)
    assert worker.proof is not None and (worker.proof.rows, worker.proof.worst) == (3, 0.0)
    status, answer, _ = _ask(worker, {"rows": [ROW]})
    assert status == 200 and answer["scores"][0] == pytest.approx(1 / (1 + math.exp(-1)))


def test_a_model_that_answers_differently_does_not_start(store: Store, no_trace: None) -> None:
    """The golden rows of another model stop a worker, and the message names the row."""
    settings, other = _settings(store), make_version(store, 2.0)
    golden = str(store.blobs.path(other.meta["golden"]))
    with pytest.raises(StepFailed, match=r"scores\[1\] was .* when the model was packaged"):
        load(msgspec.structs.replace(settings, golden=golden))


def test_code_is_not_run_without_a_grant(store: Store) -> None:
    """A pickle whose digest nobody granted is not read."""
    with pytest.raises(Refused, match="not granted"):
        load(msgspec.structs.replace(_settings(store), granted=False))


def test_compute_libraries_are_kept_to_their_threads() -> None:
    """OpenMP, OpenBLAS and MKL take every core of the machine unless they are told."""
    assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"} <= pinned(2).keys()
    assert set(pinned(2).values()) == {"2"}


def _settings(store: Store) -> Settings:
    deployment = deploy(store, put_endpoint(store, threads=2), make_version(store))
    settings = settings_of(store, live.get_deployment(store.ledger, deployment))
    assert settings.granted and settings.threads == 2 and Path(settings.files["model"]).exists()
    return settings
