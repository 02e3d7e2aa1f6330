"""The one door for heavy or optional third-party packages, so that `import trimtab` stays light."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from trimtab.core.errors import MissingExtra

_EXTRAS = {
    "sklearn": "train", "skops": "train", "scipy": "train", "pandas": "pandas", "psycopg": "postgres",
    "opentelemetry": "traces", "obstore": "objects",
}  # fmt: skip


def need(module: str) -> Any:
    """Return the module called ``module``, imported now.

    Raises:
        MissingExtra: it is not installed; the message names the extra that brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        extra = _EXTRAS.get(top)
        fix = f"pip install 'trimtab[{extra}]'" if extra else f"pip install {top}"
        raise MissingExtra(f"{top} is needed here and is not installed", fix=fix) from error


def have(module: str) -> bool:
    """Say whether ``module`` could be imported, without importing it."""
    return find_spec(module.partition(".")[0]) is not None
