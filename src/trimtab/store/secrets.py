"""Secrets at rest: sealed with a key that lies in a file of the store's folder, beside and never in the ledger.

Sealing is AES-256-GCM with a random nonce of 96 bits and the purpose as associated data. See ADR 8.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from pathlib import Path

from trimtab.core.errors import Corrupt, Unavailable
from trimtab.core.optional import need

NAME = "secret.key"
_VERSION = "s1"
_BYTES, _NONCE = 32, 12
_CIPHERS = "cryptography.hazmat.primitives.ciphers.aead"


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
        cipher = need(_CIPHERS).AESGCM(self._need(make=first))
        nonce = os.urandom(_NONCE)
        whole = nonce + cipher.encrypt(nonce, text.encode(), purpose.encode())
        return f"{_VERSION}.{urlsafe_b64encode(whole).decode()}"

    def open(self, sealed: str, purpose: str) -> str:
        """Return the text that ``seal`` was given.

        Raises:
            Unavailable: the key is not here.
            Corrupt: it was sealed with another key or for another purpose, or was changed.
        """
        key = self._need(make=False)
        version, _, text = sealed.partition(".")
        try:
            whole = urlsafe_b64decode(text) if version == _VERSION else b""
            opened: bytes = need(_CIPHERS).AESGCM(key).decrypt(whole[:_NONCE], whole[_NONCE:], purpose.encode())
        except (ValueError, need("cryptography.exceptions").InvalidTag) as error:
            fix = f"copy {NAME} from the machine that sealed it, or set the secret anew"
            text = "a secret was sealed with another key, or was changed"
            raise Corrupt(text, where=str(self._path), fix=fix) from error
        return opened.decode()

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
