"""The main job on real data: a year of New York flights through the whole life of a model, on simulated time.

``python demo.py --out DIR`` lands January to March, runs the pipeline, starts ``trimtab up``, deploys, and then
replays April to December day by day through the HTTP endpoint. It can be killed at any moment: the same command
goes on where the store stands, and ends with the same report.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from client import Client
from landing import LAST, land, lands_at
from replay import Replay, ReplayRequest, whole_year
from report import make_report, show
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trimtab.app import open_app
from trimtab.serve.child import command
from trimtab.store import facts, live

HERE = Path(__file__).resolve().parent
STORE = HERE / ".trimtab"
FIRST_DAY = date(2013, 4, 1)
TRIMTAB = [sys.executable, "-m", "trimtab"]
SENDERS = 2
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class Timer:
    """Seconds of computing over all attempts, kept in the store's folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.before = json.loads(path.read_text())["seconds"] if path.exists() else 0.0
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Return the seconds so far, and keep them."""
        total: float = self.before + time.monotonic() - self._start
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({"seconds": total}))
        return total


class Up:
    """A running ``trimtab up``, started again when it has ended."""

    def __init__(self, port: int) -> None:
        self.port = port or _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                STORE.mkdir(exist_ok=True)
                with (STORE / "up.log").open("ab") as log:
                    words = command([*TRIMTAB, "up", "--port", str(self.port), "--clock", "simulated"])
                    self._process = subprocess.Popen(words, cwd=HERE, stdout=log, stderr=log)
            token = STORE / "token"
            with contextlib.suppress(RuntimeError, OSError):
                if token.exists() and self.client(patience=1.0).call("GET", "/health")[0] == 200:
                    return
            time.sleep(0.1)
        raise SystemExit(f"trimtab up is not ready; see {STORE / 'up.log'}")

    def client(self, patience: float = 120.0) -> Client:
        """Return a client with the store's token."""
        return Client(self.port, (STORE / "token").read_text().strip(), patience=patience)

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def trimtab(*words: str) -> None:
    """Run a command of the product with its own output."""
    console.rule(f"trimtab {' '.join(words)}", align="left")
    # Tied to this process: a demo that is killed leaves nothing running behind it.
    done = subprocess.run(command([*TRIMTAB, *words]), cwd=HERE, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def serving() -> str:
    """Return the version that the endpoint serves already, or an empty string: then the demo has just begun.

    From then on training is the automation's matter: a run by hand would add a model that no alarm asked for.
    """
    if not (STORE / "ledger.db").exists():
        return ""
    with open_app(HERE) as app:
        endpoint = live.find_endpoint(app.store.ledger, "delay_api")
        served = [live.get_deployment(app.store.ledger, one) for one in endpoint.traffic] if endpoint else []
        return ", ".join(facts.get_version(app.store.ledger, one.version_id).ref for one in served)


def changed_code() -> list[str]:
    """Return the steps whose code, params or options differ from those that ran."""
    words = [*TRIMTAB, "plan", "--json"]
    plan = json.loads(subprocess.run(words, cwd=HERE, check=True, capture_output=True, text=True).stdout)
    ours = ("code", "params", "spec", "seed")
    return [one["id"] for one in plan["stages"] if any(name.partition(".")[0] in ours for name in one["changed"])]


def tick_of(day: date) -> datetime:
    """Return the event time at which a replayed day is over: midnight in New York at its end."""
    return lands_at(day - timedelta(days=1))


def replay(up: Up, replayed: Replay, until: date) -> dict[str, int]:
    """Replay every day that the store has not settled yet and return how much was done."""
    client = up.client()
    now = datetime.fromisoformat(client.call("GET", "/clock")[1]["now"])
    if now > tick_of(FIRST_DAY):
        # A tick that was cut short goes on; one that was done does nothing.
        _post(client, "/clock", {"to": now.isoformat()})
    days = [FIRST_DAY + timedelta(days=step) for step in range((until - FIRST_DAY).days + 1)]
    todo = [day for day in days if tick_of(day) > now]
    done = {"days": len(days), "settled before": len(days) - len(todo), "requests": 0, "alarms": 0, "firings": 0}
    columns = (TextColumn("replay {task.fields[day]}"), BarColumn(), MofNCompleteColumn(), TextColumn("days"),
               TextColumn("{task.fields[note]}"), TimeElapsedColumn())  # fmt: skip
    clients = [up.client() for _ in range(SENDERS)]
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(SENDERS) as senders:
        bar = progress.add_task("", total=len(days), completed=len(days) - len(todo), day="", note="")
        for day in todo:
            requests = replayed.requests_of(day)
            for results in senders.map(_send, clients, [requests[part::SENDERS] for part in range(SENDERS)]):
                done["requests"] += results
            land(HERE / "landing", day - timedelta(days=1))
            labels = replayed.labels_of(day - timedelta(days=1)) if day > FIRST_DAY else []
            if labels:
                body = [
                    {"prediction_id": one.prediction_id, "label": one.label, "at": one.at.isoformat()} for one in labels
                ]
                _post(client, "/endpoints/delay_api/labels", {"labels": body})
            settled = _post(client, "/clock", {"to": tick_of(day).isoformat()})
            done["alarms"] += settled["alarms"]
            done["firings"] += settled["firings"]
            note = f"{done['requests']} requests, {done['alarms']} alarms, {done['firings']} retrainings"
            progress.update(bar, advance=1, day=day.isoformat(), note=note)
    return done


def _send(client: Client, requests: list[ReplayRequest]) -> int:
    for request in requests:
        status, answer = client.call(
            "POST",
            "/endpoints/delay_api/invocations",
            {"rows": list(request.rows)},
            Trimtab_Request_Id=request.request_id,
            Trimtab_Time=request.at.isoformat(),
        )
        if status != 200:
            raise SystemExit(f"request {request.request_id} was refused with {status}: {answer}")
    return len(requests)


def _post(client: Client, path: str, body: Any) -> Any:
    status, answer = client.call("POST", path, body)
    if status != 200:
        raise SystemExit(f"POST {path} was refused with {status}: {answer}")
    return answer


@contextlib.contextmanager
def running(port: int) -> Iterator[Up]:
    """Start ``trimtab up`` and end it afterwards."""
    up = Up(port)
    try:
        up.start()
        yield up
    finally:
        up.stop()


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where the report goes")
    parser.add_argument("--until", type=date.fromisoformat, default=LAST, help="the last day that is replayed")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    console.rule("1. January to March land", align="left")
    fresh = land(HERE / "landing", FIRST_DAY - timedelta(days=1))
    console.print(f"{len(fresh)} new files below examples/flights/landing (public domain, CC0)")
    timer = Timer(STORE / "demo.json")
    before = serving()
    if before:
        console.print(f"reused: the pipeline has run and delay_api serves {before}; `make clean` would start over")
        changed = changed_code()
        if changed:
            console.print(f"changed since then, and used from the next retraining on: {', '.join(changed)}")
    else:
        trimtab("run")
    replayed = Replay(whole_year())
    with running(options.port) as up:
        if not before:
            trimtab("apply")
        console.rule(f"2. April 1 to {options.until:%B} {options.until.day} are replayed over HTTP", align="left")
        console.print(
            "one flight in six (154 a day) in 47 requests a day, each an airport's hour, two hours ahead; "
            "labels and files arrive a day later"
        )
        done = replay(up, replayed, options.until)
        if done["settled before"]:
            console.print(f"{done['settled before']} of {done['days']} days had been settled before and were reused")
        compute = timer.seconds()
        report = make_report(HERE, options.out, replayed, options.until, compute=compute, started=started)
    show(report, console)
    console.print(f"\nreport: {options.out.resolve() / 'report.html'}  and report.json beside it")
    example = report["lineage_of_one_prediction"][0]["id"] if report["lineage_of_one_prediction"] else "delays"
    console.print("look further:  cd examples/flights, then for instance")
    for words in (f"lineage {example}", "show delay_api", "sql 'select * from delay_api.calls limit 5'", "why delays"):
        console.print(f"  ../../.venv/bin/trimtab {words}", markup=False)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        sys.exit(130)
