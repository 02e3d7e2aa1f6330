"""The project file."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.core.errors import NotFound, ProjectError
from trimtab.pipeline.project import Project, find_project

GOOD = """\
project: flights
modules: [flights.tables, flights.model]
store: .store
workers: 2
clock: {simulated: 2013-04-01T00:00:00Z}
environments:
  dev:
    endpoints:
      delay_api: {timeout: 5s}
    automations:
      retrain: {enabled: false}
  prod: {}
"""


def _load(folder: Path, text: str) -> Project:
    (folder / "trimtab.yaml").write_text(text)
    return find_project(folder)


def _wrong(folder: Path, text: str) -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        _load(folder, text)
    return caught.value


def test_reads_the_file_from_a_folder_below(tmp_path: Path) -> None:
    """The nearest project file above is the project's."""
    (tmp_path / "trimtab.yaml").write_text(GOOD)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    project = find_project(tmp_path / "deep" / "er")
    assert project.name == "flights"
    assert project.modules == ("flights.tables", "flights.model")
    assert project.store == project.root / ".store"
    assert project.clock == {"simulated": "2013-04-01T00:00:00+00:00"}
    assert project.live("dev")["endpoints"] == {"delay_api": {"timeout": "5s"}}
    assert project.live("test") == {}


def test_defaults(tmp_path: Path) -> None:
    """A name and a module are enough."""
    project = _load(tmp_path, "project: p\nmodules: m\n")
    assert project.modules == ("m",)
    assert project.store == project.root / ".trimtab"
    assert project.workers >= 1
    assert project.lock is None


def test_no_project_file(tmp_path: Path) -> None:
    """Without a project file the error says how to start one."""
    with pytest.raises(NotFound, match="trimtab init"):
        find_project(tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("project: p\nmodles: [m]\nmodules: [m]\n", 2, "did you mean 'modules'"),
        ("project: p\nmodules: [m\n", 3, "not YAML"),
        ("project: p\nmodules: [m]\nproject: q\n", 3, "stands twice"),
        ("project: p\nmodules: [m-x]\n", 2, "dotted name"),
        ("project: p\nmodules: 3\n", 2, "lists the modules"),
        ("project: 3\nmodules: [m]\n", 1, "is text"),
        ("modules: [m]\n", 1, "project is missing"),
        ("project: p\nmodules: [m]\nworkers: many\n", 3, "whole number"),
        ("project: p\nmodules: [m]\nworkers: true\n", 3, "whole number"),
        ("project: p\nmodules: [m]\nlock: none.txt\n", 3, "does not exist"),
        ("project: p\nmodules: [m]\nclock: {simulated: soon}\n", 3, "ISO 8601"),
        ("project: p\nmodules: [m]\nclock: {simulatd: 2013-01-01}\n", 3, "did you mean 'simulated'"),
        (
            "project: p\nmodules: [m]\nenvironments:\n  dev:\n    endpoint: {}\n",
            5,
            "did you mean 'endpoints'",
        ),
        (
            "project: p\nmodules: [m]\nenvironments:\n  dev:\n    endpoints:\n      a: {timeut: 1s}\n",
            6,
            "did you mean 'timeout'",
        ),
        ("project: p\nmodules: [m]\nenvironments: [dev]\n", 3, "holds keys and values"),
        ("- a\n", 1, "holds keys and values"),
        ("project: p\nmodules: [m]\nenvironments: &a {dev: *a}\n", 3, "repeats a part"),
        ("project: &a [*a]\nmodules: [m]\n", 1, "repeats a part"),
        ("project: p\n? [a]\n: 1\n", 2, "no plain word"),
        (f"project: p\nmodules: [m]\nenvironments: {{dev: {'x' * 5000!r}}}\n", 3, "holds keys and values"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    """A mistake names the file, the line, and the closest word that is right."""
    error = _wrong(tmp_path, text)
    assert error.where == f"trimtab.yaml:{line}"
    assert message in str(error)


def test_several_mistakes_are_told_together(tmp_path: Path) -> None:
    """Two mistakes make one error that tells both."""
    error = _wrong(tmp_path, "project: p\nmodles: m\nworkers: 0\n")
    assert "3 things are wrong" in error.message
    assert "trimtab.yaml:2" in error.message and "trimtab.yaml:3" in error.message


def test_unknown_environment(tmp_path: Path) -> None:
    """An environment that the project does not have is refused with the closest; dev always exists."""
    project = _load(tmp_path, GOOD)
    project.check_environment("dev")
    with pytest.raises(NotFound, match="did you mean 'prod'"):
        project.check_environment("prd")


def test_artifacts_are_a_place_and_its_options(tmp_path: Path) -> None:
    """A folder counts from the project; a URL stays; options are texts, and name the variables of secrets."""
    head = "project: p\nmodules: m\n"
    project = _load(tmp_path, head)
    assert (project.artifacts, project.options) == ("", {})
    assert _load(tmp_path, head + "artifacts: kept/here\n").artifacts == str(project.root / "kept/here")
    assert _load(tmp_path, head + "artifacts: s3://bucket/p\n").artifacts == "s3://bucket/p"
    text = "artifacts:\n  at: az://c/p\n  options: {allow_http: true, max_retries: 3, AZURE_STORAGE_SAS_KEY: '${A}'}\n"
    project = _load(tmp_path, head + text)
    assert project.artifacts == "az://c/p"
    assert project.options == {"allow_http": "true", "max_retries": "3", "azure_storage_sas_key": "${A}"}


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("artifacts: [x]", "artifacts is text", 3),
        ("artifacts: {options: {}}", "artifacts.at is a URL or a folder", 3),
        ("artifacts: {at: 's3://b', optoins: {}}", "did you mean 'options'", 3),
        ("artifacts:\n  at: s3://b\n  options: {aws_secret_access_key: hidden}", "holds a secret", 5),
        ("artifacts:\n  at: s3://b\n  options: {aws_region: [hidden]}", "aws_region is text", 5),
    ],
)
def test_wrong_artifacts_are_told_by_their_line(tmp_path: Path, text: str, message: str, line: int) -> None:
    """What is wrong is told with its line, and a secret is not."""
    error = _wrong(tmp_path, f"project: p\nmodules: m\n{text}\n")
    assert message in str(error) and f"trimtab.yaml:{line}" in str(error)
    assert "hidden" not in str(error)
