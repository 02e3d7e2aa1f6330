"""Secrets at rest: sealed with a key that lies in a file of the store's folder, beside and never in the ledger.

Sealing is encrypt-then-MAC over HMAC-SHA256 (RFC 2104): a keystream of HMAC(key, nonce, counter) in counter mode, and
HMAC(other key, purpose, nonce, ciphertext) over the whole; both keys come from the file's by HMAC. See ADR 8.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from pathlib import Path

from trimtab.core.errors import Corrupt, Unavailable

NAME = "secret.key"
_VERSION = "s1"
_BYTES, _NONCE, _TAG = 32, 16, 32


class Secrets:
    """Seals and opens small texts.

    Args:
        folder: the store's, in which the key lies.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def seal(self, text: str, purpose: str, *, first: bool) -> str:
        """Return a text so that only who has the key can read it.

        Args:
            text: the secret.
            purpose: what it is for, such as an id; it must be said again to open it.
            first: nothing was sealed before, so a missing key may be made.

        Raises:
            Unavailable: the key is not here, and something was sealed with it.
        """
        key = self._need(make=first)
        nonce = os.urandom(_NONCE)
        cipher = _mixed(_derived(key, "stream"), nonce, text.encode())
        whole = nonce + cipher + _tag(key, purpose, nonce + cipher)
        return f"{_VERSION}.{urlsafe_b64encode(whole).decode()}"

    def open(self, sealed: str, purpose: str) -> str:
        """Return the text that ``seal`` was given.

        Raises:
            Unavailable: the key is not here.
            Corrupt: it was sealed with another key or for another purpose, or was changed.
        """
        key = self._need(make=False)
        version, _, text = sealed.partition(".")
        whole = urlsafe_b64decode(text) if version == _VERSION else b""
        content, tag = whole[:-_TAG], whole[-_TAG:]
        if not hmac.compare_digest(tag, _tag(key, purpose, content)):
            fix = f"copy {NAME} from the machine that sealed it, or set the secret anew"
            raise Corrupt("a secret was sealed with another key, or was changed", where=str(self._path), fix=fix)
        return _mixed(_derived(key, "stream"), content[:_NONCE], content[_NONCE:]).decode()

    def _need(self, *, make: bool) -> bytes:
        if make and not self._path.exists():
            self._make()
        try:
            key = self._path.read_bytes()
        except FileNotFoundError as error:
            raise Unavailable(
                "the key of this store's secrets is not in its folder, and secrets were sealed with it",
                where=str(self._path),
                fix=f"copy {NAME} from the machine that has it",
            ) from error
        if len(key) != _BYTES:
            raise Corrupt(f"the key has {len(key)} bytes and not {_BYTES}", where=str(self._path), fix="restore it")
        return key

    def _make(self) -> None:
        fresh = self._path.with_name(f"{NAME}.{os.getpid()}.{os.urandom(4).hex()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(os.urandom(_BYTES))
            out.flush()
            os.fsync(out.fileno())
        # Of two processes that make one, the first is right.
        with suppress(FileExistsError):
            os.link(fresh, self._path)
        fresh.unlink()
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _derived(key: bytes, use: str) -> bytes:
    return hmac.digest(key, f"trimtab secrets {use}".encode(), hashlib.sha256)


def _mixed(key: bytes, nonce: bytes, content: bytes) -> bytes:
    """Return content with the keystream of a nonce mixed in; twice gives it back."""
    stream = b"".join(
        hmac.digest(key, nonce + number.to_bytes(8, "big"), hashlib.sha256) for number in range(-(-len(content) // 32))
    )
    return bytes(one ^ other for one, other in zip(content, stream, strict=False))


def _tag(key: bytes, purpose: str, content: bytes) -> bytes:
    named = purpose.encode()
    return hmac.digest(_derived(key, "tag"), len(named).to_bytes(8, "big") + named + content, hashlib.sha256)
