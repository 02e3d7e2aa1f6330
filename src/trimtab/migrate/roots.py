"""Which files of another system can be read from here: folders, and what its server keeps in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from trimtab.migrate.folder import Folder, local_path
from trimtab.migrate.source import Files

PROXY = "mlflow-artifacts"


class Roots:
    """Finds the files below a root as MLflow names it.

    Args:
        served: the folder that the server of ``mlflow-artifacts:`` keeps, if it is known.
        base: the folder from which relative paths count.
    """

    def __init__(self, served: Path | None = None, base: Path | None = None) -> None:
        self._served = served
        self._base = base

    def files(self, root: str) -> Files | None:
        """Return the files below a root, or None where they are in another storage."""
        scheme, found, rest = root.partition(":")
        if found and scheme == PROXY:
            # With a host or without: ``mlflow-artifacts://host/1/..`` and ``mlflow-artifacts:/1/..``.
            path = rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest.lstrip("/")
            return Folder(self._served / path) if self._served and ".." not in Path(path).parts else None
        place = local_path(root)
        if place is None and root and not found and self._base:
            place = self._base / root
        return Folder(place) if place is not None else None
