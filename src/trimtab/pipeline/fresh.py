"""Which inputs a model must refuse: those whose gate failed, and those older than their limit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from trimtab.core.clock import parse_duration, parse_time
from trimtab.core.declare import Declaration
from trimtab.core.nouns import Version
from trimtab.pipeline.steps import Steps
from trimtab.store import facts


def stale_inputs(steps: Steps, node: Declaration, inputs: Mapping[str, Version]) -> list[str]:
    """Return a sentence for each input of ``node`` that it must not be trained on, at the store's time.

    An input is refused when a newer version of it failed its gate, or when the newest row of the version
    (``meta.time_max``; without it, the version itself) is older than the input's ``fresh`` allows.
    """
    found: list[str] = []
    for name, version in inputs.items():
        newest = facts.newest(steps.reader, name)
        if newest is not None and newest.state == "refused" and newest.number > version.number:
            found.append(f"{newest.ref} failed its gate, so {version.ref} is not the newest data")
        fresh = steps.graph.nodes[name].spec.get("fresh")
        if fresh:
            age = steps.now - newest_row(version)
            if age > parse_duration(fresh):
                found.append(f"the newest row of {version.ref} is {age} old, more than fresh={fresh!r}")
    return found


def newest_row(version: Version) -> datetime:
    """Return the event time of a version's newest row; without one, when the version was made."""
    told = version.meta.get("time_max")
    return parse_time(told) if isinstance(told, str) and told else version.created_at
