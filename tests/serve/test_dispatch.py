"""Through a worker's restarts: waiting, repeating, and giving up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from trimtab.serve.dispatch import Crashed, Gone, Workers
from trimtab.serve.wire import TooSlow

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HEAD = b"POST /score HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


class FakeWorker:
    """Listens, answers or dies, as it is told: dying closes the socket and every connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = 0
        self.deaths = 0
        self.hangs_up = 0
        self.quit_idle = False
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    def die(self) -> None:
        """Stop to listen."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            self.asked += 1
            if self.hangs_up:
                self.hangs_up -= 1
                break
            if self.deaths:
                self.deaths -= 1
                self.die()
                break
            writer.write(ANSWER)
            await writer.drain()
            if self.quit_idle:
                # The next request on this connection finds it closed, though the worker lives.
                await reader.read(1)
                break
        writer.close()


def _run(tmp_path: Path, work: Callable[[FakeWorker, Workers], Awaitable[None]]) -> None:
    async def both() -> None:
        fake, workers = FakeWorker(tmp_path / "w"), Workers()
        try:
            await work(fake, workers)
        finally:
            workers.keep(set())
            fake.die()
            await asyncio.sleep(0.02)

    asyncio.run(both())


async def _ask(workers: Workers, fake: FakeWorker, timeout: float = 5.0, wanted: bool = True) -> bytes:
    answer, latency = await workers.ask(str(fake.path), HEAD, b"", timeout=timeout, wanted=lambda: wanted)
    assert 0 <= latency < timeout * 1e6
    return answer.body


def test_a_request_waits_for_a_worker_that_starts(tmp_path: Path) -> None:
    """Nobody listens at first; the answer comes when somebody does, and only its own attempt is timed."""

    async def work(fake: FakeWorker, workers: Workers) -> None:
        asked = asyncio.create_task(workers.ask(str(fake.path), HEAD, b"", timeout=5.0, wanted=lambda: True))
        await asyncio.sleep(0.3)
        await fake.start()
        answer, latency = await asked
        assert answer.body == b"ok" and latency < 200_000

    _run(tmp_path, work)


def test_a_request_survives_one_crash(tmp_path: Path) -> None:
    """The worker dies with the request at work and comes back: the request is asked again."""

    async def work(fake: FakeWorker, workers: Workers) -> None:
        await fake.start()
        fake.deaths = 1
        asked = asyncio.create_task(_ask(workers, fake))
        await asyncio.sleep(0.05)
        await fake.start()
        assert await asked == b"ok" and fake.asked == 2

    _run(tmp_path, work)


def test_a_request_that_kills_twice_is_given_up(tmp_path: Path) -> None:
    """A request that was at work in two crashes is not tried a third time."""

    async def work(fake: FakeWorker, workers: Workers) -> None:
        await fake.start()
        assert await _ask(workers, fake) == b"ok"  # so that the first crash is on a used connection
        fake.deaths = 2
        asked = asyncio.create_task(_ask(workers, fake))
        await asyncio.sleep(0.1)
        await fake.start()
        with pytest.raises(Crashed, match="2 times"):
            await asked

    _run(tmp_path, work)


def test_a_dying_worker_counts_once(tmp_path: Path) -> None:
    """A worker that takes and drops connections while it dies is one death, however often it is asked."""

    async def work(fake: FakeWorker, workers: Workers) -> None:
        fake.hangs_up = 3
        await fake.start()
        assert await _ask(workers, fake) == b"ok" and fake.asked == 4

    _run(tmp_path, work)


def test_a_connection_that_was_closed_while_idle_is_no_crash(tmp_path: Path) -> None:
    """As often as the worker closes used connections, requests are answered."""

    async def work(fake: FakeWorker, workers: Workers) -> None:
        await fake.start()
        fake.quit_idle = True
        for _ in range(5):
            assert await _ask(workers, fake) == b"ok"

    _run(tmp_path, work)


def test_waiting_ends_at_the_deadline(tmp_path: Path) -> None:
    """Without a worker the request ends in time."""

    async def work(fake: FakeWorker, workers: Workers) -> None:
        with pytest.raises(TooSlow):
            await _ask(workers, fake, timeout=0.1)

    _run(tmp_path, work)


def test_waiting_ends_when_another_deployment_has_the_traffic(tmp_path: Path) -> None:
    """A request does not wait for a deployment that the routes have dropped."""

    async def work(fake: FakeWorker, workers: Workers) -> None:
        with pytest.raises(Gone):
            await _ask(workers, fake, wanted=False)

    _run(tmp_path, work)
