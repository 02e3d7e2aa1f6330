"""What differs between two runs: code, data, params, runtime and metrics (R30)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.core.errors import NotFound
from trimtab.core.nouns import Data, Run
from trimtab.store import facts
from trimtab.store.ledger import Reader


def compare(reader: Reader, left: str, right: str) -> Data:
    """Return the difference of two runs, given by run id or by a reference to a version that they made.

    Returns:
        ``{"left", "right", "same", "code", "data", "params", "runtime", "metrics", "outputs"}``; each part
        maps a name to ``[left value, right value]`` and holds only what differs.

    Raises:
        NotFound: one of them does not exist.
    """
    first, second = run_of(reader, left), run_of(reader, right)
    parts = {
        "code": _differ(first.key_fields.get("code", {}), second.key_fields.get("code", {})),
        "data": _differ(_inputs(reader, first), _inputs(reader, second)),
        "params": _differ(first.params, second.params),
        "runtime": _differ(first.runtime, second.runtime),
        "metrics": _differ(facts.metrics_of(reader, first.id), facts.metrics_of(reader, second.id)),
        "outputs": _differ(_outputs(reader, first), _outputs(reader, second)),
    }
    return {
        "left": _head(first),
        "right": _head(second),
        "same": not any(parts.values()),
        **parts,
    }


def run_of(reader: Reader, ref: str) -> Run:
    """Return the run that an id names, or that made the version that a reference means.

    Raises:
        NotFound: there is none.
    """
    if ref.startswith("run_"):
        found = facts.get_run(reader, ref)
    else:
        found = facts.get_run(reader, facts.resolve(reader, ref).run_id)
    if found is None:
        raise NotFound(f"no run {ref!r}", fix="trimtab runs lists them")
    return found


def _head(run: Run) -> Data:
    return {
        "id": run.id,
        "kind": run.kind,
        "name": run.name,
        "state": run.state,
        "started_at": run.started_at.isoformat(),
        "commit": run.code.get("commit", ""),
    }


def _inputs(reader: Reader, run: Run) -> dict[str, str]:
    return {role: f"{version.ref} {version.digest}" for version, role in facts.used_by(reader, run.id)}


def _outputs(reader: Reader, run: Run) -> dict[str, str]:
    return {version.asset: version.digest for version in facts.made_by(reader, run.id)}


def _differ(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = sorted({*left, *right})
    return {name: [left.get(name), right.get(name)] for name in names if left.get(name) != right.get(name)}
