"""``trimtab why``, ``lineage``, ``show``: what the records say about one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from trimtab.app import App, open_app
from trimtab.cli.output import Dir, Env, Json, console, emit, table
from trimtab.core.errors import TrimtabError
from trimtab.monitor.history import history
from trimtab.monitor.readiness import readiness
from trimtab.pipeline.compare import compare
from trimtab.pipeline.explain import show as show_of
from trimtab.pipeline.explain import why as why_of
from trimtab.pipeline.lineage import lineage as lineage_of
from trimtab.pipeline.plan import Plan, make_plan
from trimtab.pipeline.reproduce import reproduce as reproduce_of
from trimtab.store import live
from trimtab.store.ledger import Reader

Reference = Annotated[str, typer.Argument(metavar="REF", help="name, name@alias, name:3, an id, or a prediction id.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @app.command("why")
    def why(ref: Reference, as_json: Json = False, env: Env = "dev", store: Dir = None) -> int:
        """Explain why a step ran, and whether it would be reused or run now: which field of its key differs."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            plan, problem = _plan(opened)
            answer = why_of(opened.store, ref, plan=plan)
            answer["unplanned"] = problem
        emit(answer, as_json, lambda: _why(answer))
        return 0

    @app.command("lineage")
    def lineage(ref: Reference, as_json: Json = False, env: Env = "dev", store: Dir = None) -> int:
        """Print what something was made from and what was made from it, down to the source rows' versions."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            answer = lineage_of(opened.store, ref)
        emit(answer, as_json, lambda: _lineage(answer))
        return 0

    @app.command("show")
    def show(ref: Reference, as_json: Json = False, env: Env = "dev", store: Dir = None) -> int:
        """Show one asset, version, run, endpoint or verdict with all that is recorded about it."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            answer = show_of(opened.store, ref)
            if answer["kind"] == "endpoint":
                answer |= _watched(opened.store.ledger, answer["endpoint"]["id"], ref)
        emit(answer, as_json, lambda: _tree(answer))
        return 0

    @app.command("reproduce")
    def reproduce(
        ref: Annotated[str, typer.Argument(metavar="RUN", help="A run, or a version: the run that made it.")],
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Do a step again from its recorded code, data, params and seed; 1 when something else comes of it."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            answer = reproduce_of(opened.store, opened.project, ref)
        emit(answer, as_json, lambda: _reproduced(answer))
        return 0 if answer["identical"] else 1

    @app.command("diff")
    def diff(
        left: Annotated[str, typer.Argument(metavar="RUN", help="A run, or a version that it made.")],
        right: Annotated[str, typer.Argument(metavar="RUN")],
        as_json: Json = False,
        env: Env = "dev",
        store: Dir = None,
    ) -> int:
        """Compare two runs: code, data, params, runtime, metrics and outputs."""
        with open_app(Path.cwd(), environment=env, store=store) as opened:
            answer = compare(opened.store.ledger, left, right)
        emit(answer, as_json, lambda: _differences(answer))
        return 0


def _watched(reader: Reader, endpoint_id: str, name: str) -> dict[str, Any]:
    """Return how an endpoint fares: its realised performance by month, its alarms, and the rules it lacks."""
    told: dict[str, Any] = msgspec.to_builtins(
        {
            "months": [period.as_data() for period in history(reader, endpoint_id)],
            "alarms": live.list_alarms(reader, endpoint_id),
            "readiness": next((one for one in readiness(reader) if one.endpoint == name), None),
        }
    )
    return told


def _plan(opened: App) -> tuple[Plan | None, str]:
    """Return what would run now, or why that cannot be said."""
    try:
        return make_plan(opened.project, opened.manifest(), opened.store), ""
    except TrimtabError as error:
        return None, str(error)


def _why(answer: Mapping[str, Any]) -> None:
    run, before = answer["run"], answer["before"]
    print(f"{run['kind']}:{run['name']} of {run['started_at']} ({run['state']}, {run['id']})")
    made = answer["subject"]["version"]
    if made:
        print(f"made {made}")
    print(f"it ran because: {answer['reason']}")
    if answer["changed"]:
        rows = [
            (item["field"], item["how"], _short(item["before"]), _short(item["after"])) for item in answer["changed"]
        ]
        table(("field of the key", "how", f"before ({before['started_at']})" if before else "before", "after"), rows)
    if answer["next"]:
        table(("now", "action", "why"), [(item["stage"], item["action"], item["reason"]) for item in answer["next"]])
    elif answer["unplanned"]:
        print(f"what it would do now cannot be said: {answer['unplanned']}")


def _reproduced(answer: Mapping[str, Any]) -> None:
    how = "read in full: its files came from outside" if answer["verified"] else "done again"
    verdict = "identical" if answer["identical"] else "NOT identical"
    print(f"{answer['op']}:{answer['asset']} of {answer['run']} was {how} in {answer['seconds']:.2f} s: {verdict}")
    table(
        ("version", "original", "again", "identical"),
        [(one["ref"], one["original"], one["again"], one["identical"]) for one in answer["versions"]],
    )
    for title, key in (("metric", "metrics"), ("runtime", "runtime_differences")):
        rows = [(name, one["original"], one["again"], one.get("delta")) for name, one in answer[key].items()]
        if rows:
            table((title, "original", "again", "delta"), rows)
    for one in answer["verdicts"]:
        print(f"{one['check']}: {one['original'] or 'no verdict'} before, {one['again']} now")


def _differences(answer: Mapping[str, Any]) -> None:
    left, right = answer["left"], answer["right"]
    rows = [
        (f"{part}.{name}", _short(pair[0], 60), _short(pair[1], 60))
        for part in ("code", "data", "params", "runtime", "metrics", "outputs")
        for name, pair in answer[part].items()
    ]
    if rows:
        table(("what", f"{left['name']} {left['started_at']}", f"{right['name']} {right['started_at']}"), rows)
    else:
        print("the two runs do not differ")


def _lineage(answer: Mapping[str, Any]) -> None:
    """Print both directions as tables by distance: a thing may have several parents, so there is no one tree."""
    subject = answer["subject"]
    print(f"{subject.get('kind', '')} {subject.get('version') or subject.get('id')}")
    for title, key in (("made from", "upstream"), ("went into", "downstream")):
        items: Sequence[Mapping[str, Any]] = answer[key]
        if not items:
            print(f"\n{title}: nothing")
            continue
        rows = [(item["depth"], item["kind"], item["version"], item.get("role", "")) for item in _folded(items)]
        table(("distance", "kind", "version", "as"), rows, title=title)


def _folded(items: Sequence[Mapping[str, Any]], most: int = 3) -> list[Mapping[str, Any]]:
    """Return items with the files of one source told in a line each for the first and last, where there are many."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for item in items:
        key = (str(item.get("run_id")), int(item["depth"])) if item["kind"] == "batch" else (str(item["id"]), -1)
        groups.setdefault(key, []).append(item)
    found: list[Mapping[str, Any]] = []
    for group in groups.values():
        if len(group) <= most or group[0]["kind"] != "batch":
            found += group
        else:
            told = f"{group[0]['version']} to {group[-1]['version']}"
            found.append({**group[0], "version": told, "role": f"{len(group)} batches"})
    return sorted(found, key=lambda item: int(item["depth"]))


def _tree(data: Any, depth: int = 0) -> None:
    out = console() if depth == 0 else None
    if isinstance(data, Mapping):
        for key, value in data.items():
            if _is_rows(value):
                columns = list(value[0])
                table(columns, [[_short(row.get(name)) for name in columns] for row in value], title=str(key))
            elif isinstance(value, Mapping | list) and value:
                print(f"{'  ' * depth}{key}:")
                _tree(value, depth + 1)
            else:
                print(f"{'  ' * depth}{key}: {_short(value)}")
    elif isinstance(data, list):
        for value in data:
            if isinstance(value, Mapping | list):
                _tree(value, depth + 1)
            else:
                print(f"{'  ' * depth}- {_short(value)}")
    elif out is not None:
        print(data)


def _is_rows(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, Mapping) and row.keys() == value[0].keys() for row in value)
        and len(value[0]) <= 8
    )


def _short(value: Any, limit: int = 100) -> Any:
    """Return a value for a terminal: long text is shortened here and whole in ``--json``."""
    if isinstance(value, str) and len(value) > limit:
        return value[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return value
