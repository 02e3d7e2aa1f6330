"""The process behind one deployment: it loads one model, repeats its golden requests, and answers on a unix socket.

It runs as ``python -m trimtab.serve.worker SETTINGS.json``, opens no store and knows no other deployment. The socket
is there only once the model has answered its golden requests as it did when it was packaged.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.core.clock import monotonic
from trimtab.core.errors import BadInput, StepFailed, TrimtabError
from trimtab.core.nouns import Data
from trimtab.serve.serving import leave, run_app
from trimtab.train.load import Scorer, load_model
from trimtab.train.signature import columns_of

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
"""What compute libraries read when they are imported; unset, each of them takes every core of the machine."""

TOLERANCE = 1e-9
"""How far a number in a golden answer may be off, relative to its size; labels must be equal."""

_WARM_UPS = 5
_OPEN_FILES = 4096
_JSON = ("content-type", "application/json")


class Settings(Struct, frozen=True, kw_only=True):
    """All that a worker knows; the supervisor writes it.

    Attributes:
        number: of the deployment.
        version: the reference of the model version.
        socket: the unix socket to listen on.
        files: the package's files: name -> path.
        meta: of the model version.
        granted: the package may run code when it is read.
        golden: the file with the golden requests and answers, or an empty string.
        snapshot: the folder with the project's code as it was when the model was made, or an empty string.
        threads: compute threads.
    """

    deployment_id: str
    endpoint: str
    number: int
    version: str
    socket: str
    files: dict[str, str]
    meta: Data
    granted: bool
    golden: str = ""
    snapshot: str = ""
    threads: int = 1


class Proof(Struct, frozen=True, kw_only=True):
    """How the golden requests went.

    Attributes:
        rows: that were repeated.
        worst: the largest relative difference of a number.
        one_row_ms: milliseconds of a request of one row, the median of a few.
        load_s: seconds that loading took.
        pid: of the process that says so.
    """

    rows: int
    worst: float
    one_row_ms: float
    load_s: float
    pid: int


class Worker:
    """Answers requests with one model."""

    def __init__(self, settings: Settings, scorer: Scorer) -> None:
        self._settings = settings
        self._scorer = scorer
        self._signature = settings.meta["signature"]
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode
        self.proof: Proof | None = None

    def answer(self, body: bytes, content_type: str, request_id: str) -> tuple[int, bytes, int]:
        """Return status, JSON body and rows of the answer to a request."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind not in ("", "application/json"):
            return self._refuse(415, f"a body of {kind!r} is not understood", "Content-Type", "send application/json")
        try:
            data = self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._refuse(400, f"the body is not JSON: {error}", "body", 'send {"rows": [{...}]}')
        try:
            columns, warnings = columns_of(data, self._signature)
        except BadInput as error:
            return 422, self._encode({"error": error.as_data()}), 0
        try:
            made = self._scorer.predict(columns)
            check_answer(made)
        except Exception as error:
            # Whatever a model raises is its own fault; the caller learns what, the log also where.
            traceback.print_exception(error)
            return 500, self._encode({"error": self._told(error)}), 0
        predictions = made["predictions"]
        answer = {
            "predictions": predictions,
            "scores": made["scores"],
            "prediction_ids": [f"{request_id}.{row}" for row in range(len(predictions))],
            "request_id": request_id,
            "endpoint": self._settings.endpoint,
            "deployment": self._settings.number,
            "version": self._settings.version,
            "warnings": warnings,
        }
        return 200, self._encode(answer), len(predictions)

    def prove(self, golden: Mapping[str, Any], load_s: float) -> Proof:
        """Repeat the golden requests, compare, and warm up what a single request goes through.

        Raises:
            StepFailed: an answer differs from the one that was packaged.
        """
        rows = golden.get("rows") or []
        worst, times = 0.0, [0.0]
        if rows:
            columns, _ = columns_of({"rows": rows}, {**self._signature, "unseen": "accept"})
            worst = compare(golden["output"], self._scorer.predict(columns), self._settings.version)
            times = [self._time(rows[0]) for _ in range(_WARM_UPS)]
        middle = sorted(times)[len(times) // 2]
        self.proof = Proof(rows=len(rows), worst=worst, one_row_ms=middle * 1e3, load_s=load_s, pid=os.getpid())
        return self.proof

    def _time(self, row: Data) -> float:
        body, begun = self._encode({"rows": [row]}), monotonic()
        self.answer(body, "application/json", "0" * 32)
        return monotonic() - begun

    def _refuse(self, status: int, message: str, where: str, fix: str) -> tuple[int, bytes, int]:
        error = BadInput(message, where=where, fix=fix)
        return status, self._encode({"error": error.as_data()}), 0

    def _told(self, error: Exception) -> dict[str, str]:
        if isinstance(error, TrimtabError):
            return {**error.as_data(), "where": error.where or self._settings.version}
        text = str(error).splitlines()[0][:300] if str(error) else ""
        told = StepFailed(
            f"the model raised {type(error).__name__}" + (f": {text}" if text else ""),
            where=self._settings.version,
            fix="the log of its worker says where; try the row on another version",
        )
        return told.as_data()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request of the router or of the supervisor."""
        if scope.path == "/score" and scope.method == "POST":
            headers = scope.headers
            status, body, rows = self.answer(
                await protocol(), headers.get("content-type", ""), headers.get("trimtab-request-id", "")
            )
            protocol.response_bytes(status, [_JSON, ("trimtab-rows", str(rows))], body)
        elif scope.path == "/ready":
            protocol.response_bytes(200, [_JSON], self._encode(self.proof))
        else:
            protocol.response_bytes(404, [_JSON], b"{}")


def check_answer(made: Mapping[str, Any]) -> None:
    """Check that an answer can be said in JSON: its numbers are finite.

    Raises:
        StepFailed: one is not; its place is told.
    """
    for name in ("predictions", "scores"):
        values = made[name]
        for row, value in enumerate(values or ()):
            parts = value if isinstance(value, list) else (value,)
            if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
                raise StepFailed(
                    f"the model answered {value!r}, which is no number that JSON can say",
                    where=f"{name}[{row}]",
                    fix="make the model answer missing inputs with a number",
                )


def compare(wanted: Mapping[str, Any], got: Mapping[str, Any], version: str) -> float:
    """Return the largest relative difference between two answers.

    Raises:
        StepFailed: a label differs, or a number by more than ``TOLERANCE``.
    """
    worst = 0.0
    for name in ("predictions", "scores"):
        ours, theirs = _flat(wanted[name]), _flat(got[name])
        if len(ours) != len(theirs):
            raise StepFailed(f"golden requests: {len(ours)} {name} expected, got {len(theirs)}", where=version)
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            off = _off(one, other)
            if not off <= TOLERANCE:
                raise StepFailed(
                    f"golden requests: {name}[{index}] was {one!r} when the model was packaged and is {other!r} now",
                    where=version,
                    fix="package it again in the runtime that serves it",
                )
            worst = max(worst, off)
    return worst


def _off(one: Any, other: Any) -> float:
    numbers = isinstance(one, float | int) and isinstance(other, float | int)
    if numbers and isinstance(one, float | int) and (isinstance(one, float) or isinstance(other, float)):
        return 0.0 if one == other else abs(one - other) / max(abs(one), abs(other))
    return 0.0 if one == other else math.inf


def _flat(values: Sequence[Any] | None) -> list[Any]:
    found: list[Any] = []
    for value in values or ():
        found += value if isinstance(value, list) else [value]
    return found


def pinned(threads: int) -> dict[str, str]:
    """Return the environment that keeps compute libraries to ``threads`` threads."""
    return dict.fromkeys(THREADS, str(threads))


def limit_resources() -> None:
    """Bound what this process can use up: open files; no core dumps, which would hold requests."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def load(settings: Settings) -> Worker:
    """Return a worker whose model has repeated its golden requests.

    Raises:
        StepFailed: it answers differently now.
        Refused: its package runs code and nobody granted it.
    """
    if settings.snapshot:
        sys.path.insert(0, settings.snapshot)
    begun = monotonic()
    files = {name: Path(path) for name, path in settings.files.items()}
    worker = Worker(settings, load_model(files, settings.meta, granted=settings.granted))
    golden = msgspec.json.decode(Path(settings.golden).read_bytes()) if settings.golden else {}
    worker.prove(golden, monotonic() - begun)
    return worker


def main(arguments: list[str]) -> int:
    """Serve what the settings file describes; return the exit code."""
    settings = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Settings)
    # The supervisor sets this too; a worker that is started by hand must not take every core either.
    os.environ.update(pinned(settings.threads))
    limit_resources()
    try:
        worker = load(settings)
        print(f"{settings.version}: {worker.proof}", flush=True)
        asyncio.run(run_app(worker, uds=Path(settings.socket)))
    except TrimtabError as error:
        print(f"worker: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
