"""Bronze tables: rows as received, each with its source file, batch, row number and time of receipt.

Each file is one batch. A run reads only files that are new or have changed; what a changed file brought
before is replaced, and what a removed file brought stays. With row-level checks all rows ever received are
judged again, those in quarantine too, so that the result does not depend on how the files came in.

A table's Parquet files are its *parts*: each holds the batches of one run, in order.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trimtab.check.tables import Measured, is_row_check, judge_table, quality
from trimtab.core.clock import monotonic, parse_time
from trimtab.core.digest import digest, digest_bytes, digest_file
from trimtab.core.errors import BadInput, BadSource, ProjectError, closest
from trimtab.core.nouns import Data, Version
from trimtab.core.optional import need
from trimtab.data.checks import CHECK, REASON, Examined
from trimtab.data.frames import scan, storable, to_arrow
from trimtab.data.parts import ADDED, BATCH, RECEIVED, ROW, SOURCE, Parts
from trimtab.data.publish import Judged, columns_of, describe, judge, keep_aside, refused, throughput, time_range
from trimtab.data.read import format_of, read_file
from trimtab.pipeline.kinds import Made, StepContext, StepResult
from trimtab.store import facts
from trimtab.store.columns import kept_type, narrow

if TYPE_CHECKING:
    import polars
    import pyarrow

_CHANGED = "the file changed while it was read"


@dataclass
class _Receipt:
    """What one run of a source takes over from before, and what it receives.

    Attributes:
        before: the version that is current now, if its batches can be taken over.
        batches: what each file brought, by path; updated as files are read.
        fresh: the rows that this run received, one frame a batch.
        replaced: numbers of the batches of files that have changed.
    """

    context: StepContext
    before: Version | None
    batches: dict[str, Data]
    fresh: list[polars.DataFrame] = field(default_factory=list)
    replaced: set[int] = field(default_factory=set)
    again: bool = False
    reader: str = ""
    schema: Any = None
    files: int = 0
    size: int = 0

    @property
    def looks(self) -> bool:
        """Whether rows have to be looked at one by one, or were set aside before and may come back."""
        aside = self.before is not None and self.before.meta.get("quarantine")
        return bool(aside) or any(is_row_check(check) for check in self.context.declaration.checks)

    @property
    def rows(self) -> int:
        """How many rows this run received."""
        return sum(frame.height for frame in self.fresh)

    def survivors(self) -> set[int]:
        """Return the batches that were there before and stay.

        Raises:
            BadSource: the files are read in another way now, and one of those that stay is gone.
        """
        if self.before is None:
            return set()
        fresh = {int(frame[BATCH][0]) for frame in self.fresh if frame.height}
        before = {int(batch["batch"]) for batch in (self.before.meta.get("batches") or {}).values()}
        now = {int(batch["batch"]): name for name, batch in self.batches.items()}
        stay = {number for number in before if number in now and number not in fresh}
        if stay and self.again and self.fresh:
            gone = ", ".join(sorted(now[number] for number in stay)[:4])
            raise BadSource(
                f"the source reads its files in another way now, and files that it read before are gone: {gone}",
                where=self.context.declaration.where,
                fix="put them back, or give the source another name",
            )
        return stay

    def columns(self) -> dict[str, str]:
        """Return the table's columns and their types, as text."""
        if self.fresh:
            return columns_of(self.fresh[0])
        return dict(self.before.meta["columns"]) if self.before is not None else {}

    def next_batch(self) -> int:
        """Return the number of the next batch."""
        return 1 + max((int(batch["batch"]) for batch in self.batches.values()), default=0)

    def take(self, name: str, table: pyarrow.Table, content: str) -> None:
        """Add what a file (or a function) brought as a batch; its former batch is replaced."""
        pl: Any = need("polars")
        where = self.context.declaration.where
        for column in (*ADDED, CHECK, REASON):
            if column in table.schema.names:
                raise BadSource(f"column {column!r} has a reserved name", where=name, fix="rename it")
        number = self.next_batch()
        frame = pl.from_arrow(table)
        low, high = time_range(frame, self.context.declaration.spec.get("time"), where, strict=False)
        at = pl.lit(self.context.now).cast(pl.Datetime("us", "UTC"))
        self.fresh.append(
            frame.with_columns(
                pl.lit(name, pl.String).alias(SOURCE),
                pl.lit(number, pl.Int64).alias(BATCH),
                pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW),
                at.alias(RECEIVED),
            )
        )
        if name in self.batches:
            self.replaced.add(int(self.batches[name]["batch"]))
        self.batches[name] = {
            "digest": content,
            "rows": frame.height,
            "batch": number,
            "received_at": self.context.now.isoformat(),
            "time_min": low,
            "time_max": high,
        }


def build_source(context: StepContext) -> StepResult:
    """Receive what is new, judge it, and publish the next bronze version or refuse it.

    Raises:
        BadSource: a file cannot be read, or its columns are not those of the batches before.
        ProjectError: the function neither reads a file nor returns rows.
    """
    began = monotonic()
    receipt = _receive(context)
    survivors = receipt.survivors()
    rows = _all_rows(receipt, survivors) if receipt.looks else None
    judged = _judge(receipt, rows)
    aside = keep_aside(context, judged.aside)
    place = aside.location if aside else None
    if not judged.passed:
        own = refused(context, judged, {**_meta(receipt, rows, judged), "quarantine": place})
    else:
        parts = Parts(context, receipt.before, receipt.batches)
        location = _commit(receipt, parts, survivors, judged, rows)
        meta = {**_meta(receipt, judged.kept if rows is not None else None, judged), "quarantine": place}
        own = Made(
            asset=context.declaration.name,
            kind=context.declaration.kind,
            digest=location["digest"],
            state="published",
            location=location,
            meta={**meta, "rows": location["rows"], "parts": parts.names, "batches": receipt.batches},
        )
    known = context.fingerprint if context.declaration.spec["path"] else receipt.batches
    told = {
        **throughput(receipt.rows, receipt.size, own, judged, began),
        "files_read": receipt.files,
        "files_replaced": len(receipt.replaced),
        "files_removed": sum(name not in known for name in receipt.batches),
    }
    return StepResult(made=[own, *([aside] if aside else [])], verdicts=judged.verdicts, facts=told)


def reads_nothing(function: Any) -> bool:
    """Say whether a function's body is only ``...``, ``pass`` or a docstring."""
    code = function.__code__
    told = code.co_consts[:1] if isinstance(code.co_consts[0], str) else ()
    empty = _only_told if told else _nothing
    return bool(code.co_code == empty.__code__.co_code and code.co_consts[len(told) :] == (None,))


def _nothing() -> None: ...


def _only_told() -> None:
    """Stand for functions that consist of a docstring."""


def _receive(context: StepContext) -> _Receipt:
    spec = context.declaration.spec
    reader = _reader(context)
    previous = context.previous if context.previous and "parts" in context.previous.meta else None
    batches: dict[str, Data] = {}
    if previous is not None:
        batches = {name: dict(batch) for name, batch in (previous.meta.get("batches") or {}).items()}
    again = previous is not None and previous.meta.get("reader") != reader
    receipt = _Receipt(context=context, before=previous, batches=batches, reader=reader, again=again)
    if not spec["path"]:
        _call(receipt)
        return receipt
    receipt.schema = _known_schema(receipt) if not again else None
    fresh = [
        name
        for name, content in sorted(context.fingerprint.items())
        if again or batches.get(name, {}).get("digest") != content
    ]
    for name, table in _tables(receipt, fresh):
        receipt.take(name, table, context.fingerprint[name])
    return receipt


def _reader(context: StepContext) -> str:
    """Return what decides how a file is read: when it changes, all files are read again."""
    run = facts.get_run(context.store.ledger, context.run_id)
    code = run.code.get("digest", "") if run is not None else ""
    spec = context.declaration.spec
    return digest({"format": spec["format"], "null": spec["null"], "params": context.params, "code": code})


def _call(receipt: _Receipt) -> None:
    """Call a source without files; its rows replace those before, as one batch, if they have changed."""
    context = receipt.context
    declaration = context.declaration
    if reads_nothing(context.function):
        raise ProjectError(
            f"source {declaration.name} has neither files nor a body",
            where=declaration.where,
            fix="give path='data/*.csv', or return a frame",
        )
    made = context.function(**context.params)
    table = to_arrow(made, what=f"what {declaration.name}() returned", where=declaration.where)
    content = _content_digest(table)
    receipt.size, receipt.files = table.nbytes, 1
    if receipt.batches.get(declaration.name, {}).get("digest") != content:
        receipt.take(declaration.name, table, content)
        # It returned all rows there are, so whatever it or files brought before is replaced.
        receipt.batches = {declaration.name: receipt.batches[declaration.name]}


def _content_digest(table: Any) -> str:
    sink = need("pyarrow").BufferOutputStream()
    need("pyarrow.parquet").write_table(table.combine_chunks(), sink, compression="none", store_schema=False)
    return digest_bytes(memoryview(sink.getvalue()))


def _tables(receipt: _Receipt, names: Sequence[str]) -> Iterator[tuple[str, pyarrow.Table]]:
    """Yield the rows of each file, with the columns and types that all batches have."""
    context = receipt.context
    spec = context.declaration.spec
    wants_path = _wants_path(context)
    loose = not wants_path and any(format_of(name, spec["format"]) in ("json", "jsonl") for name in names)
    found: Iterable[tuple[str, Any]] = ((name, _read(receipt, name, wants_path)) for name in names)
    if loose:
        # JSON tells a type only where a value stands, so the files of one run agree on theirs first.
        found = list(found)
        receipt.schema = receipt.schema or _common_schema(found)
    for name, table in found:
        if receipt.schema is None:
            receipt.schema = narrow(storable(table.slice(0, 0), what=name).schema)
        yield name, _conform(table, receipt.schema, name, loose=loose)


def _wants_path(context: StepContext) -> bool:
    """Say whether the source's function reads a file by itself."""
    function, declaration = context.function, context.declaration
    if reads_nothing(function):
        return False
    taken = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
    ]
    if len(taken) == 1:
        return True
    raise ProjectError(
        f"source {declaration.name} has path= and a body, and takes {len(taken)} parameters without a default",
        where=declaration.where,
        fix="let it take one file's path and return that file's rows, or make its body '...'",
    )


def _read(receipt: _Receipt, name: str, wants_path: bool) -> pyarrow.Table:
    context = receipt.context
    spec = context.declaration.spec
    path = context.project_root / name
    if wants_path:
        made = context.function(path, **context.params)
        where = context.declaration.where
        table = to_arrow(made, what=f"what {context.declaration.name}({name!r}) returned", where=where)
    else:
        table = read_file(path, name=name, format=spec["format"], null=spec["null"])
    if digest_file(path) != context.fingerprint[name]:
        raise BadSource(_CHANGED, where=name, fix="run again when it is complete")
    receipt.files += 1
    receipt.size += path.stat().st_size
    return table


def _known_schema(receipt: _Receipt) -> Any:
    """Return columns and types of the batches before, or None."""
    before = receipt.before
    if before is None or not receipt.batches:
        return None
    paths = receipt.context.store.tables.files(before.location)
    if not paths:
        return None
    pyarrow: Any = need("pyarrow")
    schema = narrow(need("pyarrow.parquet").read_schema(paths[0]))
    return pyarrow.schema([column for column in schema if column.name not in ADDED])


def _common_schema(found: Iterable[tuple[str, pyarrow.Table]]) -> Any:
    """Return the columns of all JSON files: a column without a value anywhere is text, 1 and 1.5 are numbers."""
    pyarrow: Any = need("pyarrow")
    kinds: dict[str, Any] = {}
    for _, table in found:
        stored = storable(table.slice(0, 0), what="JSON").schema
        for column in stored:
            known = kinds.get(column.name)
            wider = known is None or pyarrow.types.is_null(known)
            wider = wider or (pyarrow.types.is_integer(known) and pyarrow.types.is_floating(column.type))
            if wider:
                kinds[column.name] = column.type
    return narrow(pyarrow.schema(list(kinds.items())))


def _conform(table: pyarrow.Table, schema: Any, name: str, *, loose: bool) -> pyarrow.Table:
    """Return a batch with the columns and types that the source has.

    Raises:
        BadSource: a column is missing (JSON may leave one out), new, or of another type.
    """
    pyarrow: Any = need("pyarrow")
    if table.schema.equals(schema):
        return table
    have, want = table.schema.names, schema.names
    absent = [] if loose else [column for column in want if column not in have]
    new = [column for column in have if column not in want]
    if absent or new:
        parts = [f"{', '.join(absent)} missing"] if absent else []
        parts += [f"{', '.join(new)} new"] if new else []
        raise BadSource(
            f"the columns are not those of the batches before: {'; '.join(parts)}"
            + (closest(new[0], absent) if new and absent else ""),
            where=name,
            fix="mend the file, or give the source a function that takes the file's path and maps its columns",
        )
    columns = []
    for kind in schema:
        if kind.name not in have:
            columns.append(pyarrow.nulls(table.num_rows, kind.type))
            continue
        columns.append(_as_before(table.column(kind.name), kind, name))
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _as_before(column: Any, kind: Any, name: str) -> Any:
    pyarrow: Any = need("pyarrow")
    types = pyarrow.types
    try:
        one = storable(pyarrow.table({kind.name: column}), what=name, where=name).column(0)
        kept = kept_type(one.type)
        same = kept == kind.type or types.is_null(column.type) or types.is_nested(kind.type)
        if same or (types.is_integer(kept) and (types.is_integer(kind.type) or types.is_floating(kind.type))):
            return one.cast(kind.type)
        problem = f"is {kept}"
    except pyarrow.ArrowException as error:
        problem = f"does not fit ({error})"
    except BadInput as error:
        raise BadSource(error.message, where=name, fix=error.fix) from error
    raise BadSource(
        f"column {kind.name!r} {problem}; in the batches before it is {kind.type}",
        where=name,
        fix="give the source a function that takes the file's path and casts the column",
    )


def _all_rows(receipt: _Receipt, survivors: set[int]) -> polars.DataFrame:
    """Return every row that was received and still counts, in order of receipt: quarantined ones too."""
    pl: Any = need("polars")
    store, before = receipt.context.store, receipt.before
    frames = list(receipt.fresh)
    if before is not None and survivors:
        old = [scan(store, before).collect()]
        place = before.meta.get("quarantine")
        if place:
            old.append(store.tables.scan(place).collect().drop(CHECK, REASON))
        kept = pl.col(BATCH).is_in(list(survivors))
        frames = [pl.concat([part.filter(kept) for part in old]).sort(BATCH, ROW), *frames]
    return pl.concat(frames)  # type: ignore[no-any-return]


def _judge(receipt: _Receipt, rows: polars.DataFrame | None) -> Judged:
    """Judge all rows; without row-level checks their number and columns are enough."""
    context = receipt.context
    checks, where = context.declaration.checks, context.declaration.where
    if rows is not None:
        return judge(rows, checks, key=(SOURCE, ROW), at=context.now, where=where)
    pl: Any = need("polars")
    total = sum(int(batch["rows"]) for batch in receipt.batches.values())
    measured = Measured(rows=total, columns=tuple(receipt.columns()))
    none = pl.DataFrame()
    found = Examined(none, measured, none, {}, {})
    verdicts = judge_table(checks, measured, at=context.now)
    passed = all(verdict.status != "fail" for verdict in verdicts)
    return Judged(checks, found, verdicts, none, passed)


def _commit(
    receipt: _Receipt, parts: Parts, survivors: set[int], judged: Judged, rows: polars.DataFrame | None
) -> Data:
    """Commit what passed: new rows beside the old parts, or all of them when old rows are judged otherwise now."""
    pl: Any = need("polars")
    if rows is None:
        return parts.commit(receipt.fresh, survivors)
    kept = judged.kept
    if survivors and receipt.before is not None:
        old = pl.col(BATCH).is_in(list(survivors))
        published = scan(receipt.context.store, receipt.before).filter(old).select(BATCH, ROW).collect()
        if not kept.filter(old).select(BATCH, ROW).equals(published):
            return parts.replace(_by_batch(kept, receipt.batches))
    fresh = {int(frame[BATCH][0]) for frame in receipt.fresh if frame.height}
    new = kept.filter(pl.col(BATCH).is_in(list(fresh)))
    empty = [frame for frame in receipt.fresh if not frame.height]
    return parts.commit([*_by_batch(new, receipt.batches, fresh), *empty], survivors)


def _by_batch(
    rows: polars.DataFrame, batches: Mapping[str, Data], wanted: set[int] | None = None
) -> list[polars.DataFrame]:
    """Return the rows of each batch, in order; a batch without rows is an empty frame."""
    found = rows.partition_by(BATCH, as_dict=True, maintain_order=True)
    numbers = sorted(int(batch["batch"]) for batch in batches.values())
    return [found.get((n,), rows.clear()) for n in numbers if wanted is None or n in wanted]


def _meta(receipt: _Receipt, rows: polars.DataFrame | None, judged: Judged) -> Data:
    """Return what is known about the version; without row-level checks, from what the batches say."""
    context = receipt.context
    common = {"rows_in": judged.found.measured.rows, "reader": receipt.reader, "layer": "bronze"}
    if rows is not None:
        return {**describe(context, rows, judged), "profile": judged.found.profile, **common}
    spec = context.declaration.spec
    times = [batch[end] for batch in receipt.batches.values() for end in ("time_min", "time_max") if batch[end]]
    if spec.get("time") and judged.found.measured.rows and not times:
        raise BadInput(
            f"no value of the time column {spec['time']!r} is an ISO 8601 time",
            where=context.declaration.where,
            fix="give time= to the table that casts it, not to the source",
        )
    return {
        "rows": judged.found.measured.rows,
        "columns": receipt.columns(),
        "key": [],
        "time": spec.get("time"),
        "time_min": min(times, key=parse_time, default=None),
        "time_max": max(times, key=parse_time, default=None),
        "quality": quality(judged.checks, judged.verdicts, judged.found.measured, bar=0.0),
        "quarantined": 0,
        "rules": {},
        **common,
    }
