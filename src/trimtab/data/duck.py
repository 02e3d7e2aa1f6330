"""DuckDB over frames that are given to it and nothing else: SQL steps, and conditions of checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trimtab.core.declare import SQL
from trimtab.core.errors import BadInput
from trimtab.core.optional import need
from trimtab.data.frames import arrow_of, to_arrow

if TYPE_CHECKING:
    import polars
    import pyarrow


@contextmanager
def sealed() -> Iterator[Any]:
    """Open an in-memory DuckDB that reaches no file, no network and no Python variable.

    One thread: the order of rows and of floating-point sums, and so a version's digest, must not depend on
    chance. Times are in UTC.
    """
    connection = need("duckdb").connect(":memory:", config={"threads": "1"})
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET enable_external_access = false")
        yield connection
    finally:
        connection.close()


def run_step(step: SQL, frames: Mapping[str, Any], *, what: str, where: str = "") -> pyarrow.Table:
    """Return what a SQL step makes of its inputs, as an Arrow table with storable types.

    Args:
        step: what ``tt.sql`` returned.
        frames: input name -> frame of any kind; they stand as tables under these names.
        what: says whose result it is.
        where: ``file:line`` for the error.

    Raises:
        BadInput: the SQL cannot be read or fails; DuckDB's own words are told.
    """
    duckdb: Any = need("duckdb")
    with sealed() as connection:
        for name, frame in frames.items():
            connection.register(name, arrow_of(frame, what=f"input {name}", where=where))
        try:
            kinds = [str(one.type).rpartition(".")[2] for one in connection.extract_statements(step.text)]
            if kinds != ["SELECT"]:
                said = " and ".join(kinds) or "nothing"
                raise BadInput(f"the SQL of {what} is {said}, not one query", where=where, fix="tt.sql('select ...')")
            relation = connection.sql(step.text, params=list(step.params) or None)
            return to_arrow(relation, what=what, where=where)
        except duckdb.Error as error:
            raise BadInput(
                f"the SQL of {what} fails: {str(error).strip()}",
                where=where,
                fix=f"its tables are {', '.join(frames) or 'none'}",
            ) from error


def condition_mask(frame: polars.DataFrame, condition: str, *, who: str, where: str = "") -> polars.Series:
    """Return, for each row of ``frame`` in order, whether a condition in DuckDB's SQL is false.

    Raises:
        BadInput: DuckDB cannot read or evaluate the condition.
    """
    duckdb, pl = need("duckdb"), need("polars")
    with sealed() as connection:
        connection.register("the_table", frame.to_arrow())
        try:
            relation = connection.table("the_table").project(f"not coalesce(({condition}), true) as failing")
            mask = pl.from_arrow(relation.to_arrow_table())["failing"]
        except duckdb.Error as error:
            raise BadInput(
                f"{who} cannot be read: {str(error).strip().splitlines()[0]}",
                where=where,
                fix="write a SQL condition over the table's columns, true or false for each row",
            ) from error
    if len(mask) != frame.height:
        raise BadInput(
            f"{who} speaks about the whole table, not about each row",
            where=where,
            fix="leave out aggregates such as count(*)",
        )
    return mask  # type: ignore[no-any-return]
