"""Where a store's blobs and tables lie: in its own folder, in another one, or in an object store by URL.

Both lie below one root, ``blobs/`` and ``tables/``. The store's folder remembers the root and the options that lead
there, so that every process that opens the folder finds the same bytes; secrets stay in the environment, and what is
remembered only names their variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct, field

from trimtab.core.errors import Conflict, Corrupt, WrongUse
from trimtab.core.ids import new_hex
from trimtab.store.blobs import Blobs, open_blobs, trim_cache
from trimtab.store.layout import Home
from trimtab.store.tables import DeltaTables, open_tables

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile(r"key|secret|token|password|sas|signature|credential|authorization|bearer")
_OPEN = re.compile(r"_(id|file|path|endpoint|name|url|version)$|skip_signature$")
_PROBE = b""


class Roots(Struct, frozen=True, kw_only=True):
    """Where blobs and tables lie.

    Attributes:
        at: a URL or the absolute path of a folder; empty for the store's own folder.
        options: what an object store needs, such as its region; secrets as ``${VARIABLE}`` of the environment.
    """

    at: str = ""
    options: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Roots({self.at!r})"

    @property
    def remote(self) -> bool:
        """They lie in an object store."""
        return "://" in self.at

    @property
    def variables(self) -> frozenset[str]:
        """The environment variables that the options name."""
        return frozenset(name for value in self.options.values() for name in _VARIABLE.findall(value))

    def blobs(self, home: Home) -> Blobs:
        """Open the blobs (for errors see ``blobs.open_blobs`` and ``resolve``)."""
        if self.remote:
            return open_blobs(f"{self.at}/blobs", resolve(self.options), cache=_cache(home))
        return open_blobs(_folder(self, home, "blobs"))

    def tables(self, home: Home) -> DeltaTables:
        """Open the tables (for errors see ``blobs``)."""
        if self.remote:
            return open_tables(f"{self.at}/tables", resolve(self.options), cache=_cache(home))
        return open_tables(_folder(self, home, "tables"))


def choose(home: Home, wanted: str | Path, options: Mapping[str, str]) -> tuple[Roots, bool]:
    """Return where a store's blobs and tables lie, and whether that has yet to be remembered.

    Args:
        home: the store's folder.
        wanted: a URL or folder, or empty for what the folder remembers.
        options: see ``Roots``; what is remembered changes with them.

    Raises:
        Conflict: they lie elsewhere already; nothing is ever moved.
        WrongUse: the URL or an option holds a secret; it is not told.
    """
    known = _remembered(home)
    if not wanted:
        if options:
            raise WrongUse("options are for an object store, and none is named", where="artifacts", fix="give its URL")
        return known or Roots(), False
    made = Roots(at=_normal(wanted, home), options=checked_options(options))
    if made.options and not made.remote:
        raise WrongUse("a folder has no options", where="artifacts", fix="leave them out, or give a URL")
    there = known.at if known else ""
    if made.at != there and (known is not None or _own(home)):
        raise Conflict(
            f"the blobs and tables of {home.root} lie in {there or 'it'}, and not in {made.at or 'it'}",
            where="artifacts",
            fix="leave it out, or use another --dir",
        )
    if known is not None and made.remote and not made.options:
        return known, False
    return made, made != (known or Roots())


def probe(roots: Roots, home: Home) -> None:
    """Find out that a place can be written before a folder remembers it.

    Raises:
        Unavailable: it does not answer, or refuses.
        WrongUse: a folder cannot be made.
    """
    if roots.remote:
        roots.blobs(home).put(_PROBE)
    else:
        for name in ("blobs", "tables"):
            _folder(roots, home, name)


def remember(home: Home, roots: Roots) -> None:
    """Write down where blobs and tables lie, for whoever opens the folder later."""
    fresh = home.artifacts.with_name(f"{home.artifacts.name}.{new_hex()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(msgspec.json.encode(roots))
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(home.artifacts)


def checked_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return options as they are remembered: names in small letters, no secret among the values.

    Raises:
        WrongUse: there is a secret; it is not told.
    """
    made = {}
    for name, value in options.items():
        key = name.lower()
        secret = _SECRET.search(key) is not None and _OPEN.search(key) is None
        if (secret and _VARIABLE.fullmatch(value) is None) or _tells(value):
            raise WrongUse(
                f"the option {key} holds a secret",
                where="artifacts",
                fix=f"put it into the environment and write {key}: ${{NAME_OF_THE_VARIABLE}}",
            )
        made[key] = value
    return made


def resolve(options: Mapping[str, str]) -> dict[str, str]:
    """Return options with the values of the environment variables that they name.

    Raises:
        WrongUse: a variable is not set.
    """

    def value(key: str, found: re.Match[str]) -> str:
        if not os.environ.get(found[1]):
            raise WrongUse(
                f"the environment variable {found[1]} is not set, and the option {key} needs it",
                where="artifacts",
                fix=f"set {found[1]}",
            )
        return os.environ[found[1]]

    return {key: _VARIABLE.sub(partial(value, key), text) for key, text in options.items()}


def trim(home: Home, before: float) -> int:
    """Remove local copies that nobody asked for since ``before`` (seconds since the epoch); return how many."""
    return trim_cache(_cache(home), before)


def _tells(value: str) -> bool:
    """Say whether a value is an address with a password or a signature in it."""
    return "://" in value and re.search(r"//[^/]*@|[?&]", value) is not None


def _normal(wanted: str | Path, home: Home) -> str:
    if isinstance(wanted, str) and "://" in wanted:
        if re.search(r"//[^/]*:[^/]*@|[?#]", wanted):
            raise WrongUse(
                "the URL of an object store names a place and nothing else",
                where="artifacts",
                fix="give keys and signatures in the environment, or as options that name its variables",
            )
        return wanted.rstrip("/")
    path = Path(wanted).resolve()
    return "" if path == home.root else str(path)


def _remembered(home: Home) -> Roots | None:
    if not home.artifacts.exists():
        return None
    try:
        return msgspec.json.decode(home.artifacts.read_bytes(), type=Roots)
    except msgspec.DecodeError as error:
        raise Corrupt(
            f"where blobs and tables lie cannot be read: {error}", where=str(home.artifacts), fix="restore the file"
        ) from error


def _own(home: Home) -> bool:
    return any(any(folder.iterdir()) for folder in (home.blobs, home.tables))


def _cache(home: Home) -> Path:
    return home.cache / "objects"


def _folder(roots: Roots, home: Home, name: str) -> Path:
    if not roots.at:
        return home.root / name
    folder = Path(roots.at) / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise WrongUse(
            f"the folder of blobs and tables cannot be made: {error.strerror}",
            where=str(error.filename or folder),
            fix="choose another folder (`artifacts:` in trimtab.yaml, or --artifacts), or mend its permissions",
        ) from error
    return folder
