"""Delivering what webhooks want to hear of: signed, at least once, by one process at a time, from the outbox."""

from __future__ import annotations

import hashlib
import hmac
import random
import sys
import threading
from base64 import b64encode
from contextlib import suppress

from msgspec import Struct

from trimtab.api.errors import answer_for
from trimtab.api.outbound import Answer, Guard, post
from trimtab.core.clock import monotonic, wall_seconds
from trimtab.core.errors import Conflict, TrimtabError
from trimtab.core.nouns import Data
from trimtab.store import webhooks
from trimtab.store.leases import Lease, acquire, check_lease, release, renew
from trimtab.store.ledger import Tx
from trimtab.store.secrets import Secrets
from trimtab.store.store import Store
from trimtab.store.webhooks import Delivery

SIGNATURE, TIMESTAMP, DELIVERY_ID = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
_LEASE_S, _ASK_AGAIN_S, _SWEEP_S, _PATIENCE_S = 60.0, 5.0, 600.0, 3.0
_BUSY = (408, 429)


class Pace(Struct, frozen=True, kw_only=True):
    """How fast, how often and how long; everything in seconds of real time.

    Attributes:
        tick: between two looks at what is due.
        first: the pause after the first failure; each further one is twice as long.
        longest: the longest pause of a delivery.
        pause: the longest pause of a webhook whose target does not answer.
        attempts: how often a delivery is tried before it is given up.
        timeout: for one attempt.
        targets: how many webhooks are told something at the same time; at most half of them failed last time.
        patience: how long a delivery may wait, for instance for its webhook to be enabled again.
        keep: how long what ended is kept.
    """

    tick: float = 0.25
    first: float = 1.0
    longest: float = 3600.0
    pause: float = 300.0
    attempts: int = 14
    timeout: float = 10.0
    targets: int = 16
    patience: float = 3 * 86400.0
    keep: float = 86400.0


def sign(secret: str, ident: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a delivery: version, comma, and HMAC-SHA256 of id, timestamp and body in base64."""
    content = f"{ident}.{timestamp}.".encode() + body
    return f"v1,{b64encode(hmac.digest(secret.encode(), content, hashlib.sha256)).decode()}"


def send(
    guard: Guard, url: str, ident: str, body: bytes, secret: str, *, timeout_s: float = Pace().timeout, most: int = 0
) -> Answer:
    """Send one delivery, signed at this moment, and return the answer.

    Args:
        guard: says whether it may be sent there.
        url: where to.
        ident: the delivery's id.
        body: JSON.
        secret: of the webhook, in the clear; empty means that it has none and nothing is signed.
        timeout_s: for the exchange.
        most: how many bytes of the answer's body are wanted.

    Raises:
        BadInput: the URL may not be asked.
        Unavailable: nobody answers there, or not in time.
    """
    timestamp = str(int(wall_seconds()))
    headers = {DELIVERY_ID: ident, TIMESTAMP: timestamp}
    if secret:
        headers[SIGNATURE] = sign(secret, ident, timestamp, body)
    return post(guard, url, body, headers, timeout_s=timeout_s, most=most)


def pause_s(pace: Pace, before: int, longest: float) -> float:
    """Return how long to wait after a failure: twice as long each time, of which up to a half is left to chance."""
    whole = min(longest, pace.first * 2.0 ** min(before, 40))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts, hides nothing


class Deliveries:
    """Tells webhooks what is due, a thread for each that is being told something.

    Args:
        store: whose outbox; of its environment.
        guard: says where to may be sent.
        pace: how fast.
    """

    def __init__(self, store: Store, guard: Guard | None = None, pace: Pace | None = None) -> None:
        self._ledger = store.ledger
        self._secrets = Secrets(store.home.root)
        self._guard = guard or Guard.of_environment()
        self._pace = pace or Pace()
        self._name = f"webhooks/{store.ledger.workspace}/{store.environment}"
        self._lease: Lease | None = None
        self._renewed = self._asked = self._swept = float("-inf")
        self._busy: dict[str, bool] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self.problem: Data = {}

    def run(self) -> None:
        """Deliver until ``close``; what goes wrong with the ledger is in ``problem``, and the next turn tries again."""
        while not self._stop.wait(self._pace.tick):
            try:
                self.turn()
                self.problem = {}
            except Exception as error:
                # A thread that died here would leave a server that looks well and tells nobody anything.
                self._tell(error)

    def turn(self) -> None:
        """Begin to deliver what is due, as far as this process is the one that delivers."""
        with self._changed:
            busy = dict(self._busy)
        room = self._pace.targets - len(busy)
        found = webhooks.due(self._ledger, most=room, busy=busy) if room > 0 else []
        found = found[: sum(not one.failures for one in found) + max(0, self._pace.targets // 2 - sum(busy.values()))]
        ended, waiting = self._stale()
        if not (found or ended) or not self._holds():
            return
        assert self._lease is not None
        for one in found:
            with self._changed:
                self._busy[one.webhook_id] = one.failures > 0
            threading.Thread(target=self._deliver, args=(one, self._lease), name="deliver", daemon=True).start()
        if ended:
            self._ledger.write(lambda tx: webhooks.sweep(tx, ended=ended, waiting=waiting), what="sweep deliveries")

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is on its way, and say whether that was so in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout=seconds)

    def close(self) -> None:
        """End what was started; what is on its way and not yet answered will be sent again."""
        self._stop.set()
        self.wait(_PATIENCE_S)
        lease, self._lease = self._lease, None
        if lease is not None:
            # A ledger that does not answer must not keep a server from ending; its death gives the lease back.
            with suppress(TrimtabError):
                release(self._ledger, lease)

    def _holds(self) -> bool:
        """Say whether this process may deliver; another one that does is asked again every few seconds."""
        now = monotonic()
        if self._lease is not None and now - self._renewed > _LEASE_S / 3:
            self._renewed = now
            self._lease = self._lease if renew(self._ledger, self._lease, _LEASE_S) else None
        if self._lease is None and now - self._asked > _ASK_AGAIN_S:
            self._asked = self._renewed = now
            self._lease = acquire(self._ledger, self._name, _LEASE_S)
        return self._lease is not None

    def _stale(self) -> tuple[int, int]:
        """Return before when what ended goes and what waits is given up; zeros where there is nothing to sweep."""
        if monotonic() - self._swept < _SWEEP_S:
            return 0, 0
        self._swept, now = monotonic(), webhooks.now_us()
        ended, waiting = now - int(self._pace.keep * 1e6), now - int(self._pace.patience * 1e6)
        return (ended, waiting) if webhooks.is_stale(self._ledger, ended=ended, waiting=waiting) else (0, 0)

    def _deliver(self, first: Delivery, lease: Lease) -> None:
        """Tell one webhook what is due, in order, until something fails."""
        following = [first]
        try:
            while following and not self._stop.is_set() and self._attempt(following[0], lease):
                following = webhooks.due(self._ledger, most=1, only=first.webhook_id)
        except Exception as error:
            # What was sent is not on record: see whether the lease is still held, and pause before it is sent again.
            self._renewed = float("-inf")
            if not isinstance(error, Conflict):
                self._tell(error)
            self._stop.wait(self._pace.first)
        finally:
            with self._changed:
                del self._busy[first.webhook_id]
                self._changed.notify_all()

    def _attempt(self, one: Delivery, lease: Lease) -> bool:
        """Send a delivery, write how that ended, and say whether it was taken."""
        status, later, error, there = 0, 0.0, "", False
        try:
            secret = self._secrets.open(one.secret, one.webhook_id) if one.secret else ""
            answer = send(self._guard, one.url, one.id, one.body, secret, timeout_s=self._pace.timeout)
            status, later = answer.status, answer.later
            there = status < 500 and status not in _BUSY
            error = "" if 200 <= status < 300 else f"the receiver answered {status}"
        except TrimtabError as refused:
            error = refused.message
        now, again, paused = webhooks.now_us(), None, 0
        if error and one.attempts + 1 < self._pace.attempts:
            wait = max(pause_s(self._pace, one.attempts, self._pace.longest), min(later, self._pace.longest))
            again = now + int(wait * 1e6)
        if error and not there:
            paused = now + int(max(pause_s(self._pace, one.failures, self._pace.pause), min(later, 60.0)) * 1e6)
        if error and again is None:
            text = f"webhook {one.name}: delivery {one.id} ({one.event}) is given up after {one.attempts + 1} attempts"
            print(f"{text}: {error}", file=sys.stderr)

        def settle(tx: Tx) -> None:
            check_lease(tx, lease)
            webhooks.settle(tx, one, answer=status, error=error, again=again, paused=paused)

        self._ledger.write(settle, what="deliver")
        return not error

    def _tell(self, error: Exception) -> None:
        if not self._stop.is_set():
            self.problem = answer_for(error, "delivering to webhooks")[1]["error"]
