"""What goes between the executor and its workers, and how it is framed on a socket."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from trimtab.core.declare import Declaration
from trimtab.core.errors import Fault
from trimtab.core.nouns import Data, Version
from trimtab.pipeline.kinds import StepResult

_LENGTH = struct.Struct(">I")


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What all jobs of a pool have in common.

    Attributes:
        snapshot: the folder that the project's modules are imported from.
        store: the folder of the store.
        threads: compute threads of one step.
        memory_bytes: the most data memory of one worker, or 0 for no limit.
    """

    project_root: str
    snapshot: str
    store: str
    environment: str = "dev"
    workspace: str = "default"
    actor: str = ""
    threads: int = 1
    memory_bytes: int = 0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One step to carry out; see ``StepContext`` for what the fields mean.

    Attributes:
        id: the stage, such as ``make:flights``.
        kind: ``module:class`` of the step kind.
        log: the file that takes what the step prints.
        recover: table id -> the newest Delta version that the ledger names; what lies beyond it was left by
            a run that died and is rolled back first.
    """

    id: str
    kind: str
    op: str
    declaration: Declaration
    run_id: str
    inputs: dict[str, Version]
    references: dict[str, Version | None]
    previous: Version | None
    params: Data
    seed: int
    now: datetime
    overrides: Data
    runtime: Data
    fingerprint: Data
    assets: dict[str, str]
    log: str
    recover: dict[str, int | None]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says about its job.

    Attributes:
        kind: ``progress`` while it runs (a metric that was logged), else ``done`` or ``failed``, once.
        error: ``{type, message, where, fix, traceback}``.
    """

    kind: Literal["progress", "done", "failed"]
    name: str = ""
    step: int = 0
    value: float = 0.0
    result: StepResult | None = None
    error: Data = {}


def frame(payload: bytes) -> bytes:
    """Return ``payload`` with its length before it."""
    if len(payload) >= 1 << 32:
        raise Fault("a message of more than 4 GiB does not fit", fix="put large values into blobs or tables")
    return _LENGTH.pack(len(payload)) + payload


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Take the whole frames from the front of ``buffer`` and yield their payloads."""
    while len(buffer) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(buffer)
        end = _LENGTH.size + length
        if len(buffer) < end:
            return
        payload = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        yield payload
