"""Signals as a request to end."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from trimtab.pipeline.interrupts import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_second_one_insists(number: signal.Signals) -> None:
    """The first signal only sets the event; then the handlers are what they were."""
    before = signal.getsignal(number)
    cancel = threading.Event()
    with interrupts(cancel):
        assert signal.getsignal(number) is not before
        os.kill(os.getpid(), number)
        assert cancel.wait(1)
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_other_threads_take_no_signals() -> None:
    """Outside the main thread nothing is installed and nothing breaks."""
    done = threading.Event()

    def work() -> None:
        with interrupts(threading.Event()):
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done.is_set()
