"""``trimtab up``: the supervisor of the control process, the router and the workers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from trimtab.api.mlflow.pages import find_pages
from trimtab.app import start_clock
from trimtab.cli.output import Dir, Env
from trimtab.core.clock import wall_seconds
from trimtab.core.errors import Conflict, NotFound, Unavailable, WrongUse
from trimtab.pipeline.project import Project, find_project
from trimtab.serve.collect import collect
from trimtab.serve.supervisor import Process, Supervisor
from trimtab.serve.wire import fetch
from trimtab.store.clock import Mode
from trimtab.store.store import Store, open_store

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_COPIES_S = 30 * 86_400.0  # copies of objects that nobody asked for since go


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @app.command("up")
    def up(
        host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8571,
        store: Dir = None,
        env: Env = "dev",
        clock: Annotated[
            Literal["real", "simulated"] | None,
            typer.Option(help="Event time; simulated time stands until POST /clock moves it."),
        ] = None,
        auth: Annotated[
            Literal["token", "none"], typer.Option(help="Who may call; none is for loopback only.")
        ] = "token",
        ledger: Annotated[
            str, typer.Option(metavar="URL", help="postgresql://... holds the ledger, not a file of the store.")
        ] = "",
        artifacts: Annotated[
            str,
            typer.Option(metavar="DIR|URL", help="Holds blobs and tables: a folder, s3://..., az://... or gs://..."),
        ] = "",
        mlflow_ui: Annotated[
            bool, typer.Option("--mlflow-ui", help="Serve the web pages of the installed mlflow package at / as well.")
        ] = False,
    ) -> int:
        """Serve this project's endpoints and records until Ctrl-C."""
        if mlflow_ui:
            find_pages()
        _refuse_unsafe(host, clock, auth)
        project = project_here()
        root = store or (project.store if project else Path.cwd() / ".trimtab")
        if project:
            project.check_environment(env)
        at, options = _artifacts(project, artifacts)
        opened = open_store(
            root,
            environment=env,
            actor="up",
            ledger=ledger or (project.ledger if project else ""),
            artifacts=at,
            options=options,
        )
        with contextlib.closing(opened), _only_one(opened):
            opened.trim_cache(wall_seconds() - _COPIES_S)
            mode = _set_clock(opened, project, clock)
            settings = {"host": host, "port": port, "environment": env, "clock": mode, "pages": mlflow_ui}
            _supervise(opened, project, settings, auth)
        return 0


def _artifacts(project: Project | None, wanted: str) -> tuple[str, dict[str, str]]:
    """Return where blobs and tables lie and the options for it; the project's options are for the project's place."""
    if project is None or (wanted and wanted.rstrip("/") != project.artifacts.rstrip("/")):
        return wanted, {}
    return project.artifacts, project.options


def _refuse_unsafe(host: str, clock: str | None, auth: str) -> None:
    if host in LOOPBACK:
        return
    if auth == "none":
        raise WrongUse(f"--auth none is refused on {host}", fix="use --auth token, or --host 127.0.0.1")
    if clock == "simulated":
        raise WrongUse(f"--clock simulated is refused on {host}", fix="use --host 127.0.0.1")


def project_here() -> Project | None:
    """Return the project of the current folder, if it lies in one."""
    try:
        return find_project(Path.cwd())
    except NotFound:
        return None


def _set_clock(store: Store, project: Project | None, wanted: Mode | None) -> Mode:
    collect(store)  # what was called and not yet taken in counts too
    if project is not None and wanted != "real":
        start_clock(store, project)
    have = store.clock_mode()
    if project is not None and project.clock and have == "real" and wanted is None:
        text = "this store lives on real time; `clock` in trimtab.yaml is for a new store"
        print(f"warning: {project.where('clock')}: {text}", file=sys.stderr, flush=True)
    if wanted is None or (wanted == have and store.clock_is_set()):
        return have
    if wanted == "real" and have == "simulated":
        raise WrongUse(
            f"this store lives on simulated time (it is {store.now().isoformat()} there)",
            fix="use another --dir for real time",
        )
    store.set_clock(wanted, store.now())
    if wanted == "simulated":
        text = f"this store lives on simulated time for good; it is {store.now().isoformat()} until POST /clock"
        print(f"warning: {text}", file=sys.stderr, flush=True)
    return wanted


@contextlib.contextmanager
def _only_one(store: Store) -> Iterator[None]:
    path = store.home.run / "up.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise Conflict(
                f"`trimtab up` already runs on {store.home.root} (process {lock.read().strip() or '?'})",
                fix="stop it, or use another --dir",
            ) from error
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def token_of(store: Store) -> str:
    """Return the store's token, made on first use and readable by its owner only."""
    path = store.home.token
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(32))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_text().strip()


def _supervise(store: Store, project: Project | None, chosen: dict[str, Any], auth: str) -> None:
    host, port = chosen["host"], chosen["port"]
    sockets = store.home.sockets
    control = sockets / "control.sock"
    settings = {
        **chosen,
        "root": str(store.home.root),
        "project": str(project.root) if project else "",
        "control": str(control),
        "token": token_of(store) if auth == "token" else "",
    }
    config = store.home.run / "up.json"
    with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(msgspec.json.encode(settings))
    python = [sys.executable, "-m"]
    supervisor = Supervisor(
        store,
        [
            Process(name="control", argv=[*python, "trimtab.api", str(config)]),
            Process(name="router", argv=[*python, "trimtab.serve.router", str(config)]),
        ],
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    address = f"http://{'[::1]' if host == '::1' else host}:{port}"
    threading.Thread(target=_announce, args=(address, store, auth, stop), daemon=True).start()
    supervisor.run(stop)
    shutil.rmtree(sockets, ignore_errors=True)


def _announce(address: str, store: Store, auth: str, stop: threading.Event) -> None:
    for _ in range(600):
        if stop.wait(0.05):
            return
        with contextlib.suppress(Unavailable):
            if fetch(f"{address}/health", timeout=1.0).status == 200:
                break
    else:
        print(f"not ready after 30 s; see {store.home.logs}", file=sys.stderr, flush=True)
        return
    clock = f"; simulated time {store.now().isoformat()}" if store.clock_mode() == "simulated" else ""
    print(f"trimtab is up at {address}{clock}", flush=True)
    if auth == "token":
        print(f"token in {store.home.token}", flush=True)
