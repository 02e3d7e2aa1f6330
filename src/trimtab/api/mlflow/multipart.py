"""Files that clients send in parts: each part is durable when it is acknowledged, the file when all are joined.

The answer that begins an upload names an address of this server for each part. A client sends the parts to these as
they are, without what it knows of the server; the headers that it has to send with them are named as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.api.mlflow.artifacts import Artifacts
from trimtab.api.mlflow.wire import MlflowError, body_of
from trimtab.core.clock import wall_seconds
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store.artifacts import checked_path

MOST_PARTS = 10_000
_KEPT_S = 7 * 86_400.0
_UPLOAD = re.compile(r"[0-9a-f]{32}")
_DONE, _ABOUT = "done", "about.json"
PART = "/api/2.0/mlflow-artifacts/mpu/part"


class _About(Struct, frozen=True):
    path: str
    parts: int


class Uploads:
    """Uploads that are under way, each in a folder of its own; one that nobody ends is removed after a week.

    Args:
        folder: where they lie.
        kept: where the files go.
    """

    def __init__(self, folder: Path, kept: Artifacts) -> None:
        self._folder = folder
        self._kept = kept

    def begin(self, folder: str, given: Data, address: str, headers: Data) -> Data:
        """Begin an upload.

        Args:
            folder: the artifact's folder.
            given: ``path``, of which the last part is the artifact's name, and ``num_parts``.
            address: scheme and host by which the client knows this server.
            headers: what it has to send with each part.

        Raises:
            MlflowError: there are too many parts.
            BadInput: the path is none.
        """
        path, parts = _path(folder, given), given.get("num_parts") or 1
        if not isinstance(parts, int) or isinstance(parts, bool) or not 1 <= parts <= MOST_PARTS:
            raise MlflowError(f"Invalid value {parts!r} for parameter 'num_parts' supplied: it is 1 to {MOST_PARTS}")
        self._sweep()
        upload = new_hex()
        at = self._folder / upload
        at.mkdir(parents=True, mode=0o700)
        (at / _ABOUT).write_bytes(msgspec.json.encode(_About(path, parts)))
        credentials = [
            {"url": f"{address}{PART}/{upload}/{number}", "part_number": number, "headers": headers}
            for number in range(1, parts + 1)
        ]
        return {"upload_id": upload, "credentials": credentials}

    def place(self, upload: str, number: int) -> Path:
        """Return where a part is kept.

        Raises:
            MlflowError: there is no such upload or part.
        """
        about = self._about(upload)
        if not 1 <= number <= about.parts or (self._folder / upload / _DONE).exists():
            raise MlflowError(f"Upload {upload} takes no part {number}")
        return self._folder / upload / str(number)

    def keep(self, upload: str, number: int, file: Path) -> str:
        """Keep a part durably and return its ETag; sent again, the later one stands."""
        place = self.place(upload, number)
        with file.open("rb") as source:
            tag = hashlib.file_digest(source, "sha256").hexdigest()
            os.fsync(source.fileno())
        file.replace(place)
        place.with_suffix(".tag").write_text(tag)
        return f'"{tag}"'

    def end(self, folder: str, given: Data) -> Data:
        """Join the parts that the client names, and keep the file; asked again, it is kept already.

        Raises:
            MlflowError: there is no such upload, or a part is missing or another than the client means.
        """
        upload = str(given.get("upload_id") or "")
        about, at = self._about(upload), self._folder / upload
        if about.path != _path(folder, given):
            raise MlflowError(f"Upload {upload} is not of this path")
        if (at / _DONE).exists():
            return {}
        numbers = self._checked(upload, given.get("parts") or [])
        with tempfile.NamedTemporaryFile(dir=at, prefix="whole-") as whole:
            for number in numbers:
                with (at / str(number)).open("rb") as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
            whole.flush()
            self._kept.keep(about.path, Path(whole.name))
        (at / _DONE).touch()
        for number in numbers:
            (at / str(number)).unlink(missing_ok=True)
        return {}

    def drop(self, folder: str, given: Data) -> Data:
        """Forget an upload."""
        upload = str(given.get("upload_id") or "")
        if self._about(upload).path != _path(folder, given):
            raise MlflowError(f"Upload {upload} is not of this path")
        shutil.rmtree(self._folder / upload, ignore_errors=True)
        return {}

    def room(self) -> Path:
        """Return a folder on the disk where parts are kept."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._folder

    def _about(self, upload: str) -> _About:
        try:
            if _UPLOAD.fullmatch(upload) is None:
                raise FileNotFoundError
            return msgspec.json.decode((self._folder / upload / _ABOUT).read_bytes(), type=_About)
        except FileNotFoundError:
            raise MlflowError(f"There is no upload {upload[:40]!r}", "RESOURCE_DOES_NOT_EXIST") from None

    def _checked(self, upload: str, parts: Sequence[Any]) -> list[int]:
        numbers = [part.get("part_number") if isinstance(part, dict) else None for part in parts]
        if numbers != list(range(1, self._about(upload).parts + 1)):
            raise MlflowError(f"Upload {upload} has {self._about(upload).parts} parts, and they are not these")
        for number, part in zip(numbers, parts, strict=True):
            tag = self._folder / upload / f"{number}.tag"
            if not tag.exists() or str(part.get("etag") or "").strip('"') != tag.read_text():
                raise MlflowError(f"Part {number} of upload {upload} is missing or is another one; send it again")
        return list(range(1, len(parts) + 1))

    def _sweep(self) -> None:
        for old in self._folder.glob("*"):
            with suppress(FileNotFoundError):  # somebody else was faster
                if old.stat().st_mtime < wall_seconds() - _KEPT_S:
                    shutil.rmtree(old, ignore_errors=True)


def _path(folder: str, given: Data) -> str:
    name = posixpath.basename(str(given.get("path") or "").replace("\\", "/"))
    return checked_path(f"{folder.strip('/')}/{name}".lstrip("/"))


async def begin(uploads: Uploads, path: str, request: Any) -> Any:
    """Answer ``mpu/create``."""
    given = body_of(await request.body())
    known = request.headers.get("authorization")
    scheme = request.headers.get("x-forwarded-proto", "http")
    address = f"{'https' if scheme == 'https' else 'http'}://{request.headers.get('host', 'localhost')}"
    told = await asyncio.to_thread(uploads.begin, path, given, address, {"Authorization": known} if known else {})
    return need("litestar").Response(told)


async def keep(uploads: Uploads, path: str, request: Any) -> Any:
    """Keep the body of a request as a part."""
    upload, _, number = path.partition("/")
    place = uploads.place(upload, int(number) if number.isdecimal() and len(number) < 6 else 0)
    with tempfile.NamedTemporaryFile(dir=uploads.room() / upload, prefix="part-", delete=False) as file:
        try:
            async for part in request.stream():
                await asyncio.to_thread(file.write, part)
            file.flush()
            tag = await asyncio.to_thread(uploads.keep, upload, int(place.name), Path(file.name))
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return need("litestar").Response(b"{}", headers={"etag": tag})


async def end(uploads: Uploads, path: str, request: Any) -> Any:
    """Answer ``mpu/complete``."""
    given = body_of(await request.body())
    return need("litestar").Response(await asyncio.to_thread(uploads.end, path, given))


async def drop(uploads: Uploads, path: str, request: Any) -> Any:
    """Answer ``mpu/abort``."""
    given = body_of(await request.body())
    return need("litestar").Response(await asyncio.to_thread(uploads.drop, path, given))
