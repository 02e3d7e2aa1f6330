"""Blobs and the files of tables in an object store by URL: S3, Azure Blob Storage and Google Cloud Storage.

``s3://bucket/prefix``, ``az://container/prefix`` (``abfs``, ``abfss``, also with ``container@account.dfs...``) and
``gs://bucket/prefix``. Credentials come from ``options``, from the environment or from the cloud's default chain
(managed identity, workload identity, instance role); never from the URL, because URLs are printed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from trimtab.core.digest import digest_bytes, digest_file
from trimtab.core.errors import Conflict, Corrupt, NotFound, TrimtabError, Unavailable, WrongUse
from trimtab.core.ids import new_hex
from trimtab.core.optional import need
from trimtab.store.blobs import Kept, check_range, key_of

_CLIENT = {
    "allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only", "pool_idle_timeout",
    "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url", "timeout", "user_agent",
}  # fmt: skip
_RETRIES = {"max_retries", "retry_timeout"}
_PART = 8 << 20
_PARTS = 9_000  # S3 takes 10,000
_ASK_FIRST = 256 << 10  # from here on a question costs less than sending what is already there
_SECRET = re.compile(r"secret|token|password|sas|account_key|access_key$|master_key|encryption_key|service_account_key")
_SHORTEST = 6
T = TypeVar("T")
_UNSAFE = "aws_s3_allow_unsafe_rename"


class Place:
    """A bucket or container and a prefix in it, ready to be asked.

    Args:
        url: without credentials.
        options: see ``Files``.

    Attributes:
        where: the URL, for people.
        options: for engines that open URLs themselves.

    Raises:
        WrongUse: the URL or an option cannot be used.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self.options = {str(key).lower(): str(value) for key, value in options.items()}
        self._secrets = _secrets({**_environment(), **self.options})
        scheme, bucket, self._prefix, account = _parted(url)
        self.where = url.rstrip("/")
        if scheme == "s3":
            self._only_safe()
        if account:
            self.options.setdefault("azure_storage_account_name", account)
        config = {key: value for key, value in self.options.items() if key not in _CLIENT | _RETRIES | {_UNSAFE}}
        client = {key: value for key, value in self.options.items() if key in _CLIENT}
        stores = need("obstore.store")
        kind = {"s3": stores.S3Store, "gs": stores.GCSStore}.get(scheme, stores.AzureStore)
        self._api = need("obstore")
        with self.told():
            self.store: Any = kind(
                bucket, prefix=self._prefix or None, config=config, client_options=client,
                retry_config=_retries(self.options),
            )  # fmt: skip

    def _only_safe(self) -> None:
        """Let commits be conditional puts; without them one of two writers would be lost."""
        unsafe = self.options.get(_UNSAFE, os.environ.get(_UNSAFE.upper(), ""))
        if unsafe.lower() in ("true", "1", "yes", "on"):
            raise WrongUse(f"{_UNSAFE} lets two writers overwrite each other", where=self.where, fix="leave it out")
        if not {"aws_conditional_put", "conditional_put"} & self.options.keys():
            self.options["aws_conditional_put"] = "etag"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.where!r})"

    def clean(self, text: str) -> str:
        """Return a message's first words, without secrets."""
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text.partition("\nDebug source")[0]).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = re.sub(r"(https?://[^\s?]*)\?\S*", r"\1", text)
        return text[:600]

    @contextmanager
    def told(self, where: str = "") -> Iterator[None]:
        """Turn the client's errors into ours; what is not there stays a FileNotFoundError."""
        try:
            yield
            return
        except (FileNotFoundError, TrimtabError):
            raise
        except (self._api.exceptions.BaseError, OSError) as error:
            ours = self._ours(error, where)
        # Outside of the handler: what was raised may hold more than it should, and goes.
        raise ours

    def _ours(self, error: BaseException, where: str) -> TrimtabError:
        known, words, where = self._api.exceptions, self.clean(str(error)), where or self.where
        if isinstance(error, known.UnknownConfigurationKeyError):
            return WrongUse(words, where=where, fix="correct the options of the object store")
        if isinstance(error, known.PermissionDeniedError | known.UnauthenticatedError) or "privileges" in words:
            return Unavailable(
                f"the object store refuses: {words}",
                where=where,
                fix="check the credentials in the options or the environment, and what they may do",
            )
        return Unavailable(
            f"the object store does not answer: {words}",
            where=where,
            fix="check the endpoint and the network, and try again",
        )

    def put(self, key: str, content: bytes) -> bool:
        """Put bytes where nothing lies yet, at once; say whether nothing did."""
        if len(content) > _PART:
            return self.put_chunks(key, [content], len(content))
        with self.told(self.uri(key)), self._made(key):
            try:
                self._api.put(self.store, key, content, mode="create", use_multipart=False)
            except self._api.exceptions.AlreadyExistsError:
                return False
        return True

    def put_chunks(self, key: str, chunks: Iterable[bytes], size: int) -> bool:
        """Put many bytes in parts where nothing lies yet; they appear at once when all have come."""
        if self.head(key) is not None:
            return False
        part = max(_PART, -(-size // _PARTS))
        with self.told(self.uri(key)), self._made(key):
            self._api.put(self.store, key, iter(chunks), use_multipart=True, chunk_size=part, max_concurrency=4)
        return True

    @contextmanager
    def _made(self, key: str) -> Iterator[None]:
        """Say that the bucket is not there: nothing else can be missing for who writes."""
        try:
            yield
        except FileNotFoundError as error:
            words = self.clean(str(error))
        else:
            return
        raise Unavailable(
            f"the bucket or container is not there: {words}", where=self.where, fix="make it, or correct the URL"
        )

    def head(self, key: str) -> Any:
        """Return what is known about an object, or None if it is not here."""
        with self.told(self.uri(key)), suppress(FileNotFoundError):
            return self._api.head(self.store, key)
        return None

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes, or None if it is not here."""
        with self.told(self.uri(key)), suppress(FileNotFoundError):
            return bytes(self._api.get(self.store, key).bytes())
        return None

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Return some of an object's bytes, or None if it is not here."""
        found = self.head(key)
        if found is None:
            return None
        end = min(start + length, found["size"])
        if start >= end:
            return b""
        with self.told(self.uri(key)), suppress(FileNotFoundError):
            return bytes(self._api.get_range(self.store, key, start=start, end=end))
        return None

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in pieces.

        Raises:
            FileNotFoundError: it is not here.
        """
        with self.told(self.uri(key)):
            yield from map(bytes, self._api.get(self.store, key).stream(min_chunk_size=1 << 20))

    def all_below(self, prefix: str) -> Iterator[Any]:
        """Yield what is known about each object below a prefix."""
        with self.told(self.uri(prefix)):
            for page in self._api.list(self.store, prefix or None):
                yield from page

    def directly_below(self, prefix: str) -> list[Any]:
        """Return what is known about each object in a folder, without its subfolders."""
        with self.told(self.uri(prefix)):
            return list(self._api.list_with_delimiter(self.store, prefix)["objects"])

    def delete(self, key: str) -> None:
        """Remove an object; if it is not here, nothing happens."""
        with self.told(self.uri(key)), suppress(FileNotFoundError):
            self._api.delete(self.store, key)

    def uri(self, key: str) -> str:
        """Return where an object lies."""
        return f"{self.where}/{key}" if key else self.where

    def copy_to(self, key: str, target: Path, digest: str) -> Path:
        """Make a local copy of an object, whole and compared with its digest; one that is there is taken.

        Raises:
            FileNotFoundError: the object is not here.
            Corrupt: it has another digest.
        """
        if target.exists():
            os.utime(target)  # in use: ``trim_cache`` goes by it
            return target
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = target.parent / f"tmp-{new_hex()}"
        running = hashlib.sha256()
        try:
            with temporary.open("xb") as out:
                for chunk in self.stream(key):
                    running.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fchmod(out.fileno(), 0o400)
                os.fsync(out.fileno())
            if f"sha256:{running.hexdigest()}" != digest:
                raise Corrupt("what lies there has another digest", where=self.uri(key), fix="restore it from a copy")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target


class ObjectBlobs:
    """Blobs in an object store; see ``Blobs``.

    Small ones are put on the condition that nothing lies there; large ones in parts after asking, and of two
    writers at once the second one puts the same bytes again. What a writer that died had put of a large one is
    never seen and costs space until the store's own rule for incomplete uploads removes it.

    Args:
        url: see this module.
        options: see ``open_blobs``.
        cache: the folder of ``path``'s local copies.
    """

    def __init__(self, url: str, options: Mapping[str, str], cache: Path) -> None:
        self._place = Place(url, options)
        self._cache = cache / "blobs"

    def __repr__(self) -> str:
        return f"ObjectBlobs({self._place.where!r})"

    def put(self, content: bytes) -> str:
        """Keep bytes and return their digest."""
        digest = digest_bytes(content)
        key = key_of(digest)
        if len(content) < _ASK_FIRST or self._place.head(key) is None:
            self._place.put(key, content)
        return digest

    def put_file(self, path: Path) -> str:
        """Keep a file's bytes and return their digest.

        Raises:
            Conflict: the file changed while it was read.
        """
        size = path.stat().st_size
        if size <= _PART:
            return self.put(path.read_bytes())
        digest = digest_file(path)
        self._place.put_chunks(key_of(digest), _exactly(path, digest), size)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest.

        Raises:
            NotFound: they are not here.
            Corrupt: what lies there has another digest.
        """
        content = _found(self._place.get(key_of(digest)), digest)
        if digest_bytes(content) != digest:
            raise Corrupt(f"blob {digest} has other content", fix="restore it from a copy, or run the step again")
        return content

    def get_range(self, digest: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on; they are not compared."""
        check_range(start, length)
        return _found(self._place.get_range(key_of(digest), start, length), digest)

    def size(self, digest: str) -> int:
        """Return how many bytes a digest has."""
        return int(_found(self._place.head(key_of(digest)), digest)["size"])

    def path(self, digest: str) -> Path:
        """Return a local copy, compared with the digest when it was made."""
        key = key_of(digest)
        found: Path | None = None
        with suppress(FileNotFoundError):
            found = self._place.copy_to(key, self._cache / key, digest)
        return _found(found, digest)

    def has(self, digest: str) -> bool:
        """Say whether the bytes of a digest are here."""
        return self._place.head(key_of(digest)) is not None

    def kept(self) -> Iterator[Kept]:
        """Yield all blobs, in no order."""
        for one in self._place.all_below(""):
            digest = f"sha256:{one['path'].rpartition('/')[2]}"
            with suppress(WrongUse):
                if one["path"] == key_of(digest):
                    yield Kept(digest, int(one["size"]), one["last_modified"].timestamp())

    def delete(self, digest: str) -> None:
        """Remove a blob, and the local copy; if it is not here, nothing happens."""
        key = key_of(digest)
        self._place.delete(key)
        (self._cache / key).unlink(missing_ok=True)


class ObjectFiles:
    """The files of tables in an object store; see ``Files``.

    Args:
        url: see this module.
        options: see ``open_blobs``.
        cache: the folder of local copies.
    """

    def __init__(self, url: str, options: Mapping[str, str], cache: Path) -> None:
        self._place = Place(url, options)
        self._cache = cache / "tables"
        self.options: Mapping[str, str] = self._place.options
        self.told = self._place.told
        self.clean = self._place.clean

    def __repr__(self) -> str:
        return f"ObjectFiles({self._place.where!r})"

    def uri(self, key: str) -> str:
        """Return the URL."""
        return self._place.uri(key)

    def add(self, group: str, write: Callable[[BinaryIO], None], name: Callable[[str], str]) -> tuple[str, int, str]:
        """Write a local file, then put it; it appears at once and whole."""
        with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
            path = Path(folder) / "part"
            with path.open("xb") as out:
                write(out)
            size, digest = path.stat().st_size, digest_file(path)
            called = name(digest)
            key = f"{group}/{called}"
            new = (
                self._place.put(key, path.read_bytes())
                if size <= _PART
                else self._place.put_chunks(key, _exactly(path, digest), size)
            )
        if not new:
            raise Conflict("a file of this name is there", where=self.uri(key), fix="do it again")
        return called, size, digest

    def has(self, key: str) -> bool:
        """Say whether a file is here."""
        return self._place.head(key) is not None

    def read(self, key: str) -> bytes | None:
        """Return a file's bytes, or None if it is not here."""
        return self._place.get(key)

    def names(self, group: str) -> dict[str, float]:
        """Return a group's files with the time when they were put, by the store's clock."""
        found = self._place.directly_below(group)
        return {one["path"].rpartition("/")[2]: one["last_modified"].timestamp() for one in found}

    def missing(self, group: str, names: list[str]) -> str | None:
        """Return the first of some files that is not in a group."""
        if len(names) == 1:
            return None if self.has(f"{group}/{names[0]}") else names[0]
        there = self.names(group) if names else {}
        return next((name for name in names if name not in there), None)

    def path(self, key: str, digest: str) -> Path:
        """Return a local copy, compared with the digest when it was made."""
        with suppress(FileNotFoundError):
            return self._place.copy_to(key, self._cache / key, digest)
        raise Corrupt("a file of a table is missing", where=self.uri(key))

    def digest(self, key: str) -> str:
        """Read every byte of a file where it lies and return its digest."""
        running = hashlib.sha256()
        for chunk in self._place.stream(key):
            running.update(chunk)
        return f"sha256:{running.hexdigest()}"

    def delete(self, key: str) -> None:
        """Remove a file and its local copy; if it is not here, nothing happens."""
        self._place.delete(key)
        (self._cache / key).unlink(missing_ok=True)

    def remove(self, group: str) -> None:
        """Remove all files of a group and their local copies; the log goes last, so that what is left is a table."""
        keys = [str(one["path"]) for one in self._place.all_below(group)]
        for key in sorted(keys, key=lambda key: ("/_delta_log/" in key, key)):
            self._place.delete(key)
        shutil.rmtree(self._cache / group, ignore_errors=True)

    def settle(self, group: str, first: int) -> None:
        """Nothing: what an object store has acknowledged is durable."""


def _found(value: T | None, digest: str) -> T:
    if value is None:
        raise NotFound(f"blob {digest} is not in this store", where=digest)
    return value


def _exactly(path: Path, digest: str) -> Iterator[bytes]:
    """Yield a file's bytes, and break off if they are not what was digested before."""
    running = hashlib.sha256()
    last = b""
    with path.open("rb") as source:
        while chunk := source.read(_PART):
            if last:
                yield last
            running.update(chunk)
            last = chunk
    if f"sha256:{running.hexdigest()}" != digest:
        raise Conflict("the file changed while it was read", where=str(path), fix="put it again")
    yield last


def _parted(url: str) -> tuple[str, str, str, str]:
    """Return a URL's scheme, bucket or container, prefix and Azure account."""
    parts = urlsplit(url)
    container, at, host = parts.netloc.rpartition("@")
    azure = parts.scheme in ("az", "abfs", "abfss")
    if parts.query or parts.fragment or ":" in parts.netloc or (at and not azure):
        raise WrongUse(
            "the URL of an object store names a place and nothing else",
            where=f"{parts.scheme}://{host.partition(':')[0]}{parts.path}",
            fix="give keys and signatures as options or in the environment",
        )
    bucket, account = (container, host.partition(".")[0]) if at else (host, "")
    steps = [step for step in unquote(parts.path).split("/") if step]
    if not bucket or any(step in (".", "..") for step in steps):
        raise WrongUse(
            "the URL of an object store cannot be read", where=f"{parts.scheme}://{parts.netloc}{parts.path}",
            fix="such as s3://bucket/prefix, az://container/prefix or gs://bucket/prefix",
        )  # fmt: skip
    return parts.scheme, bucket, "/".join(steps), account


def _retries(options: Mapping[str, str]) -> Any:
    """Return how often and how long is tried again."""
    try:
        found: dict[str, Any] = {"max_retries": int(options.get("max_retries", "10"))}
        found["retry_timeout"] = timedelta(seconds=float(options.get("retry_timeout", "60s").removesuffix("s")))
    except ValueError:
        raise WrongUse(
            "max_retries is a whole number and retry_timeout looks like 60s", where="options of the object store"
        ) from None
    return found


def _environment() -> dict[str, str]:
    clouds = ("AWS_", "AZURE_", "GOOGLE_")
    return {f"env_{key.lower()}": value for key, value in os.environ.items() if key.startswith(clouds)}


def _secrets(options: Mapping[str, str]) -> list[str]:
    """Return what no message may hold, the longest first."""
    found = set()
    for key, value in options.items():
        if _SECRET.search(key) and len(value) >= _SHORTEST:
            found |= {value, unquote(value)}
            found |= {part for piece in re.findall(r"sig=([^&\s]+)", value) for part in (piece, unquote(piece))}
    return sorted(found, key=len, reverse=True)
