"""Retraining runs as child processes: an argv list, its report as JSON, and nothing that a kill could lose.

A child dies with its parent. The parent starts the same command again, which reuses what the first one finished.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, field

from trimtab.core.clock import monotonic
from trimtab.core.errors import Unavailable
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.serve.child import command as tied

PATIENCE_S = 3600.0


class Outcome(Struct, frozen=True, kw_only=True):
    """How a child run ended.

    Attributes:
        exit_code: 0 done, 1 a verdict failed, 2 wrong use, 3 a fault; negative when a signal ended it.
        report: the document that it printed, or empty.
        error: ``{type, message, where, fix}`` where there is no report, or empty.
        log: the file with what it said on standard error.
    """

    exit_code: int
    report: Data = field(default_factory=dict)
    error: Data = field(default_factory=dict)
    log: str = ""


class _Child:
    def __init__(self, argv: Sequence[str], cwd: Path, logs: Path, name: str) -> None:
        stem = f"automation-{name}-{new_hex()[-8:]}"
        self.out, self.err = logs / f"{stem}.json", logs / f"{stem}.log"
        self.started = monotonic()
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                tied(list(argv)), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    def outcome(self) -> Outcome:
        code = self.process.returncode
        try:
            found = msgspec.json.decode(self.out.read_bytes())
        except msgspec.DecodeError:
            found = None
        if isinstance(found, dict) and "stages" in found:
            return Outcome(exit_code=code, report=found, log=str(self.err))
        told = found.get("error") if isinstance(found, dict) else None
        tail = self.err.read_text(errors="replace").strip().splitlines()[-1:]
        message = f"the run ended with {code}" + (f": {tail[0][:300]}" if tail else "")
        error = told or {"type": "Fault", "message": message, "where": str(self.err), "fix": "read that log"}
        return Outcome(exit_code=code or 3, error=error, log=str(self.err))


class Jobs:
    """Starts, watches and ends child runs, one for each key.

    Args:
        project: the project's folder; children run there.
        store: the store's folder.
        environment: in which names resolve.
        logs: the folder for what children print.
        command: the words before the subcommand.
    """

    def __init__(
        self,
        *,
        project: Path,
        store: Path,
        environment: str,
        logs: Path,
        command: Sequence[str] = (sys.executable, "-m", "trimtab"),
    ) -> None:
        self._project = project
        self._options = ("--json", "--dir", str(store), "--env", environment)
        self._logs = logs
        self._command = tuple(command)
        self._children: dict[str, _Child] = {}
        self.closing = False

    def run(self, key: str, asset: str, *, actor: str, manifest: str = "") -> None:
        """Start ``trimtab run ASSET`` for ``key``, unless this process has started it already.

        Args:
            key: what the run is for.
            asset: what is made anew.
            actor: who runs it, for the records.
            manifest: the digest of the code that runs; by default what stands in the project's folder.
        """
        if key not in self._children:
            code = ("--manifest", manifest) if manifest else ()
            argv = [*self._command, "run", asset, "--actor", actor, *code, *self._options]
            self._children[key] = _Child(argv, self._project, self._logs, key)

    def poll(self, key: str, *, wait: bool, patience_s: float = PATIENCE_S) -> Outcome | None:
        """Return how the run of ``key`` ended, or None while it goes on.

        Args:
            key: that ``run`` was called with.
            wait: wait for its end.
            patience_s: the longest (real) time that a run may take.

        Raises:
            Unavailable: the run took longer and was ended, or the server is ending.
        """
        child = self._children.get(key)
        if child is None or self.closing:
            raise Unavailable("the server is ending", fix="ask again when it is up; the run is carried on")
        left = patience_s - (monotonic() - child.started)
        try:
            child.process.wait(max(0.0, left) if wait else 0.0)
        except subprocess.TimeoutExpired as error:
            if left > 0 and not wait:
                return None
            self._end(key)
            raise Unavailable(
                f"the run of {key} took longer than {patience_s:g} s and was ended",
                where=str(child.err),
                fix="look at its log; run the asset by hand",
            ) from error
        if self.closing:
            # It was this process that ended the run, so how it ended says nothing about it.
            raise Unavailable("the server is ending", fix="ask again when it is up; the run is carried on")
        return child.outcome()

    def forget(self, key: str) -> None:
        """Let go of a run whose outcome is recorded."""
        self._children.pop(key, None)

    def close(self) -> None:
        """End every run that still goes on; what its steps have finished is kept."""
        self.closing = True
        for key in list(self._children):
            self._end(key)

    def _end(self, key: str) -> None:
        child = self._children.pop(key)
        if child.process.poll() is not None:
            return
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(child.process.pid, number)
                child.process.wait(patience)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue
