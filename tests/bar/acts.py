"""Writes of every kind, each of which leaves in its audit leaf what it wrote, and the examination of a whole ledger.

A leaf tells the digest of the rows of its request as they were when it was done. So a ledger is whole when every row
is told by a leaf, and the last leaf that tells of a row tells what it is: no request is there by halves.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from trimtab.core.digest import digest_bytes
from trimtab.core.ids import new_id
from trimtab.core.nouns import Run, Verdict, Version
from trimtab.store import calls, facts, leases, live, tracking
from trimtab.store.intake import Offset
from trimtab.store.ledger import Ledger, Reader, Tx
from trimtab.store.points import Point

START = datetime(2013, 1, 1, tzinfo=UTC)
MS = 1_356_998_400_000
Trace = tuple[str, str, str]
Act = Callable[[Tx, str], list[Trace]]


def _published(tx: Tx, name: str) -> tuple[Version, list[Trace]]:
    asset = facts.put_asset(tx, name=f"a-{name}", kind="table", spec={"n": name}, at=START)
    run = Run(id=new_id("run"), kind="make", name=name, state="running", started_at=START)
    facts.start_run(tx, run)
    version = facts.add_version(
        tx, asset, digest=f"sha256:{name}", run_id=run.id, state="candidate", location={"at": name},
        meta={"rows": len(name)}, at=START,
    )  # fmt: skip
    facts.add_made(tx, run.id, [version.id])
    facts.add_used(tx, run.id, [(version.id, "self")])
    facts.set_version_state(tx, version.id, "published")
    facts.finish_run(tx, run.id, state="done", ended_at=START, facts={"of": name})
    told = [("asset", "id", asset.id), ("run", "id", run.id), ("version", "id", version.id)]
    return version, [*told, ("made", "run_id", run.id), ("used", "run_id", run.id)]


def publish(tx: Tx, name: str) -> list[Trace]:
    """Make, publish and name a version, and change its asset's spec."""
    version, traces = _published(tx, name)
    facts.set_alias(tx, version.asset, "champion", version.id, expect=None)
    facts.set_alias(tx, version.asset, "champion", version.id, expect=version.id)
    facts.put_asset(tx, name=version.asset, kind="table", spec={"n": name, "again": True}, at=START)
    return [*traces, ("alias", "asset_id", version.asset_id)]


def measure(tx: Tx, name: str) -> list[Trace]:
    """Begin a run and record what it measured, the values that SQL does not know among it."""
    run = Run(id=new_id("run"), kind="make", name=name, state="running", started_at=START)
    facts.start_run(tx, run)
    leases.claim_run(tx, run.id, leases.holder())
    odd = (float("nan"), float("inf"), -0.0, 5e-324, 0.1)
    facts.add_metrics(tx, run.id, [("loss", step, value) for step, value in enumerate(odd)], START)
    return [("run", "id", run.id), ("metric", "run_id", run.id), ("latest", "subject", run.id)]


def judge(tx: Tx, name: str) -> list[Trace]:
    """Give a verdict, remember a step's answer and grant a digest."""
    facts.add_verdict(
        tx, Verdict(check="unique", status="pass", subject=name, evidence={"n": name}, reason="so", at=START)
    )
    entry = facts.CacheEntry(key=name, asset="make:a", fields={"n": name}, run_id="run", version_ids=("v",), at=START)
    facts.cache_put(tx, entry)
    facts.add_grant(tx, name, "pickle", "run", "me", START)
    return [("verdict", "subject", name), ("cache", "key", name), ("grant", "digest", name)]


def serve(tx: Tx, name: str) -> list[Trace]:
    """Bring an endpoint up by a rollout, move its traffic, take it down again; an alarm on the way."""
    version, traces = _published(tx, name)
    endpoint = live.put_endpoint(tx, name=f"e-{name}", spec={"n": name}, at=START)
    made = live.add_deployment(tx, endpoint_id=endpoint.id, version_id=version.id, runtime={"n": name}, at=START)
    row = live.RolloutRow(
        id=new_id("rol"), endpoint_id=endpoint.id, run_id=version.run_id, state="starting", stable_id="",
        candidate_id=made.id, data={}, updated_at=START,
    )  # fmt: skip
    live.add_rollout(tx, row)
    live.set_deployment_state(tx, made.id, "ready")
    endpoint = live.set_traffic(tx, endpoint.id, {made.id: 100}, expect_epoch=endpoint.epoch)
    alarm = live.add_alarm(tx, check="drift", endpoint_id=endpoint.id, at=START, data={"n": name})
    live.resolve_alarm(tx, alarm.id, START)
    live.set_traffic(tx, endpoint.id, {}, expect_epoch=endpoint.epoch)
    live.set_desired(tx, made.id, "down")
    live.update_rollout(
        tx, live.RolloutRow(**{**{f: getattr(row, f) for f in row.__struct_fields__}, "state": "failed"})
    )
    below = [(table, "endpoint_id", endpoint.id) for table in ("deployment", "rollout", "alarm")]
    return [*traces, ("endpoint", "id", endpoint.id), *below]


def automate(tx: Tx, name: str) -> list[Trace]:
    """Fire an automation that all acts share, and settle a case."""
    automation = live.put_automation(tx, name="shared", spec={"n": name}, enabled=True, at=START)
    firing = live.add_firing(tx, automation_id=automation.id, key=name, at=START, data={"n": name})
    assert firing is not None
    live.update_firing(tx, live.Firing(**{**{f: getattr(firing, f) for f in firing.__struct_fields__}, "run_id": "r"}))
    case = live.open_case(tx, kind="drift", title=name, subject=name, at=START, facts={"n": name})
    live.close_case(tx, case.id, run_id="run")
    return [("automation", "id", automation.id), ("firing", "id", firing.id), ("case", "id", case.id)]


def count(tx: Tx, name: str) -> list[Trace]:
    """Count up what all acts share: an act that were carried out twice, or lost, would show."""
    have = live.get_state(tx, "count") or {"n": 0}
    live.put_state(tx, "count", {"n": have["n"] + 1})
    live.put_state(tx, f"state-{name}", {"n": name})
    return [("state", "key", "count"), ("state", "key", f"state-{name}")]


def predict(tx: Tx, name: str) -> list[Trace]:
    """Take in predictions and their labels, and how far the log was read."""
    rows = [
        calls.CallRow(
            prediction_id=f"{name}/{row}", request_id=name, row=row, endpoint_id=name, deployment_id="d",
            version_id="v", at=row, candidate=False, weight=1.0, candidate_weight=0.0, status=200, latency_us=9,
            prediction=[0.5], score=0.5,
        )
        for row in range(3)
    ]  # fmt: skip
    calls.record_calls(tx, rows)
    for label in ("a", "b"):
        labels = [
            calls.LabelRow(prediction_id=row.prediction_id, endpoint_id=name, label=label, at=1, arrived_at=2)
            for row in rows
        ]
        calls.record_labels(tx, labels)
    calls.put_offset(tx, f"s-{name}", Offset(1, 2))
    below = [(table, "endpoint_id", name) for table in ("call", "label", "correction")]
    return [*below, ("tail", "stream", f"s-{name}")]


def track(tx: Tx, name: str) -> list[Trace]:
    """Do what a tracking client does: an experiment, a run, points, params and tags."""
    number = tracking.create_experiment(tx, f"x-{name}", root="blobs:/{number}", tags={"n": name}, now_ms=MS)
    run = tracking.create_run(tx, experiment=number, name=name, user_id="me", start_ms=MS, tags={"n": name})
    points = [Point(name="auc", value=0.5 + step, step=step, at=step) for step in range(3)]
    tracking.log(tx, run.id, points=points, params={"depth": "3"}, tags={"m": name})
    tracking.update_run(tx, run.id, status="FINISHED", end_ms=MS + 1)
    ident, run_id = tracking.find_experiment(tx, f"x-{name}"), f"run_{run.id}"
    assert ident is not None
    home = tx.query("SELECT id FROM experiment WHERE number=?", (number,))[0][0]
    told = [("asset", "id", home), ("experiment", "id", home), ("tag", "subject", home), ("run", "id", run_id)]
    return [*told, ("tracked", "run_id", run_id), ("metric", "run_id", run_id),
            *((table, "subject", run_id) for table in ("latest", "param", "tag"))]  # fmt: skip


ACTS: dict[str, Act] = {act.__name__: act for act in (publish, measure, judge, serve, automate, count, predict, track)}
KINDS = tuple(ACTS)
TABLES = (
    "asset", "run", "version", "made", "used", "alias", "metric", "latest", "verdict", "cache", "grant", "endpoint",
    "deployment", "rollout", "alarm", "automation", "firing", "case", "state", "call", "label", "correction", "tail",
    "experiment", "tracked", "param", "tag",
)  # fmt: skip


def perform(ledger: Ledger, name: str, *, keyed: bool) -> str:
    """Carry out the act of this name, such as ``publish/r1.2.3``, and return its name."""
    kind = name.partition("/")[0]

    def apply(tx: Tx) -> str:
        for table, column, value in ACTS[kind](tx, name):
            rows = tx.query(f'SELECT * FROM "{table}" WHERE {column}=?', (value,))
            assert rows, f"{name} told of no row in {table}"
            tx.note("rows", table=table, column=column, value=value, rows=len(rows), digest=_digest(rows))
        return name

    return ledger.write(apply, what=name, key=name if keyed else "")


def _digest(rows: list[tuple[Any, ...]]) -> str:
    return digest_bytes("\n".join(sorted(map(repr, rows))).encode())


def leaves(reader: Reader) -> list[bytes]:
    """Return the audit leaves in their order, each as its digest says."""
    found = reader.query("SELECT leaf, sha256 FROM audit ORDER BY id")
    assert all(digest_bytes(leaf) == digest for leaf, digest in found), "a leaf is not what its digest says"
    return [leaf for leaf, _ in found]


def examine(ledger: Ledger) -> list[str]:
    """Assert that a ledger is whole, and return the names of its acts in their order.

    Raises:
        AssertionError: a request is there by halves, twice, or its rows are not what it wrote.
    """
    told: dict[str, dict[tuple[str, str], tuple[int, str]]] = {table: {} for table in TABLES}
    names, keys = [], []
    for leaf in leaves(ledger):
        data = decode(leaf)
        names.append(data["what"])
        keys += [data["key"]] if data["key"] else []
        for note in data["notes"]:
            if note["subject"] == "rows":
                told[note["table"]][note["column"], note["value"]] = note["rows"], note["digest"]
    for table, expected in told.items():
        _compare(ledger, table, expected)
    doubled = [name for name, times in Counter(names).items() if times > 1]
    assert not doubled, f"carried out twice: {doubled[:5]}"
    assert sorted(keys) == sorted(key for (key,) in ledger.query("SELECT key FROM idempotency"))
    counted = ledger.query("SELECT data FROM state WHERE key='count'")
    have = live.get_state(ledger, "count") or {"n": 0}
    assert bool(counted) == bool(have["n"])
    assert have["n"] == sum(name.startswith("count/") for name in names)
    return names


def _compare(ledger: Ledger, table: str, expected: dict[tuple[str, str], tuple[int, str]]) -> None:
    found: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    total = 0
    for column in {column for column, _ in expected}:
        for key, *row in ledger.query(f'SELECT t.{column}, t.* FROM "{table}" t'):
            found.setdefault((column, key), []).append(tuple(row))
            total += 1
    have = {which: (len(rows), _digest(rows)) for which, rows in found.items()}
    assert have == expected, f"{table}: {sorted(dict(have.items() ^ expected.items()))[:3]}"
    assert expected or ledger.query(f'SELECT count(*) FROM "{table}"') == [(0,)], f"{table} has rows that nobody wrote"


def decode(leaf: bytes) -> Any:
    """Return the value whose canonical bytes these are."""
    value, end = _decode(leaf, 0)
    assert end == len(leaf)
    return value


def _decode(text: bytes, at: int) -> tuple[Any, int]:
    kind, at = text[at : at + 1], at + 1
    if kind in (b"N", b"T", b"F"):
        return {b"N": None, b"T": True, b"F": False}[kind], at
    if kind == b"D":
        return struct.unpack_from(">d", text, at)[0], at + 8
    size: int = struct.unpack_from(">Q", text, at)[0]
    at += 8
    if kind in (b"I", b"S"):
        word = text[at : at + size].decode()
        return (int(word) if kind == b"I" else word), at + size
    items = []
    for _ in range(size * (2 if kind == b"{" else 1)):
        item, at = _decode(text, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if kind == b"{" else items), at
