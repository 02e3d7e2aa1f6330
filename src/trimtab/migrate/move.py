"""A move under way: where from, where to, and what every kind of thing needs in order to come over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trimtab.api.mlflow.wire import MlflowError
from trimtab.core.errors import BadInput, TrimtabError, Unavailable
from trimtab.core.nouns import Data
from trimtab.migrate.report import Report
from trimtab.migrate.source import Broken, Files, Source
from trimtab.store.artifacts import checked_path
from trimtab.store.bring import SCHEME, Kept, files_below, mark_of
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

Watch = Callable[[str, int, int], None]
"""Is told of a kind, how many of it are done, and how many there are (0: not known)."""


class Home:
    """An experiment's place: its number there and here.

    Attributes:
        new: its number here; in a dry run of one that is not here yet, the one there.
    """

    def __init__(self, old: int, new: int) -> None:
        self.old, self.new = old, new

    def root(self, *path: str) -> str:
        """Return a root here below the experiment's."""
        return "/".join([f"{SCHEME}/{self.new}", *path])


class Move:
    """What comes over from where to where.

    Args:
        store: where it comes to.
        source: where it comes from.
        names: of the experiments that are meant; empty for everything.
        dry: nothing is written.
        watch: is told how far it is.
    """

    def __init__(self, store: Store, source: Source, *, names: frozenset[str], dry: bool, watch: Watch) -> None:
        self.store, self.source, self.names, self.dry, self.watch = store, source, names, dry, watch
        self.ledger = store.ledger
        self.report = Report()
        self.homes: dict[int, Home] = {}
        self.chosen: set[str] = set()
        self.expected: Mapping[str, int] = {}
        self._left: dict[str, int] = {}

    def done(self, kind: str, *, copied: bool, **parts: int) -> None:
        """Count one thing, and what it consists of; all of it is here."""
        among = self.report.copied if copied else self.report.already
        among[kind] += 1
        among.update({name.replace("_", " "): count for name, count in parts.items()})
        whole = self.report.copied[kind] + self.report.already[kind]
        self.watch(kind, whole, self.expected.get(kind, 0))

    def saw(self, kind: str, **parts: int) -> None:
        """Count one thing that is there, and what it consists of."""
        self.report.seen[kind] += 1
        self.report.seen.update({name.replace("_", " "): count for name, count in parts.items()})

    def broken(self, one: Broken) -> None:
        """Tell of something that cannot be read."""
        self.report.tell("refused", one.kind, one.ident, one.reason)

    def write(self, fn: Callable[[Tx], Data], *, what: str, key: str) -> Data:
        """Write a unit, once and for all by its key; see ``Ledger.write``."""
        found: Data = self.ledger.write(fn, what=f"import {what}", key=f"import:{key}", like=dict[str, Any])
        return found

    def mark(self, key: str) -> Data | None:
        """Return what was written down when a unit came over, or None if it did not."""
        return mark_of(self.ledger, f"import:{key}")

    def unit(self, kind: str, ident: str, work: Callable[[], None]) -> None:
        """Let one thing come over; what cannot is told of by name, and the others go on.

        Raises:
            Unavailable: this store, or what is left, does not answer.
        """
        try:
            work()
        except Unavailable:
            raise
        except TrimtabError as error:
            self.report.tell("refused", kind, ident, error.message)
        except (ValueError, MlflowError, PermissionError, FileNotFoundError) as error:
            self.report.tell("refused", kind, ident, f"it cannot be read: {error}")

    def gone(self, kind: str, ident: str) -> None:
        """Tell of something that came over once and was deleted here since."""
        self.report.tell("conflict", kind, ident, "it was imported before and is not here any more")

    def compared(self, kind: str, ident: str, differences: list[str], **parts: int) -> None:
        """Count something that was here already, or tell how it differs."""
        if differences:
            self.report.tell("conflict", kind, ident, "it is here with other content: " + "; ".join(differences[:6]))
        else:
            self.done(kind, copied=False, **parts)

    def leave(self, root: str) -> None:
        """Note that the files below a root stay where they are."""
        scheme, _, rest = root.partition("://")
        place = f"{scheme}://{rest.partition('/')[0]}" if rest else root.partition(":")[0] if ":" in root else root
        self._left[place] = self._left.get(place, 0) + 1

    def tell_left(self) -> None:
        """Tell of the files that stay where they are, by storage."""
        for place, count in sorted(self._left.items()):
            text = f"{count} roots there keep their addresses; their files were not copied"
            self.report.tell("left", "files", place, text)

    # Files

    def kept(self, owner: str, files: Files | None, skip: frozenset[str] = frozenset()) -> list[Kept]:
        """Keep the content of files, and return what holds it by path; nothing is known of them by name yet."""
        found: list[Kept] = []
        for path, size in self.listed(owner, files, skip):
            if self.dry:
                found.append((path, "", size))
                continue
            assert files is not None
            with files.local(path) as place:
                found.append((path, self.store.blobs.put_file(place), place.stat().st_size))
        return found

    def listed(self, owner: str, files: Files | None, skip: frozenset[str] = frozenset()) -> list[tuple[str, int]]:
        """Return path and size of the files that can be kept, and tell of the others."""
        found: list[tuple[str, int]] = []
        for one in files.listed() if files else ():
            if isinstance(one, Broken):
                self.broken(one)
            elif one.path not in skip:
                try:
                    found.append((checked_path(one.path), one.size))
                except BadInput as error:
                    self.report.tell("refused", "file", f"{owner} {one.path[:200]}", error.message)
        return sorted(found)

    def files_differ(self, root: str, listed: list[tuple[str, int]]) -> list[str]:
        """Say how the files below a root here differ from those there, by path and size."""
        here = {path: size for path, _, size in files_below(self.ledger, root)}
        there = dict(listed)
        changed = [path for path in sorted({*here, *there}) if here.get(path, -1) != there.get(path, -1)]
        return [f"files, such as {changed[0]}"] if changed else []


def fields_differ(here: Mapping[str, object], there: Mapping[str, object]) -> list[str]:
    """Say which fields differ, and how where that is short."""
    found = []
    for name, value in there.items():
        if here.get(name) != value:
            words = f"{here.get(name)!r} here, {value!r} there"
            found.append(f"{name} ({words})" if len(words) < 120 else name)
    return found
