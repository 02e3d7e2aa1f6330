"""The parts of a bronze table: Parquet files, each of which holds whole batches in the order of receipt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from trimtab.core.nouns import Data, Version
from trimtab.core.optional import need
from trimtab.pipeline.kinds import StepContext
from trimtab.store.tables import Mode, Staged

if TYPE_CHECKING:
    import polars

SOURCE, BATCH, ROW, RECEIVED = "_source", "_batch", "_row", "_received"
ADDED = (SOURCE, BATCH, ROW, RECEIVED)
PART_ROWS = 1_000_000


class Parts:
    """Writes a source's new version from old parts and new batches.

    Args:
        context: of the step.
        before: the version whose parts can be taken over, if there is one.
        batches: what each file brought; ``file`` of each is kept up to date here.
    """

    def __init__(self, context: StepContext, before: Version | None, batches: Mapping[str, Data]) -> None:
        self._context = context
        self._tables = context.store.tables
        self._table_id = context.table_id()
        self._before = before
        self._by_number = {int(batch["batch"]): batch for batch in batches.values()}
        self._staged: list[Staged] = []
        self.names: list[str] = []

    def commit(self, fresh: Iterable[polars.DataFrame], survivors: set[int]) -> Data:
        """Commit new batches (one frame each) beside the batches that stay; return the version's location.

        Old rows are not read, but for a part in which a batch was replaced: it is written again without it.
        Nothing is committed when nothing is new.
        """
        before = self._before
        fresh = list(fresh)
        if before is None or not survivors:
            return self.replace(fresh)
        if not fresh:
            self.names = list(before.meta["parts"])
            return before.location
        return self._beside(before, fresh, survivors)

    def replace(self, batches: Iterable[polars.DataFrame]) -> Data:
        """Commit batches in place of all rows; return the version's location."""
        self._staged, self.names = [], []
        self._stage(batches)
        return self._write("overwrite", [], base=...)

    def _beside(self, before: Version, fresh: list[polars.DataFrame], survivors: set[int]) -> Data:
        """Commit new batches beside the old ones that stay.

        The version builds on ``before``, whatever was committed since: by a run that was never recorded, or
        by another environment.
        """
        held: dict[str, set[int]] = {name: set() for name in before.meta["parts"]}
        for batch in before.meta["batches"].values():
            held[batch["file"]].add(int(batch["batch"]))
        paths = {path.name: path for path in self._tables.files(before.location)}
        dropped = []
        for name, numbers in held.items():
            if numbers <= survivors:
                self.names.append(name)
                continue
            dropped.append(name)
            if numbers & survivors:
                self._stage(self._split(paths[name], numbers & survivors), whole=True)
        self._stage(fresh)
        return self._write("append", dropped, base=int(before.location["delta_version"]))

    def _split(self, path: Path, wanted: set[int]) -> list[polars.DataFrame]:
        """Return some of a part's batches, one frame each."""
        pl: Any = need("polars")
        rows = pl.read_parquet(path)
        return [rows.filter(pl.col(BATCH) == number) for number in sorted(wanted)]

    def _stage(self, batches: Iterable[polars.DataFrame], *, whole: bool = False) -> None:
        """Write batches into parts of about ``PART_ROWS`` rows, or into one."""
        pl: Any = need("polars")
        group: list[polars.DataFrame] = []
        batches = list(batches)
        for position, frame in enumerate(batches, start=1):
            group.append(frame)
            if position < len(batches) and (whole or sum(part.height for part in group) < PART_ROWS):
                continue
            staged = self._tables.stage(self._table_id, pl.concat(group))
            self._staged.append(staged)
            self.names.append(staged.file)
            for part in group:
                for number in part[BATCH].unique():
                    self._by_number[int(number)]["file"] = staged.file
            group = []

    def _write(self, mode: Mode, dropped: list[str], *, base: int | EllipsisType) -> Data:
        location = self._tables.commit(
            self._staged,
            table_id=self._table_id,
            mode=mode,
            run_id=self._context.run_id,
            drop_files=dropped,
            base=base,
        )
        # A batch without rows lies in no part; it stands with the last one.
        for batch in self._by_number.values():
            if batch.get("file") not in self.names:
                batch["file"] = self.names[-1]
        return location
