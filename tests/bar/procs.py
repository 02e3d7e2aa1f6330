"""Processes that a fault test starts, hears and kills, each forked from a clean one that has imported what it needs."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Say = Callable[[str], None]


@lru_cache(maxsize=1)
def context() -> ForkServerContext:
    """Return the context of the processes."""
    # The clean process finds its modules by the environment that it is started with.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    )
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(
        ["pytest", "tests.servers", "tests.bar.acts", "trimtab.backends.postgres", "psycopg.types.numeric"]
    )
    return made


class Child:
    """A process and the lines that it said; one line is written whole or not at all.

    Args:
        act: what it does; is given ``say`` and the arguments, and lies in a module.
        words: the arguments.
    """

    def __init__(self, act: Callable[..., None], *words: Any) -> None:
        self._reader, writer = context().Pipe(duplex=False)
        self.process = context().Process(target=_act, args=(writer, act, words), daemon=True)
        self._text = bytearray()
        self.process.start()
        writer.close()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while more := os.read(self._reader.fileno(), 1 << 16):
            self._text += more

    @property
    def heard(self) -> int:
        """How many bytes it has said so far."""
        return len(self._text)

    def hear(self, count: int = 1, seconds: float = 60) -> None:
        """Wait until it has said so many bytes."""
        until = time.monotonic() + seconds
        while self.heard < count:
            assert self.process.is_alive() and time.monotonic() < until, (
                f"it says no more: {bytes(self._text[-300:])!r}"
            )
            time.sleep(0.001)

    def end(self, seconds: float = 60) -> list[str]:
        """Wait until it ends by itself and return what it said."""
        self.process.join(seconds)
        assert self.process.exitcode == 0, f"ended with {self.process.exitcode}: {self.lines()[-3:]}"
        return self.lines()

    def kill(self) -> list[str]:
        """Kill -9 it and return what it said."""
        self.process.kill()
        self.process.join(30)
        assert self.process.exitcode == -9, f"it had ended before, with {self.process.exitcode}"
        return self.lines()

    def lines(self) -> list[str]:
        """Return what it said until its end."""
        self._thread.join(30)
        self._reader.close()
        return self._text.decode().split("\n")[:-1]


def _act(pipe: Connection, act: Callable[..., None], words: tuple[Any, ...]) -> None:
    number = pipe.fileno()
    act(lambda line: void(os.write(number, f"{line}\n".encode())), *words)


def void(_: object) -> None:
    """Drop an answer."""
