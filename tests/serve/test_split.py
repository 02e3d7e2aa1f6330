"""The laws of the split: deterministic, proportional, and moving no more than it must."""

from __future__ import annotations

import hmac
from bisect import bisect_right

from hypothesis import given
from hypothesis import strategies as st

from trimtab.serve.split import BUCKETS, KeyedHash, Split, bucket, fingerprint, make_split

SHARES = st.floats(min_value=0.0, max_value=100.0)
KEYS = [f"{number:032x}" for number in range(4000)]


@given(st.text(min_size=1, max_size=20), st.text(max_size=40))
def test_a_key_has_one_bucket(salt: str, key: str) -> None:
    """The same key and salt fall into the same bucket, which exists."""
    first = bucket(KeyedHash(salt.encode()), key)
    assert first == bucket(KeyedHash(salt.encode()), key)
    assert 0 <= first < BUCKETS


@given(SHARES, SHARES)
def test_a_change_moves_only_the_buckets_between_the_borders(before: float, after: float) -> None:
    """A candidate that grows keeps all its buckets, and the stable deployment loses none but those that move."""
    one, two = make_split("s", [100 - before, before]), make_split("s", [100 - after, after])
    first = [_owner(one, number) for number in range(BUCKETS)]
    second = [_owner(two, number) for number in range(BUCKETS)]
    moved = sum(a != b for a, b in zip(first, second, strict=True))
    assert moved == abs(first.count(1) - second.count(1))


def _owner(split: Split, number: int) -> int:
    return split.owners[bisect_right(split.borders, number)]


@given(st.lists(st.floats(min_value=0.0, max_value=50.0), min_size=1, max_size=6))
def test_weights_are_the_share_of_buckets(shares: list[float]) -> None:
    """Weights sum to one where anything has a share, follow the shares to a bucket, and nothing above zero starves."""
    total = sum(shares)
    split = make_split("s", shares)
    if total <= 0:
        assert split.owners == () and set(split.weights) <= {0.0}
        return
    assert abs(sum(split.weights) - 1.0) < 1e-9
    for share, weight in zip(shares, split.weights, strict=True):
        assert (weight > 0) == (share > 0)
        assert abs(weight - share / total) <= (len(shares) + 0.5) / BUCKETS


def test_keys_spread_by_weight() -> None:
    """Of many keys about as many fall to the candidate as its weight says."""
    split = make_split("salt", [75, 25])
    share = sum(split.pick(key) for key in KEYS) / len(KEYS)
    assert abs(share - 0.25) < 0.03


def test_another_salt_shuffles() -> None:
    """Two endpoints do not send the same keys to their candidates."""
    one, two = make_split("a", [50, 50]), make_split("b", [50, 50])
    same = sum(one.pick(key) == two.pick(key) for key in KEYS)
    assert abs(same / len(KEYS) - 0.5) < 0.05


def test_promotion_keeps_callers_where_they_are() -> None:
    """When the candidate of one rollout is the stable deployment of the next, only the new share moves."""
    third = make_split("s", [100.0])
    fourth = make_split("s", [99.0, 1.0])
    assert sum(third.pick(key) != fourth.pick(key) for key in KEYS) < 0.03 * len(KEYS)


def test_a_fingerprint_hides_its_key() -> None:
    """What is recorded of a sticky key is short, stable and not the key."""
    one, two = KeyedHash(b"s"), KeyedHash(b"t")
    assert fingerprint(one, "customer-7") == fingerprint(one, "customer-7") != fingerprint(two, "customer-7")
    assert "customer" not in fingerprint(one, "customer-7")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_keyed_hash_is_hmac(key: bytes, message: bytes) -> None:
    """It is HMAC-SHA256, for keys shorter and longer than a block."""
    assert KeyedHash(key).digest(message) == hmac.digest(key, message, "sha256")
