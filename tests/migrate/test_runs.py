"""Runs of a source that has what is odd, into a real store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from trimtab.core.errors import NotFound, WrongUse
from trimtab.migrate.importing import bring_over
from trimtab.migrate.report import Report
from trimtab.migrate.roots import Roots
from trimtab.migrate.source import Broken, Files, OldRun, OldTrace, OldVersion
from trimtab.store import tracking
from trimtab.store.models import LoggedModel
from trimtab.store.points import Point
from trimtab.store.registry import RegisteredModel
from trimtab.store.store import Store, open_store

A, B, C = "a" * 32, "b" * 32, "c" * 32


class Few:
    """A source of a few runs in one experiment, which counts one more than it has when it is told to."""

    where = "few"

    def __init__(self, root: str, runs: dict[str, list[Point] | str], more: int = 0) -> None:
        self.root, self._runs, self._more = root, runs, more

    def experiments(self) -> Iterator[tracking.Experiment | Broken]:
        """Yield the experiment."""
        yield tracking.Experiment(
            id="", number=3, name="e", stage="active", root=self.root, created_ms=1, updated_ms=1,
            tags={"long": "x" * 9999},
        )  # fmt: skip

    def runs(self, homes: Sequence[int]) -> Iterator[OldRun | Broken]:
        """Yield the runs."""
        for ident, points in self._runs.items():
            if isinstance(points, str) and points == "broken":
                yield Broken("run", ident, points)
                continue
            run = tracking.TrackedRun(
                id=ident, experiment=homes[0], name="n", status="FINISHED", stage="active", start_ms=1, end_ms=2,
                user_id="", root=f"{self.root}/{ident}", params={}, tags={}, metrics={},
            )  # fmt: skip
            yield OldRun(run=run)

    def points(self, run: tracking.TrackedRun) -> Iterator[Sequence[Point]]:
        """Yield the points of a run."""
        points = self._runs[run.id]
        if isinstance(points, str):
            raise ValueError(points)
        yield points

    def models(self, homes: Sequence[int]) -> Iterator[LoggedModel | Broken]:
        """Yield none."""
        return iter(())

    def traces(self, homes: Sequence[int]) -> Iterator[OldTrace | Broken]:
        """Yield none."""
        return iter(())

    def registered(self) -> Iterator[RegisteredModel | Broken]:
        """Yield none."""
        return iter(())

    def versions(self, name: str) -> Iterator[OldVersion | Broken]:
        """Yield none."""
        return iter(())

    def files(self, root: str, run_id: str = "") -> Files | None:
        """Return the files below a root."""
        return Roots().files(root)

    def counts(self, homes: Sequence[int], whole: bool) -> Mapping[str, int]:
        """Count the runs."""
        return {"runs": len(self._runs) + self._more}

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a new store."""
    with open_store(tmp_path / "store") as opened:
        yield opened


def _told(report: Report) -> list[tuple[str, str, str]]:
    return [(one.why, one.what, one.ident) for one in report.problems]


def test_what_cannot_be_read_is_named_and_the_others_come(store: Store, tmp_path: Path) -> None:
    """A run that is broken, and one whose points are, are refused; a tag that is too long too; counts tell of it."""
    (tmp_path / "there" / A / "deep").mkdir(parents=True)
    (tmp_path / "there" / A / "deep" / "f").write_text("content")
    source = Few(str(tmp_path / "there"), {A: [Point("m", 1.0, 0, 0)], B: "broken", C: "no number"}, more=1)
    report = bring_over(store, source)
    assert _told(report) == [
        ("refused", "tag", "experiment e long"), ("refused", "run", B), ("refused", "run", C),
        ("difference", "runs", ""),
    ]  # fmt: skip
    assert not report.ok and report.copied["runs"] == 1 and report.copied["files"] == 1
    assert tracking.get_run(store.ledger, A).root == f"mlflow-artifacts:/3/{A}/artifacts"
    assert [row[0] for row in store.ledger.query("SELECT path FROM artifact")] == [f"3/{A}/artifacts/deep/f"]


def test_a_dry_run_writes_nothing(store: Store, tmp_path: Path) -> None:
    """It counts what would come, and the store is as it was."""
    source = Few(str(tmp_path), {A: [Point("m", 1.0, 0, 0)]})
    before = store.ledger.query("SELECT count(*) FROM audit")
    report = bring_over(store, source, dry=True)
    assert report.copied["runs"] == report.copied["points"] == 1
    assert store.ledger.query("SELECT count(*) FROM audit") == before


def test_files_behind_a_server_that_is_not_known_stop_it_at_once(store: Store) -> None:
    """Nothing comes before it is known where the files are; one of another storage keeps its address."""
    with pytest.raises(WrongUse, match="--artifacts"):
        bring_over(store, Few("mlflow-artifacts:/3", {A: []}))
    assert not store.ledger.query("SELECT 1 FROM experiment")
    report = bring_over(store, Few("s3://bucket/x", {A: []}))
    assert ("left", "files", "s3://bucket") in _told(report)
    assert tracking.get_run(store.ledger, A).root == f"s3://bucket/x/{A}"
    assert tracking.get_experiment(store.ledger, 3).root == "s3://bucket/x"


def test_an_experiment_that_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    """The closest name is told."""
    with pytest.raises(NotFound, match="'e'"):
        bring_over(store, Few(str(tmp_path), {}), names=frozenset({"ee"}))


def test_a_run_that_is_here_is_compared(store: Store, tmp_path: Path) -> None:
    """The same again is already here, also when points came twice; other points or files are a conflict."""
    point = Point("m", 1.0, 0, 0)
    source = Few(str(tmp_path / "there"), {A: [point, point]})
    assert bring_over(store, source).copied["points"] == 1
    again = bring_over(store, source)
    assert again.already["runs"] == 1 and not again.copied["runs"]
    assert not [one for one in _told(again) if one[0] == "conflict"]
    other = bring_over(store, Few(str(tmp_path / "there"), {A: [Point("m", 2.0, 0, 0)]}))
    assert ("conflict", "runs", A) in _told(other)
    (tmp_path / "there" / A).mkdir(parents=True)
    (tmp_path / "there" / A / "new").write_text("1")
    assert any("files" in one.reason for one in bring_over(store, source).problems if one.why == "conflict")
