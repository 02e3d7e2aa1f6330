"""A scene for tests: a store with one endpoint whose model is watched, and calls and labels as they would come."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from tests.serve.stand import START, deploy, make_version, put_endpoint
from trimtab.check.histogram import build_reference
from trimtab.core.clock import to_micros
from trimtab.core.declare import as_data
from trimtab.core.ids import new_hex
from trimtab.core.live import canary
from trimtab.core.nouns import Automation, Check, Data, Version
from trimtab.monitor.watch import Monitors, Ticked
from trimtab.serve.collect import collect
from trimtab.serve.frames import CallFrame, calls_folder, encode
from trimtab.serve.labels import accept_labels
from trimtab.store import facts, live
from trimtab.store.calls import LabelRow, record_labels
from trimtab.store.intake import Buffered
from trimtab.store.store import Store

DAY = timedelta(days=1)
Row = tuple[Data, float]
HELD_BACK: Data = {"brier": {"mean": 0.22, "variance": 0.02, "n": 20_000}}


def usual(draw: random.Random) -> Row:
    """Return a row as in training: x is standard normal, c is a or b, the score lies between 0.2 and 0.8."""
    return {"x": draw.gauss(0, 1), "c": draw.choice("aab")}, 0.2 + 0.6 * draw.random()


def shifted(draw: random.Random) -> Row:
    """Return a row whose x has moved by one standard deviation."""
    row, score = usual(draw)
    return {**row, "x": row["x"] + 1.0}, score


class Scene:
    """An endpoint ``api`` with one deployment of a binary model, on simulated time.

    Args:
        store: an empty store, or one that a scene was made in before.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._log = Buffered(calls_folder(store.home.intake), 1 << 20, flush_every=0)
        known = live.find_endpoint(store.ledger, "api")
        if known is None:
            store.set_clock("simulated", START)
            put_endpoint(store, rollout=canary([50, 100], soak="1d", minimum=1))
            self.version = self.make(1)
            known = live.need_endpoint(store.ledger, "api")
            deploy(store, known.id, self.version, share=100)
        self.endpoint_id = known.id
        self.version = facts.resolve(store.ledger, "line:1")
        self.deployment = live.list_deployments(store.ledger, known.id)[0].id
        self.monitors = Monitors(store)

    def make(self, number: int, **meta: Any) -> Version:
        """Add a published version with references, held-back risk and a passed gate."""
        draw = random.Random(7)
        rows = [usual(draw) for _ in range(4000)]
        references = [
            build_reference("x", [row["x"] for row, _ in rows], kind="numeric"),
            build_reference("c", [row["c"] for row, _ in rows], kind="categorical"),
            build_reference("prediction", [score for _, score in rows], kind="numeric"),
        ]
        blob = self.store.blobs.put(msgspec.json.encode(references))
        made = make_version(self.store, float(number), reference=blob, risk=HELD_BACK, **meta)

        def name_it(tx: Any) -> None:
            facts.set_alias(tx, "line", "challenger", made.id)

        self.store.ledger.write(name_it, what="alias")
        return made

    def send(
        self,
        rows: Sequence[Row],
        at: datetime,
        *,
        request_id: str = "",
        latency_us: int = 900,
        version: Version | None = None,
        deployment: str = "",
        status: int = 200,
        named: bool = False,
        candidate: bool | None = None,
        take: bool = True,
    ) -> list[str]:
        """Record one request as the router would and take it in; return its prediction ids.

        With ``candidate`` the request was drawn with one half for each of two deployments, and it was that one.
        """
        ident = request_id or new_hex()
        scores = [score for _, score in rows]
        answer = {"predictions": [score >= 0.5 for score in scores], "scores": scores}
        frame = CallFrame(
            1, self.endpoint_id, deployment or self.deployment, (version or self.version).id, ident, to_micros(at),
            1.0 if candidate is None else 0.5, 0.0 if candidate is None else 0.5, bool(candidate), status, latency_us,
            len(rows), "",
            msgspec.json.encode({"rows": [row for row, _ in rows]}), msgspec.json.encode(answer), named,
        )  # fmt: skip
        assert self._log.append(encode(frame))
        if take:
            collect(self.store)
        return [f"{ident}.{number}" for number in range(len(rows))]

    def label(self, ids: Sequence[str], labels: Sequence[Any], at: datetime) -> Data:
        """Post labels."""
        items = [{"prediction_id": one, "label": label} for one, label in zip(ids, labels, strict=True)]
        return accept_labels(self.store, "api", items, at)

    def keep_label(self, ident: str, label: Any, at: datetime) -> None:
        """Record a label unchecked, as stores of earlier releases have them."""
        row = LabelRow(
            prediction_id=ident, endpoint_id=self.endpoint_id, label=label, at=to_micros(at), arrived_at=to_micros(at)
        )
        self.store.ledger.write(lambda tx: record_labels(tx, [row]), what="label")

    def days(
        self,
        count: int,
        kind: Callable[[random.Random], Row] = usual,
        *,
        rows: int = 100,
        first: int = 0,
        seed: int = 1,
        wrong: float = 0.0,
    ) -> list[tuple[int, Ticked]]:
        """Live through days: calls in the morning, labels at night, then a tick; return each day's tick.

        Labels come true with the probability of the score, so that the model is calibrated; ``wrong`` is the
        share of labels that come out opposite.
        """
        draw, told = random.Random(seed), []
        for day in range(first, first + count):
            begin = START + day * DAY
            batch = [kind(draw) for _ in range(rows)]
            ids = self.send(batch, begin + timedelta(hours=6))
            labels = [(draw.random() < score) != (draw.random() < wrong) for _, score in batch]
            self.store.set_clock("simulated", begin + DAY)
            self.label(ids, labels, begin + DAY)
            told.append((day, self.monitors.tick(begin + DAY)))
        return told

    def automate(self, check: Check, *, actions: Sequence[tuple[str, str]] = (), **spec: Any) -> Automation:
        """Declare an automation as `apply` would."""
        data: Data = {
            "when": {"check": as_data(check), "status": "fail"},
            "actions": [{"do": do, "target": target} for do, target in actions],
            "cooldown": "0s",
            "limit": "",
            **spec,
        }
        return self.store.ledger.write(
            lambda tx: live.put_automation(tx, name="again", spec=data, enabled=True, at=START), what="automation"
        )

    def state(self) -> list[tuple[str, bytes]]:
        """Return all state that the monitors keep."""
        rows = self.store.ledger.query("SELECT key, data FROM state WHERE key LIKE 'monitor%' ORDER BY key")
        return [(str(key), bytes(data)) for key, data in rows]

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()
