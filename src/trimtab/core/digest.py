"""Content digests over a canonical encoding: equal values have equal digests, unequal ones do not."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from trimtab.core.clock import to_micros
from trimtab.core.errors import WrongUse

_CHUNK = 1 << 20


def canonical(value: object) -> bytes:
    """Return the canonical bytes of plain data.

    Each value is a type byte, a length where it needs one, and its content, so that ``1``, ``1.0``,
    ``True`` and ``"1"`` all differ; mappings are sorted by their encoded keys; every NaN is one NaN;
    -0.0 and 0.0 differ; structs encode as their fields; tuples as lists.

    Raises:
        WrongUse: the value, or something in it, is not plain data.
    """
    out: list[bytes] = []
    _encode(value, out)
    return b"".join(out)


def _encode(value: object, out: list[bytes]) -> None:
    match value:
        case None:
            out.append(b"N")
        case bool():
            out.append(b"T" if value else b"F")
        case int():
            _framed(b"I", str(value).encode(), out)
        case float():
            out.append(b"D" + (b"nan_____" if value != value else struct.pack(">d", value)))
        case str():
            _framed(b"S", value.encode("utf-8", "surrogatepass"), out)
        case bytes():
            _framed(b"B", value, out)
        case datetime():
            _framed(b"M", str(to_micros(value)).encode(), out)
        case Mapping():
            pairs = sorted((canonical(key), canonical(item)) for key, item in value.items())
            out.append(b"{" + struct.pack(">Q", len(pairs)))
            out.extend(part for pair in pairs for part in pair)
        case list() | tuple():
            out.append(b"[" + struct.pack(">Q", len(value)))
            for item in value:
                _encode(item, out)
        case msgspec.Struct():
            _encode({name: getattr(value, name) for name in value.__struct_fields__}, out)
        case _:
            raise WrongUse(
                f"a {type(value).__name__} has no canonical encoding",
                fix="use None, bool, int, float, str, bytes, datetime, lists and mappings of these",
            )


def _framed(tag: bytes, content: bytes, out: list[bytes]) -> None:
    out.append(tag + struct.pack(">Q", len(content)))
    out.append(content)


def digest(value: object) -> str:
    """Return ``sha256:`` and 64 hex digits over the canonical bytes of plain data."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def digest_bytes(content: bytes | memoryview) -> str:
    """Return the digest of raw bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest_stream(stream: BinaryIO) -> str:
    """Return the digest of what is left in ``stream``, read in chunks."""
    running = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        running.update(chunk)
    return "sha256:" + running.hexdigest()


def digest_file(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as stream:
        return digest_stream(stream)


def digest_all(digests: Iterable[str]) -> str:
    """Return one digest for a set of digests, whatever their order."""
    return digest(sorted(digests))
