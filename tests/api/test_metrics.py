"""Prometheus text: what was counted, each call once, in a form that scrapers read."""

from __future__ import annotations

import os
import random
import re
from datetime import timedelta
from typing import Any

from tests.monitor.scene import Scene, shifted, usual
from tests.serve.stand import START
from trimtab.api.metrics import Counts, processes, render
from trimtab.check.declare import drift
from trimtab.core.errors import Unavailable

LINE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)')


def _read(text: str) -> dict[str, float]:
    """Return every sample by its name and labels, having checked the form of each line."""
    found: dict[str, float] = {}
    typed: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            _, word, name, rest = line.split(" ", 3)
            if word == "TYPE":
                assert name not in typed, f"{name} is typed twice"
                typed[name] = rest
            continue
        matched = LINE.fullmatch(line)
        assert matched, line
        base = re.sub("_(bucket|sum|count)$", "", matched[1])
        assert matched[1] in typed or typed.get(base) == "histogram", line
        assert line.rsplit(" ", 1)[0] not in found, f"{line} is told twice"
        found[line.rsplit(" ", 1)[0]] = float(matched[3])
    return found


def test_calls_are_counted_by_version_and_status(scene: Scene) -> None:
    """Requests, rows, errors and latency are told for each deployment and version; buckets are cumulative."""
    draw = random.Random(1)
    for latency in (800, 4_000, 90_000):
        scene.send([usual(draw) for _ in range(5)], START, latency_us=latency)
    scene.send([usual(draw)], START, status=504)
    told = _read(render(scene.store, Counts()))
    base = 'endpoint="api",deployment="1",version="line:1"'
    assert told[f'trimtab_requests_total{{{base},status="200"}}'] == 3
    assert told[f'trimtab_predictions_total{{{base},status="200"}}'] == 15
    assert told[f'trimtab_errors_total{{{base},status="504"}}'] == 1
    buckets = [
        told[f'trimtab_request_seconds_bucket{{{base},status="200",le="{le}"}}']
        for le in ("0.001", "0.005", "0.1", "+Inf")
    ]
    assert buckets == [1, 2, 3, 3] and told[f'trimtab_request_seconds_count{{{base},status="200"}}'] == 3
    assert told[f'trimtab_request_seconds_sum{{{base},status="200"}}'] == 0.0948
    assert told['trimtab_traffic_percent{endpoint="api",deployment="1",state="ready"}'] == 100


def test_counts_grow_from_scrape_to_scrape(scene: Scene) -> None:
    """Each call is counted once over many scrapes, as by one scrape of everything."""
    draw, counts = random.Random(1), Counts()
    for hours in range(20):
        scene.send([usual(draw) for _ in range(hours % 3 + 1)], START + timedelta(hours=hours / 4))
        step = render(scene.store, counts)
    assert _requests(step) == _requests(render(scene.store, Counts())) and _requests(step)[0] == 20


def _requests(text: str) -> list[float]:
    return [value for name, value in _read(text).items() if name.startswith(("trimtab_requests", "trimtab_predict"))]


def test_operations_and_processes_are_told(scene: Scene) -> None:
    """Alarms, waiting calls, room on the disk, and CPU and memory of this process."""
    scene.automate(drift("api.calls"))
    scene.days(6, shifted)
    scene.send([usual(random.Random(1))], START, take=False)
    told = _read(render(scene.store, Counts()))
    assert told["trimtab_alarms_total"] >= 1 and told["trimtab_alarms_open"] >= 1
    assert told["trimtab_calls_waiting"] == 1 and told["trimtab_disk_free_bytes"] > 0
    own = f'process="control",pid="{os.getpid()}"'
    assert told[f"trimtab_process_cpu_seconds_total{{{own}}}"] > 0
    assert told[f"trimtab_process_memory_bytes{{{own}}}"] > 1 << 20
    assert {name for name, *_ in processes()} >= {"control", "supervisor"}


def test_the_routers_counts_are_passed_on(scene: Scene) -> None:
    """Dropped frames come from the router; a router that does not answer is down, and the rest is told."""
    answers: list[Any] = [{"answered": 7, "failed": 1, "dropped_frames": 2}]
    told = _read(render(scene.store, Counts(), lambda: answers[0]))
    assert told["trimtab_router_up"] == 1 and told["trimtab_router_dropped_frames_total"] == 2

    def down() -> Any:
        raise Unavailable("nobody listens")

    told = _read(render(scene.store, Counts(), down))
    assert told["trimtab_router_up"] == 0 and "trimtab_router_answered_total" not in told


def test_nothing_is_told_of_a_store_without_calls(scene: Scene) -> None:
    """A store that never answered has no request samples, and the page is still well formed."""
    assert _requests(render(scene.store, Counts())) == []
