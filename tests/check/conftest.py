"""What the simulation tests share: the simulators of the benchmark and how many runs to make."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def evidence() -> Any:
    """The simulators that also print the committed evidence."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "evidence.py"
    spec = importlib.util.spec_from_file_location("trimtab_evidence", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def runs() -> int:
    """Replicates of each simulation: few by default, 1,500 in `make test-full`."""
    return int(os.environ.get("TRIMTAB_SIM_RUNS", "200"))
