"""Who answers a request: a keyed hash puts each key into one of 10,000 buckets, and buckets belong to deployments.

Buckets are handed out in order: the older deployments keep the low ones and the candidate takes its share from the
top, so that a change of the candidate's share moves only the buckets between the old and the new border. A caller who
knows neither the salt nor the border cannot choose who answers.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence

from msgspec import Struct

BUCKETS = 10_000
_BLOCK = 64


class KeyedHash:
    """HMAC-SHA256 under one key (RFC 2104), with the key's part worked out once: a third of the cost a message."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, message: bytes) -> bytes:
        """Return the 32 bytes for a message."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Split(Struct, frozen=True, kw_only=True):
    """How buckets belong to deployments.

    Attributes:
        hash: under the endpoint's salt, which is secret; another salt shuffles all keys.
        borders: for each deployment with buckets, in order, the bucket behind its last one.
        owners: the position of each border's deployment in the list that the split was made from.
        weights: for each position in that list the probability that a fresh key falls to it.
    """

    hash: KeyedHash
    borders: tuple[int, ...]
    owners: tuple[int, ...]
    weights: tuple[float, ...]

    def pick(self, key: str) -> int:
        """Return the position of the deployment that ``key`` falls to; there must be one with a share."""
        return self.owners[bisect_right(self.borders, bucket(self.hash, key))]


def bucket(keyed: KeyedHash, key: str) -> int:
    """Return the bucket, 0 to 9,999, of a key: the first 64 bits of its keyed hash, modulo the buckets."""
    return int.from_bytes(keyed.digest(key.encode())[:8], "big") % BUCKETS


def fingerprint(keyed: KeyedHash, key: str) -> str:
    """Return what stands for a sticky key in records: 16 hex digits that cannot be turned back into it."""
    return keyed.digest(b"key:" + key.encode())[:8].hex()


def make_split(salt: str, shares: Sequence[float]) -> Split:
    """Return the split for shares in percent.

    Args:
        salt: the endpoint's salt.
        shares: one for each deployment, oldest first and the candidate last; they sum to 100, or to 0 when
            nothing is to be picked. A share above zero gets at least one bucket.
    """
    counts = _counts(shares)
    borders, owners, behind = [], [], 0
    for position, count in enumerate(counts):
        if count:
            behind += count
            borders.append(behind)
            owners.append(position)
    return Split(
        hash=KeyedHash(salt.encode()),
        borders=tuple(borders),
        owners=tuple(owners),
        weights=tuple(count / BUCKETS for count in counts),
    )


def _counts(shares: Sequence[float]) -> list[int]:
    """Return the buckets of each share: whole numbers that sum to all buckets where the shares sum to 100."""
    total = sum(shares)
    if total <= 0:
        return [0] * len(shares)
    counts = [max(1, round(share / total * BUCKETS)) if share > 0 else 0 for share in shares]
    largest = max(range(len(counts)), key=lambda position: (counts[position], -position))
    counts[largest] += BUCKETS - sum(counts)
    return counts
