"""``trimtab apply`` and ``trimtab rollback``: what is live."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.app import open_app
from trimtab.cli.output import Dir, Env, Json, emit, table
from trimtab.serve.apply import apply_live, roll_back, roll_out
from trimtab.serve.rollout import resume


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    _apply(app)
    _rollout(app)
    _rollback(app)


def _apply(app: typer.Typer) -> None:
    @app.command("apply")
    def apply(
        override: Annotated[
            str, typer.Option("--override", metavar="REASON", help="Deploy without a passed gate; recorded.")
        ] = "",
        wait: Annotated[
            bool, typer.Option(help="Wait until new deployments are ready, when `trimtab up` runs.")
        ] = True,
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Make what is live equal what is declared: endpoints, deployments, automations."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            answer = apply_live(
                opened.store,
                opened.manifest(),
                opened.project.live(env),
                override=override,
                wait=wait,
                say=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
            )
        emit(answer, as_json, lambda: _show(answer))
        return 0


def _rollout(app: typer.Typer) -> None:
    @app.command("rollout")
    def rollout(
        name: Annotated[str, typer.Argument(metavar="ENDPOINT")],
        ref: Annotated[
            str, typer.Argument(metavar="[REF]", help="The version; without one, go on after a pause.")
        ] = "",
        override: Annotated[
            str, typer.Option("--override", metavar="REASON", help="Roll out without a passed gate; recorded.")
        ] = "",
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Roll out a version by the endpoint's plan, or go on with a rollout that is paused."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            if ref:
                answer: dict[str, Any] = {
                    "endpoint": name,
                    "rollout": roll_out(opened.store, name, ref, override=override),
                }
                answer["message"] = f"{name}: the rollout of {ref} has begun; see trimtab show {name}"
            else:
                answer = resume(opened.store, name, opened.store.now())
                answer.setdefault("message", str(answer.get("reason", "")))
        emit(answer, as_json, lambda: print(answer["message"]))
        return 0


def _rollback(app: typer.Typer) -> None:
    @app.command("rollback")
    def rollback(
        name: Annotated[str, typer.Argument(metavar="ENDPOINT")],
        reason: Annotated[str, typer.Option(help="Why, for the records.")] = "by hand",
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Return all traffic of an endpoint to its former deployment."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            answer = roll_back(opened.store, name, reason=reason)
        emit(answer, as_json, lambda: print(answer["message"]))
        return 0


def _show(answer: dict[str, Any]) -> None:
    rows = [(stage["id"], stage["action"], stage["reason"]) for stage in answer["stages"]]
    table(("live", "action", "what"), rows)
    for note in answer.get("notes", []):
        print(note)
