"""``trimtab plan`` and ``trimtab run``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from trimtab.app import App, open_app
from trimtab.cli.output import Dir, Env, Json, emit, table
from trimtab.cli.progress import watcher
from trimtab.cli.script import is_script, run_script
from trimtab.cli.server import project_here
from trimtab.core.errors import Refused, WrongUse
from trimtab.pipeline.execute import Report, execute
from trimtab.pipeline.manifest import load_manifest
from trimtab.pipeline.plan import Plan, make_plan
from trimtab.serve.apply import LiveStage, plan_live

Targets = Annotated[
    list[str] | None, typer.Argument(metavar="[ASSET]...", help="Only these and what they are made from.")
]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="ASSET.NAME=VALUE", help="Another value for a param (JSON or text)."),
]
Override = Annotated[
    str,
    typer.Option("--override", metavar="REASON", help="Train on a stale or refused input; recorded."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @app.command("plan")
    def plan(
        targets: Targets = None,
        params: Params = None,
        override: Override = "",
        check: Annotated[bool, typer.Option("--check", help="Exit with 1 if something would run or change.")] = False,
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Print what would run, what is reused, and why; and what `apply` would change."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            made, live = _plan(opened, targets or (), params or (), override)
        data = {**msgspec.to_builtins(made), "live": msgspec.to_builtins(live)}
        emit(data, as_json, lambda: _show_plan(made, live))
        if check and any(stage.action != "reuse" for stage in made.stages):
            raise Refused("the plan is not empty", fix="trimtab run")
        changes = [stage.id for stage in live if stage.action not in ("keep", "hold")]
        if check and changes:
            raise Refused(f"what is live differs from what is declared: {', '.join(changes)}", fix="trimtab apply")
        return 0

    @app.command("run")
    def run(
        targets: Targets = None,
        params: Params = None,
        override: Override = "",
        jobs: Annotated[int, typer.Option("--jobs", "-j", help="Steps at once; by default as configured.")] = 0,
        actor: Annotated[str, typer.Option("--actor", help="Who runs it, for the records.")] = "",
        applied: Annotated[
            str,
            typer.Option("--manifest", metavar="DIGEST", help="Run the code that a plan, a run or `apply` recorded."),
        ] = "",
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Make the plan and execute exactly that; what has not changed is reused.

        `trimtab run SCRIPT.py [-- ARGUMENT...]` runs a script as it is, and records what it fits and logs.
        """
        if is_script(targets or ()):
            return _run_script(targets or [], as_json=as_json, env=env, store=store, actor=actor)
        with open_app(Path.cwd(), environment=env, store=store, actor=actor) as opened:
            made, _ = _plan(opened, targets or (), params or (), override, applied)
            with watcher(made, quiet=as_json) as on_event:
                report = execute(
                    made,
                    project=opened.project,
                    store=opened.store,
                    on_event=on_event,
                    jobs=jobs,
                    actor=actor,
                )
        emit(report, as_json, lambda: _show_report(report))
        return report.exit_code


def _run_script(words: Sequence[str], *, as_json: bool, env: str, store: Path | None, actor: str) -> int:
    project = project_here()
    told = run_script(
        words, root=store or (project.store if project else Path.cwd() / ".trimtab"), environment=env, by=actor
    )
    text = f"{told['run']} is {told['state']}; it holds {len(told['children'])} runs of MLflow's client"
    emit(told, as_json, lambda: print(text))
    return int(told["code"])


def _plan(
    opened: App, targets: Sequence[str], params: Sequence[str], override: str, applied: str = ""
) -> tuple[Plan, list[LiveStage]]:
    manifest = load_manifest(opened.store, applied) if applied else opened.manifest()
    made = make_plan(
        opened.project,
        manifest,
        opened.store,
        targets=tuple(targets),
        params=parse_params(params),
        overrides={"reason": override} if override else {},
    )
    return made, plan_live(opened.store, manifest, opened.project.live(opened.environment))


def parse_params(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return ``asset -> param -> value`` from words such as ``delays.depth=8``; values are JSON, else text.

    Raises:
        WrongUse: a word has another form.
    """
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        target, equals, text = word.partition("=")
        asset, dot, name = target.rpartition(".")
        if not equals or not dot or not asset or not name:
            raise WrongUse(f"--param {word!r} has another form", fix="write --param ASSET.NAME=VALUE")
        try:
            value = msgspec.json.decode(text.encode())
        except msgspec.DecodeError:
            value = text
        found.setdefault(asset, {})[name] = value
    return found


def _show_plan(made: Plan, live: Sequence[LiveStage]) -> None:
    rows = [(stage.id, stage.action, stage.version or "", stage.reason) for stage in made.stages]
    table(("stage", "action", "version", "why"), rows, title=f"plan for {made.environment}")
    counts = {action: sum(stage.action == action for stage in made.stages) for action in ("run", "reuse")}
    print(f"{counts['run']} to run, {counts['reuse']} reused")
    if live:
        table(("live", "action", "why"), [(stage.id, stage.action, stage.reason) for stage in live])


def _show_report(report: Report) -> None:
    rows = []
    for stage in report.stages:
        note = (
            stage.error.get("message", "")
            if stage.error
            else "; ".join(
                f"{verdict.check}: {verdict.status}" for verdict in stage.verdicts if verdict.status != "pass"
            )
        )
        rows.append((stage.id, stage.state, stage.version, f"{stage.seconds:.2f}", note))
    table(("stage", "state", "version", "seconds", "note"), rows)
    for stage in report.stages:
        if stage.error:
            where = f"{stage.error['where']}: " if stage.error.get("where") else ""
            print(f"{stage.id}: {where}{stage.error.get('message', '')}")
            if stage.error.get("fix"):
                print(f"  fix: {stage.error['fix']}")
    made = sum(stage.state == "done" for stage in report.stages)
    reused = sum(stage.state == "reused" for stage in report.stages)
    print(f"{made} made, {reused} reused" + ("" if report.ok else "; see above for what did not work"))
