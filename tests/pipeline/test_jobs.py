"""How messages are framed on a socket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimtab.pipeline.jobs import frame, frames


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 30))
def test_frames_survive_any_cut(payloads: list[bytes], size: int) -> None:
    """However the stream is cut into pieces, the same payloads come out in the same order."""
    stream = b"".join(frame(payload) for payload in payloads)
    buffer = bytearray()
    found: list[bytes] = []
    for start in range(0, len(stream), size):
        buffer += stream[start : start + size]
        found.extend(frames(buffer))
    assert found == payloads and not buffer
