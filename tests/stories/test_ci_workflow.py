"""The workflow that `trimtab init --ci` writes is executed, command by command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.stories.conftest import Shell, _env
from trimtab.deliver.ci import PATHS, Flavour, commands

pytestmark = pytest.mark.story


@pytest.mark.parametrize("flavour", list(PATHS))
def test_every_command_of_the_workflow_works(quickstart: Shell, flavour: Flavour) -> None:
    """The commands pass on a fresh project, and a failing gate fails the job."""
    quickstart("init", "--ci", flavour)
    todo = commands(flavour, (quickstart.folder / PATHS[flavour]).read_text())
    for command in todo:
        if "pip install" in command:  # the package under test stands for the released one
            command = f"{sys.executable} -c 'import trimtab, pytest'"
        done = subprocess.run(["bash", "-c", command], cwd=quickstart.folder, capture_output=True, env=_env())
        assert done.returncode == 0, f"{command}\n{done.stdout.decode()}{done.stderr.decode()}"
    path = quickstart.folder / "workload.py"
    path.write_text(path.read_text().replace("above=0.6", "above=0.999"))
    answer = quickstart("run", "--json", expect=1)
    assert "metric(auc above 0.999)" in answer.out
