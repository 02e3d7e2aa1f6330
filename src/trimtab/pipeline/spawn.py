"""Python processes of our own: they find this very package, and never the working directory's modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trimtab import core

PACKAGE = Path(core.__file__).resolve().parents[1]


def command(module: str, *args: str) -> list[str]:
    """Return the argument list that runs ``module``; ``-P`` keeps the working directory off the path."""
    return [sys.executable, "-P", "-m", module, *args]


def environment(**more: str) -> dict[str, str]:
    """Return the environment variables for such a process, with ``more`` on top."""
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), **more}
