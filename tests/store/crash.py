"""Kills a victim again and again and tells what it had acknowledged."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

KILLS = int(os.environ.get("TRIMTAB_KILLS", "10"))
ROOT = Path(__file__).resolve().parents[2]


def kill_loop(kind: str, folder: Path, kills: int = KILLS, at_least: float = 0.0) -> list[str]:
    """Run the victim ``kills`` times on one folder, kill -9 it each time, and return what it acknowledged.

    Args:
        kind: what the victim does.
        folder: where it does it.
        kills: how often.
        at_least: seconds that it lives on after its first acknowledged act.
    """
    dice = random.Random(7)
    acknowledged: list[str] = []
    for number in range(kills):
        acknowledged += _one(kind, folder, f"r{number}", at_least + dice.uniform(0.01, 0.25))
    return acknowledged


def _one(kind: str, folder: Path, name: str, seconds: float) -> list[str]:
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.store.victim", kind, str(folder), name],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert victim.stdout is not None
    with victim, victim.stdout as pipe:
        text = os.read(pipe.fileno(), 1 << 16)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and text:
            if select.select([pipe], [], [], left)[0]:
                text += os.read(pipe.fileno(), 1 << 16)
        victim.kill()
        while more := os.read(pipe.fileno(), 1 << 16):
            text += more
    assert text, "the victim died by itself"
    return text.decode().split("\n")[:-1]
