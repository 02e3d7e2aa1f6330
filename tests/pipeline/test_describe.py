"""The project worker, run in a process of its own."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import msgspec

from trimtab.pipeline.describe import Answer, Request
from trimtab.pipeline.files import own_files
from trimtab.pipeline.spawn import command, environment

HEAD = "import trimtab as tt\nfrom trimtab import check as ck\n"


def _ask(root: Path, modules: list[str], **files: str) -> Answer:
    for name, text in files.items():
        (root / f"{name}.py").write_text(textwrap.dedent(text))
    request = Request(
        root=str(root),
        modules={name: f"trimtab.yaml:{index + 2}" for index, name in enumerate(modules)},
        files=own_files(root),
    )
    done = subprocess.run(
        command("trimtab.pipeline.describe"),
        input=msgspec.json.encode(request),
        capture_output=True,
        check=True,
        env=environment(),
    )
    return msgspec.msgpack.decode(done.stdout, type=Answer)


def test_tells_what_is_declared(tmp_path: Path) -> None:
    """Assets, endpoints and automations come back as data, with code digests and relative places."""
    text = (
        HEAD
        + """
print("noise on standard output")

@tt.source(path="*.csv")
def raw(): ...

@tt.model(label="late", gate=[ck.metric("auc", above=0.7)])
def delays(raw, depth=6):
    return raw

api = tt.endpoint("api", serves=delays)
tt.when(ck.drift("api.calls").fails, run=delays, then=api.roll_out)
"""
    )
    answer = _ask(tmp_path, ["steps"], steps=text)
    assert answer.problems == []
    assert [item.name for item in answer.declarations] == ["raw", "delays"]
    assert answer.declarations[1].where == "steps.py:9"
    assert answer.declarations[1].params == {"depth": 6}
    assert answer.endpoints[0].serves == "delays"
    assert [action.do for action in answer.automations[0].actions] == ["run", "roll_out"]
    assert set(answer.code["delays"]) == {"steps.delays", "steps.<module>"}


def test_tells_every_module_that_fails(tmp_path: Path) -> None:
    """Each broken module is told with the user's own file and line, and what to do."""
    answer = _ask(
        tmp_path,
        ["broken", "syntax", "exits", "mising", "lacks", "declares"],
        broken="x = 1\nraise ValueError('boom')\n",
        syntax="def f(:\n    pass\n",
        exits="import sys\nsys.exit(3)\n",
        missing="",
        lacks="import no_such_package\n",
        declares=HEAD + "\n@tt.table(layer='silvr')\ndef t(a): ...\n",
    )
    told = {problem["where"]: problem for problem in answer.problems}
    assert set(told) == {
        "broken.py:2",
        "syntax.py:1",
        "exits.py:2",
        "trimtab.yaml:5",
        "lacks.py:1",
        "declares.py:4",
    }
    assert "ValueError: boom" in told["broken.py:2"]["message"]
    assert "SystemExit: 3" in told["exits.py:2"]["message"]
    assert "did you mean 'missing'" in told["trimtab.yaml:5"]["message"]
    assert "install" in told["lacks.py:1"]["fix"]
    assert "did you mean 'silver'" in told["declares.py:4"]["message"]


def test_error_in_a_helper_names_the_helper(tmp_path: Path) -> None:
    """An error below the module names the innermost file of the project."""
    answer = _ask(tmp_path, ["top"], top="import helper\n", helper="def f():\n    return 1 / 0\nf()\n")
    assert answer.problems[0]["where"] == "helper.py:2"


def test_functions_in_functions_are_refused(tmp_path: Path) -> None:
    """A declaration that no worker can find by its name is refused where it stands."""
    text = HEAD + "def make():\n    @tt.table\n    def inner(a): ...\nmake()\n"
    answer = _ask(tmp_path, ["steps"], steps=text)
    assert answer.problems[0]["where"] == "steps.py:4"
    assert "top level" in answer.problems[0]["fix"]
