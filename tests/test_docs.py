"""The documentation is true: its declarations load, its links lead somewhere, its pages are what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.core.declare import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_readme_declarations_load() -> None:
    """The project that the README shows can be declared as it stands."""
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    before = list(REGISTRY.declared)
    try:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
        names = {one.name for one in REGISTRY.declared[len(before) :]}
    finally:
        REGISTRY.declared = before
    assert {"readings_raw", "readings", "failure_model", "failure_api"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file or folder of the project."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), target


def test_reference_is_up_to_date() -> None:
    """The generated pages are what the code says."""
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
