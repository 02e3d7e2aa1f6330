"""Starts a program that dies with its parent: ``python -I -S child.py PARENT_PID PROGRAM ARGUMENT...``.

A supervisor that is killed cannot end its children itself, so the kernel does (PR_SET_PDEATHSIG, which survives exec).
It is a program of its own, on the standard library only, because setting it between fork and exec in a process with
threads is not safe.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def command(argv: list[str]) -> list[str]:
    """Return the argument list that starts ``argv`` as a child of this process and of no other."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *argv]


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the program."""
    parent, argv = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent died before the tie was made.
        sys.exit(1)
    os.execv(argv[0], argv)  # noqa: S606 - an argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
