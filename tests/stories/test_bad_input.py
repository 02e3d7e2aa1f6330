"""Broken projects, sources and steps: each error says what, where and how to mend it, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.stories.conftest import Shell

pytestmark = pytest.mark.story

YAML = "project: broken\nmodules: [steps]\n"
HEAD = "import polars as pl\nimport trimtab as tt\nfrom trimtab import check as ck\n\n"
GOOD = HEAD + (
    '@tt.source(path="data/*.csv")\ndef raw(): ...\n\n\n'
    '@tt.table(key="id", checks=[ck.unique("id")])\n'
    'def clean(raw):\n    return raw.select(pl.col("id").cast(pl.Int64), pl.col("x").cast(pl.Float64))\n\n\n'
    '@tt.table(layer="gold")\ndef total(clean):\n    return tt.sql("select sum(x) as x from clean")\n'
)


@pytest.fixture
def project(shell: Shell) -> Shell:
    """A small project that works."""
    shell.write("trimtab.yaml", YAML)
    shell.write("steps.py", GOOD)
    shell.write("data/a.csv", "id,x\n1,0.5\n2,1.5\n")
    return shell


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("project: broken\nmodulez: [steps]\n", "did you mean 'modules'"),
        ("project: [1]\nmodules: [steps]\n", "trimtab.yaml:1"),
        ("project: broken\nmodules: [stepz]\n", "stepz"),
        ("project: broken\nmodules: [steps\n", "trimtab.yaml"),
        ("project: broken\nmodules: [steps]\nclock: {simulated: soon}\n", "trimtab.yaml:3"),
    ],
)
def test_broken_project_file(project: Shell, yaml: str, says: str) -> None:
    """The line and the closest key are named."""
    project.write("trimtab.yaml", yaml)
    assert says in project("plan", expect=2).err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def clean(raw)", "def clean(rwa)", "did you mean 'raw'"),
        ("def total(clean)", "def clean(total)", "clean"),
        ("import polars as pl", "import polarz as pl", "polarz"),
        ("def raw(): ...", "def raw(): ...\n\n\nfoo(", "steps.py"),
        ('ck.unique("id")', "ck.unique()", "steps.py:"),
        ('layer="gold"', 'layer="golden"', "did you mean 'gold'"),
        ("@tt.source(", "1 / 0\n@tt.source(", "steps.py:5"),
    ],
)
def test_broken_declarations(project: Shell, old: str, new: str, says: str) -> None:
    """File, line and the closest name are told at load; nothing has run."""
    project.write("steps.py", GOOD.replace(old, new))
    answer = project("plan", expect=2)
    assert says in answer.err and "steps.py:" in answer.err
    assert "fix:" in answer.err


def test_cycle(project: Shell) -> None:
    """A cycle is printed as one."""
    project.write("steps.py", GOOD.replace("def clean(raw)", "def clean(raw, total)"))
    error = project("plan", expect=2).err
    assert "cycle" in error and "clean" in error and "total" in error


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("b.csv", b"id,x\n3,0.5\n4", "b.csv"),
        ("b.csv", b'id,x\n3,"0.5\n', "b.csv"),
        ("b.csv", b"id,y\n3,0.5\n", "y"),
        ("b.csv", b"id,x\n3,\xff\xfe\n", "b.csv"),
        ("b.csv", b"", "b.csv"),
    ],
)
def test_broken_source_file(project: Shell, name: str, content: bytes, says: str) -> None:
    """A truncated, garbled or changed file is named, and what was there stays current."""
    project("run")
    (project.folder / "data" / name).write_bytes(content)
    answer = project("run", expect=None)
    assert answer.code in (2, 3) and says in answer.out + answer.err
    assert project.json("sql", "select count(*) from raw")["rows"] == [[2]]
    (project.folder / "data" / name).write_bytes(b"id,x\n3,2.5\n")
    project("run")
    assert project.json("sql", "select x from total")["rows"] == [[4.5]]


def test_failed_gate_keeps_the_old_version(project: Shell) -> None:
    """A version that fails its gate is not published; its rows can be looked at; dependants do not run."""
    project("run")
    project.write("data/b.csv", "id,x\n1,9.0\n1,8.0\n")
    answer = project("run", "--json", expect=1)
    states = {stage["id"]: stage["state"] for stage in answer.data["stages"]}
    assert states["make:clean"] == "failed" and states["make:total"] == "blocked"
    assert project.json("sql", "select x from total")["rows"] == [[2.0]]
    assert project.json("sql", "select count(*) from clean.quarantine")["rows"] == [[2]]
    assert project.json("sql", "select count(*) from raw")["rows"] == [[4]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('raise ValueError("no such carrier")', "no such carrier"),
        ("import os; os.kill(os.getpid(), 9)", "signal"),
        ('return raw.select(pl.col("nope"))', "nope"),
        ("return 5", "int"),
    ],
)
def test_broken_step(project: Shell, body: str, says: str) -> None:
    """A step that raises, dies or returns nonsense fails alone; the next run resumes behind what worked."""
    project.write(
        "steps.py",
        GOOD.replace('    return raw.select(pl.col("id").cast', f'    {body}\n    return raw.select(pl.col("id").cast'),
    )
    answer = project("run", "--json", expect=None)
    assert answer.code in (2, 3)
    stages = {stage["id"]: stage for stage in answer.data["stages"]}
    assert stages["make:raw"]["state"] == "done" and stages["make:clean"]["state"] == "failed"
    assert says in stages["make:clean"]["error"]["message"]
    project.write("steps.py", GOOD)
    again = {stage["id"]: stage["state"] for stage in project.json("run")["stages"]}
    assert again == {"make:raw": "reused", "make:clean": "done", "make:total": "done"}


@pytest.mark.parametrize("query", ["drop table clean", "create table t as select 1", "copy clean to 'x.csv'"])
def test_sql_only_reads(project: Shell, query: str) -> None:
    """`trimtab sql` refuses what would write."""
    project("run")
    assert "read" in project("sql", query, expect=2).err
    assert not (project.folder / "x.csv").exists()


def test_sql_does_not_leave_the_store(project: Shell) -> None:
    """`trimtab sql` opens no file that is not a table of the store."""
    project("run")
    project("sql", "select * from read_text('/etc/passwd')", expect=2)
    assert "did you mean 'clean'" in project("sql", "select * from claen", expect=2).err


def test_unknown_names(project: Shell) -> None:
    """A wrong name gets the closest one."""
    project("run")
    assert "did you mean 'clean'" in project("show", "claen", expect=2).err
    assert "did you mean 'clean'" in project("run", "claen", expect=2).err
    assert "not a reference" in project("show", "../../etc", expect=2).err
