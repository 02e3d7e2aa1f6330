"""Ctrl-C and SIGTERM as a request to end, so that no transaction is torn in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts(cancel: threading.Event) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM set ``cancel``; a second one does what it did before.

    Only the main thread can take signals; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        cancel.set()
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()
