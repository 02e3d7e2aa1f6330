"""The small client: answers in any pieces, limits, and what a broken connection means."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import Unavailable, WrongUse
from trimtab.serve.wire import AnswerReader, Broken, CannotConnect, Pool, Response, TooSlow, fetch, head_of

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
TO_THE_END = b"HTTP/1.0 200 OK\r\n\r\nhello"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _read(parts: list[bytes], *, end: bool = False) -> Response | None:
    reader, found = AnswerReader(), None
    for part in parts:
        found = found or reader.feed(part)
    return found or (reader.end() if end else None)


@given(st.sampled_from([LENGTH, CHUNKED, TO_THE_END]), st.lists(st.integers(0, 80), max_size=6))
def test_an_answer_is_the_same_in_any_pieces(whole: bytes, cuts: list[int]) -> None:
    """However the bytes arrive, status and body are the same."""
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    parts = [whole[a:b] for a, b in itertools.pairwise(places)]
    found = _read(parts, end=True)
    assert found is not None and (found.status, found.body) == (200, b"hello")


@given(st.integers(0, len(LENGTH) - 1))
def test_an_answer_that_ends_early_is_none(cut: int) -> None:
    """A part of an answer with a length is never taken for all of it."""
    assert _read([LENGTH[:cut]], end=True) is None


def test_headers_can_be_read() -> None:
    """Names come in lower case, values as they are."""
    found = _read([LENGTH])
    assert found is not None and found.headers() == [("content-length", "5"), ("x-a", "b")]
    assert found.header("X-A") == "b" and found.header("nope") == ""


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_nonsense_and_giants_are_refused(nonsense: bytes) -> None:
    """What is no answer, or too large a one, breaks the exchange."""
    with pytest.raises(Broken):
        AnswerReader(limit=1000).feed(nonsense)


def test_a_chunked_giant_is_refused_while_it_comes() -> None:
    """The limit holds for the sum of chunks."""
    reader = AnswerReader(limit=4)
    with pytest.raises(Broken, match="more than 4"):
        reader.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n")


def test_a_head_takes_no_line_ends() -> None:
    """A header's value cannot begin another header."""
    with pytest.raises(WrongUse, match="line end"):
        head_of("GET", "/", {"x": "a\r\nhost: evil"}, 0)


def _serve(path: Path, handler: Handler, work: Callable[[Pool], Awaitable[None]]) -> None:
    async def polite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def both() -> None:
        pool = Pool(str(path))
        async with await asyncio.start_unix_server(polite, str(path)):
            try:
                await work(pool)
            finally:
                pool.drop_idle()
                await asyncio.sleep(0.02)

    asyncio.run(both())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(LENGTH)


def test_connections_are_used_again(tmp_path: Path) -> None:
    """Requests one after the other share a connection; a fresh one can be asked for."""
    made = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        await _answer(reader, writer)

    async def work(pool: Pool) -> None:
        for _ in range(3):
            assert (await pool.request(b"GET / HTTP/1.1\r\n\r\n", timeout=5)).body == b"hello"
        assert made == 1
        await pool.request(b"GET / HTTP/1.1\r\n\r\n", timeout=5, fresh=True)
        assert made == 2

    _serve(tmp_path / "s", handler, work)


def test_fresh_connections_do_not_pile_up(tmp_path: Path) -> None:
    """A server takes so many connections and no more; those made for one request each must not use them up."""
    open_now, most = 0, 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            await _answer(reader, writer)
        finally:
            open_now -= 1

    async def work(pool: Pool) -> None:
        for _ in range(100):
            assert (await pool.request(b"POST / HTTP/1.1\r\n\r\n", timeout=5, fresh=True)).body == b"hello"
            await asyncio.sleep(0)

    _serve(tmp_path / "s", handler, work)
    assert most <= 4


def test_a_broken_connection_tells_whether_it_was_used_before(tmp_path: Path) -> None:
    """Only a connection that was used before may have been closed while it was idle."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /die"):
            writer.write(LENGTH)
            await reader.readuntil(b"\r\n\r\n")

    async def work(pool: Pool) -> None:
        with pytest.raises(Broken) as caught:
            await pool.request(b"GET /die HTTP/1.1\r\n\r\n", timeout=5)
        assert not caught.value.reused
        await pool.request(b"GET / HTTP/1.1\r\n\r\n", timeout=5)
        with pytest.raises(Broken) as caught:
            await pool.request(b"GET / HTTP/1.1\r\n\r\n", timeout=5)
        assert caught.value.reused

    _serve(tmp_path / "s", handler, work)


def test_time_runs_out(tmp_path: Path) -> None:
    """A late answer is none, and its connection is not used for the next request."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(LENGTH.replace(b"hello", b"stale"))
        await writer.drain()

    async def work(pool: Pool) -> None:
        with pytest.raises(TooSlow, match="no answer within"):
            await pool.request(b"GET / HTTP/1.1\r\n\r\n", timeout=0.02)
        assert (await pool.request(b"GET / HTTP/1.1\r\n\r\n", timeout=5)).body == b"stale"

    _serve(tmp_path / "s", handler, work)


def test_nobody_listens(tmp_path: Path) -> None:
    """A missing socket is told as such, by the pool and by a plain request."""

    async def work() -> None:
        await Pool(str(tmp_path / "none")).request(b"", timeout=1)

    with pytest.raises(CannotConnect):
        asyncio.run(work())
    with pytest.raises(Unavailable):
        fetch("http://x/", uds=tmp_path / "none")
    with pytest.raises(WrongUse):
        fetch("https://127.0.0.1/")


def test_a_plain_request_over_a_unix_socket(tmp_path: Path) -> None:
    """`fetch` returns a whole answer, and says when there is none."""
    answers = [LENGTH, CHUNKED, TO_THE_END, LENGTH[:-1]]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        await writer.drain()

    async def work(pool: Pool) -> None:
        for _ in range(3):
            found = await asyncio.to_thread(fetch, "http://w/x?y=1", uds=tmp_path / "s")
            assert (found.status, found.body) == (200, b"hello")
        with pytest.raises(Broken):
            await asyncio.to_thread(fetch, "http://w/", uds=tmp_path / "s")

    _serve(tmp_path / "s", handler, work)
