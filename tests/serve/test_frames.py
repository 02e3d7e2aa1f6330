"""What is recorded of a request can be read again, also by a release that knows more fields."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trimtab.serve.frames import CallFrame, LabelFrame, answer_of, decode_call, decode_label, encode, inputs_of


def make(request: Any, response: Any = None, status: int = 200) -> CallFrame:
    """Return a frame with these bodies."""
    return CallFrame(
        1, "end", "dep", "ver", "0" * 32, 5, 0.9, 0.1, False, status, 900, 1, "",
        msgspec.json.encode(request), msgspec.json.encode(response or {}),
    )  # fmt: skip


def test_a_frame_comes_back() -> None:
    """Every field of both kinds survives."""
    frame = make({"rows": []})
    assert decode_call(encode(frame)) == frame
    label = LabelFrame(1, "end", "x.0", True, 7, 8)
    assert decode_label(encode(label)) == label


def test_an_older_frame_is_understood() -> None:
    """Fields are only added at the end, with a default."""
    old = msgspec.msgpack.decode(encode(make({"rows": []})))[:-1]
    assert decode_call(msgspec.msgpack.encode(old)).named is False


@pytest.mark.parametrize(
    "body", [{"rows": [{"x": 1, "c": "a"}, {"x": None, "c": "b"}]}, {"columns": {"x": [1, None], "c": ["a", "b"]}}]
)
def test_inputs_are_columns_whatever_was_sent(body: Any) -> None:
    """Rows and columns give the same inputs."""
    assert inputs_of(make(body)) == {"x": [1, None], "c": ["a", "b"]}


def test_answers_carry_predictions_and_scores() -> None:
    """What else an answer says is not needed again."""
    answer = answer_of(make({}, {"predictions": [True], "scores": [0.7], "warnings": [], "version": "m:1"}))
    assert (answer.predictions, answer.scores) == ([True], [0.7])
