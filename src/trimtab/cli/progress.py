"""Progress of a run on a terminal: one bar for the plan and a line for each step that is running."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trimtab.core.optional import need
from trimtab.pipeline.execute import Event
from trimtab.pipeline.plan import Plan

Watch = Callable[[Event], None]


@contextmanager
def watcher(plan: Plan, *, quiet: bool) -> Iterator[Watch]:
    """Yield a callback that shows events on standard error; a terminal gets bars, a pipe gets lines."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _bars(plan) as watch:
            yield watch
    else:
        yield _line


def _line(event: Event) -> None:
    if event.kind == "started":
        print(f"  {event.stage} ...", file=sys.stderr, flush=True)
    elif event.kind == "finished":
        print(f"  {event.stage} {event.text}", file=sys.stderr, flush=True)


@contextmanager
def _bars(plan: Plan) -> Iterator[Watch]:
    rich = need("rich.progress")
    console = need("rich.console").Console(stderr=True)
    columns = (
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=30),
        rich.TextColumn("{task.fields[note]}"),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=console, transient=True) as progress:
        whole = progress.add_task("plan", total=len(plan.stages), note="")
        running: dict[str, int] = {}

        def watch(event: Event) -> None:
            if event.kind == "started":
                running[event.stage] = progress.add_task(event.stage, total=None, note="")
            elif event.kind == "log" and event.stage in running:
                progress.update(running[event.stage], note=event.text[-60:])
            elif event.kind == "finished":
                if event.stage in running:
                    progress.remove_task(running.pop(event.stage))
                progress.advance(whole)

        yield watch
