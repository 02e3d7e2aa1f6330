"""``trimtab init``: a project that runs at once, with data of its own and a test."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trimtab.core.errors import WrongUse
from trimtab.core.ref import check_name

_TEMPLATE = Path(__file__).parent / "template"


def init_project(folder: Path, *, name: str = "") -> list[Path]:
    """Write a small working project into ``folder`` and return the files that were written.

    Args:
        folder: made if it is not there.
        name: of the project; by default made from the folder's name.

    Raises:
        WrongUse: a file that would be written is there already; nothing is written then.
    """
    files = {path.stem: path.read_text() for path in sorted(_TEMPLATE.glob("*.tmpl"))}
    plain = "".join(char if char.isalnum() else "_" for char in (name or folder.resolve().name)).strip("_")
    files["trimtab.yaml"] = files["trimtab.yaml"].replace("PROJECT_NAME", check_name(plain or "project"))
    files["data/readings.csv"] = _readings()
    files[".gitignore"] = ".trimtab/\n__pycache__/\n"
    there = [file for file in files if (folder / file).exists()]
    if there:
        raise WrongUse(f"{there[0]} is already in {folder}", fix="choose an empty folder: trimtab init NEW_FOLDER")
    written = []
    for file, text in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
    return written


def _readings(rows: int = 1200) -> str:
    """Return made-up readings as CSV text, always the same: hot, shaking machines fail more often."""
    draw = random.Random(20260101)  # noqa: S311  (example data, not a secret)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    lines = ["reading_id,machine,taken_at,temperature,vibration,failed_within_a_week"]
    for number in range(rows):
        taken = start + timedelta(minutes=30 * number)
        temperature = draw.gauss(70, 8)
        vibration = abs(draw.gauss(2.0, 0.8))
        risk = 0.05 + 0.02 * max(0.0, temperature - 70) + 0.12 * max(0.0, vibration - 2.0)
        failed = int(draw.random() < risk)
        shown = "999.0" if number % 151 == 150 else f"{temperature:.1f}"
        shaken = "" if number % 97 == 96 else f"{vibration:.2f}"
        lines.append(f"{number + 1},m{number % 7 + 1},{taken:%Y-%m-%dT%H:%M:%S},{shown},{shaken},{failed}")
    return "\n".join(lines) + "\n"
