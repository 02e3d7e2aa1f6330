"""What the router writes about one request: the only record of a call, for all who count, judge or fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

VERSION = 1
CALLS = "calls"
LABELS = "labels"


class CallFrame(Struct, frozen=True, array_like=True):
    """One request, as it was answered.

    Attributes:
        v: the version of this layout; fields are only ever added at the end.
        at_us: event time in microseconds.
        weight: probability, fixed before the request, with which this deployment was picked; 1 when the caller
            named it.
        candidate_weight: the same for the rollout's candidate; 0 without one, and 0 or 1 when the caller named a
            deployment.
        candidate: the candidate answered.
        status: HTTP status that the caller got.
        latency_us: real microseconds of the attempt that was answered.
        rows: predictions in the answer.
        key: fingerprint of the sticky key, or an empty string.
        request: the body as received.
        response: the body as answered.
        named: the caller asked for this deployment, so that the call is no evidence.
    """

    v: int
    endpoint_id: str
    deployment_id: str
    version_id: str
    request_id: str
    at_us: int
    weight: float
    candidate_weight: float
    candidate: bool
    status: int
    latency_us: int
    rows: int
    key: str
    request: bytes
    response: bytes
    named: bool = False


class LabelFrame(Struct, frozen=True, array_like=True):
    """One label, as it was accepted; times are microseconds of event time."""

    v: int
    endpoint_id: str
    prediction_id: str
    label: Any
    at_us: int
    arrived_us: int


class Answer(Struct):
    """What a worker's answer says about its rows."""

    predictions: list[Any] = []
    scores: list[Any] | None = None


_ENCODER = msgspec.msgpack.Encoder()
_CALL = msgspec.msgpack.Decoder(CallFrame)
_LABEL = msgspec.msgpack.Decoder(LabelFrame)
_ANSWER = msgspec.json.Decoder(Answer)


def encode(frame: CallFrame | LabelFrame) -> bytes:
    """Return a frame's bytes."""
    return _ENCODER.encode(frame)


def decode_call(payload: bytes) -> CallFrame:
    """Return the call frame in ``payload``.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _CALL.decode(payload)


def decode_label(payload: bytes) -> LabelFrame:
    """Return the label frame in ``payload``.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _LABEL.decode(payload)


def answer_of(frame: CallFrame) -> Answer:
    """Return the predictions of a call that was answered with 200."""
    return _ANSWER.decode(frame.response)


def inputs_of(frame: CallFrame) -> dict[str, list[Any]]:
    """Return the inputs of a call that was answered with 200, as columns; a value that is not there is None."""
    body: Any = msgspec.json.decode(frame.request)
    if "columns" in body:
        return {str(name): list(values) for name, values in body["columns"].items()}
    rows: list[dict[str, Any]] = body["rows"]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def calls_folder(intake: Path) -> Path:
    """Return the folder of the calls log below a store's intake."""
    return intake / CALLS


def labels_folder(intake: Path) -> Path:
    """Return the folder of the labels log below a store's intake."""
    return intake / LABELS
