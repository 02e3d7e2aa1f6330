"""Says what in a ledger does not fit together, and which blobs that its rows name are not there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct, field

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import digest_bytes
from trimtab.core.errors import TrimtabError
from trimtab.store.blobs import Blobs
from trimtab.store.catalogue import counts, is_sqlite, snapshot
from trimtab.store.leases import STALE_AFTER, is_alive
from trimtab.store.ledger import Ledger, Reader
from trimtab.store.migrations import MIGRATIONS
from trimtab.store.packing import unpack
from trimtab.store.tracking import STATES

IMPORTED = "import ledger"
"""What the audit leaf says that comes with copied rows; its note tells which numbers were missing before."""
MOST = 100
_PAGE = 2000
_PIECE = 8 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Problem(Struct, frozen=True):
    """Something that does not fit.

    Attributes:
        check: which check found it.
        subject: the row or blob that it is about.
        message: what is wrong.
    """

    check: str
    subject: str
    message: str


class Report(Struct, kw_only=True):
    """What was looked at and found.

    Attributes:
        rows: how many rows each table has.
        checks: how many problems each check found.
        blobs: how many blobs the rows name; None where there was no place to look.
        problems: the first hundred of each check.
        remarks: what is odd and harmless.
    """

    where: str
    schema: int
    rows: dict[str, int]
    checks: dict[str, int] = field(default_factory=dict)
    blobs: int | None = None
    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        """How many problems there are."""
        return sum(self.checks.values())


Found = Iterator[tuple[str, str]]
"""Subjects, each with what is wrong about it."""

# Each row of an answer is a subject and a detail; no row means that all is well.
_STATEMENTS: tuple[tuple[str, str, str], ...] = (
    ("tracked", "a run of a tracking client without its tracking row",
     "SELECT r.id, '' FROM run r LEFT JOIN tracked t ON t.run_id=r.id WHERE r.kind='tracked' AND t.run_id IS NULL"),
    ("tracked", "a tracking row whose run is of kind {}, or is not there",
     "SELECT t.run_id, coalesce(r.kind, '-') FROM tracked t LEFT JOIN run r ON r.id=t.run_id"
     " WHERE r.kind IS NULL OR r.kind<>'tracked'"),
    ("tracked", "its experiment {} is not there",
     "SELECT t.run_id, CAST(t.experiment AS TEXT) FROM tracked t LEFT JOIN experiment e"
     " ON e.workspace=t.workspace AND e.number=t.experiment WHERE e.id IS NULL"),
    ("tracked", "deleted and active do not go with its time of deletion ({})",
     "SELECT run_id, stage FROM tracked WHERE (stage='deleted') <> (deleted_ms IS NOT NULL)"),
    ("runs", "it ended before it started ({})",
     "SELECT id, state FROM run WHERE ended_at < started_at"),
    ("runs", "its state {} does not go with its end",
     "SELECT id, state FROM run WHERE (state='running') <> (ended_at IS NULL)"),
    ("runs", "what lies inside run {} names a run that is not there",
     "SELECT c.id, c.parent_id FROM run c LEFT JOIN run p ON p.id=c.parent_id WHERE c.parent_id<>'' AND p.id IS NULL"),
    ("metrics", "the metric {} has points and no latest one",
     "SELECT m.run_id, m.name FROM metric m LEFT JOIN latest l ON l.subject=m.run_id AND l.name=m.name"
     " WHERE l.subject IS NULL GROUP BY m.run_id, m.name"),
    ("metrics", "the metric {} has a latest point and no points",
     "SELECT l.subject, l.name FROM latest l WHERE NOT EXISTS"
     " (SELECT 1 FROM metric m WHERE m.run_id=l.subject AND m.name=l.name)"),
    ("names", "{} of a run that is not there",
     "SELECT subject, 'params' FROM param WHERE substr(subject, 1, 4)='run_' AND subject NOT IN (SELECT id FROM run)"
     " UNION SELECT subject, 'tags' FROM tag WHERE substr(subject, 1, 4)='run_' AND subject NOT IN (SELECT id FROM run)"
     " UNION SELECT subject, 'params' FROM param WHERE substr(subject, 1, 4)='ver_'"
     " AND subject NOT IN (SELECT id FROM version)"),
    ("aliases", "the alias {} points to a version of another asset",
     "SELECT l.asset_id, l.name FROM alias l JOIN version v ON v.id=l.version_id WHERE v.asset_id<>l.asset_id"),
    ("edges", "{} names a run or version that is not there",
     "SELECT u.run_id, 'used ' || u.version_id FROM used u LEFT JOIN run r ON r.id=u.run_id"
     " LEFT JOIN version v ON v.id=u.version_id WHERE r.id IS NULL OR v.id IS NULL"
     " UNION SELECT m.run_id, 'made ' || m.version_id FROM made m LEFT JOIN run r ON r.id=m.run_id"
     " LEFT JOIN version v ON v.id=m.version_id WHERE r.id IS NULL OR v.id IS NULL"),
    ("edges", "the run that made it, {}, is not there",
     "SELECT v.id, v.run_id FROM version v LEFT JOIN run r ON r.id=v.run_id WHERE v.run_id<>'' AND r.id IS NULL"),
    ("edges", "what is cached for a key came from the run {}, which is not there",
     "SELECT c.key, c.run_id FROM cache c LEFT JOIN run r ON r.id=c.run_id WHERE r.id IS NULL"),
    ("edges", "the model {} that it names is not there",
     "SELECT i.run_id, i.model_id FROM run_model i LEFT JOIN logged_model l ON l.model_id=i.model_id"
     " WHERE l.model_id IS NULL"),
    ("models", "its version has another id ({})",
     "SELECT model_id, version_id FROM logged_model WHERE version_id <> 'ver_' || substr(model_id, 3)"),
    ("models", "its version is {} and not one that a client logged",
     "SELECT l.model_id, coalesce(a.space, 'not there') FROM logged_model l LEFT JOIN version v ON v.id=l.version_id"
     " LEFT JOIN asset a ON a.id=v.asset_id WHERE a.id IS NULL OR a.space<>'logged'"),
    ("models", "the run that logged it, {}, is not there",
     "SELECT l.model_id, l.run_id FROM logged_model l LEFT JOIN run r ON r.id='run_' || l.run_id"
     " WHERE l.run_id<>'' AND r.id IS NULL"),
    ("models", "it is ready and its version is {}",
     "SELECT l.model_id, v.state FROM logged_model l JOIN version v ON v.id=l.version_id"
     " WHERE l.status='LOGGED_MODEL_READY' AND v.state='candidate'"),
    ("models", "the metric {} speaks of a model that is not there",
     "SELECT m.model_id, m.name FROM model_metric m LEFT JOIN logged_model l ON l.model_id=m.model_id"
     " WHERE l.model_id IS NULL"),
    ("registry", "its version says number {}, or another asset",
     "SELECT g.version_id, CAST(v.number AS TEXT) FROM registered_version g JOIN version v ON v.id=g.version_id"
     " WHERE v.asset_id<>g.asset_id OR v.number<>g.number"),
    ("registry", "its registered model {} is not there",
     "SELECT g.version_id, g.asset_id FROM registered_version g LEFT JOIN registered r ON r.asset_id=g.asset_id"
     " WHERE g.deleted=0 AND r.asset_id IS NULL"),
    ("registry", "the logged model that it is, {}, is not there",
     "SELECT g.version_id, g.model_id FROM registered_version g LEFT JOIN logged_model l ON l.model_id=g.model_id"
     " WHERE g.deleted=0 AND g.model_id<>'' AND l.model_id IS NULL"),
    ("traces", "its experiment {} is not there",
     "SELECT t.trace_id, CAST(t.experiment AS TEXT) FROM trace t LEFT JOIN experiment e"
     " ON e.workspace=t.workspace AND e.number=t.experiment WHERE e.id IS NULL"),
    ("traces", "it has {} without their spans",
     "SELECT a.trace, 'attributes' FROM span_attribute a LEFT JOIN span s ON s.trace=a.trace AND s.span_id=a.span_id"
     " WHERE s.trace IS NULL GROUP BY a.trace"),
)  # fmt: skip


def check_ledger(ledger: Ledger, blobs: Blobs | None = None, *, deep: bool = False) -> Report:
    """Look at all of a ledger as it stands at one moment; whoever writes meanwhile is not in the way.

    Args:
        ledger: may be in use.
        blobs: where the blobs that its rows name should be; without it they are not looked for.
        deep: read every blob and compare it with its digest.

    Raises:
        Unavailable: the database or the blobs do not answer.
    """
    with snapshot(ledger) as reader:
        report = Report(where=ledger.where, schema=len(MIGRATIONS), rows={})
        sqlite = is_sqlite(ledger)
        _gather(report, ledger, "database", partial(_database, reader, sqlite))
        _gather(report, ledger, "database", partial(_counted, reader, report))
        _gather(report, ledger, "audit", partial(_audit, reader, report, sqlite))
        for check, words, sql in _STATEMENTS:
            _gather(report, ledger, check, partial(_asked, reader, words, sql))
        _gather(report, ledger, "tracked", partial(_states, reader))
        _gather(report, ledger, "metrics", partial(_latest, reader))
        _gather(report, ledger, "edges", partial(_cached, reader))
        _gather(report, ledger, "running", partial(_running, reader))
        named: dict[str, tuple[str, int | None]] = {}
        _gather(report, ledger, "blobs", partial(_named, reader, named))
        if blobs is not None:
            report.blobs = len(named)
            _gather(report, ledger, "blobs", partial(_blobs, blobs, named, deep))
    return report


def _gather(report: Report, ledger: Ledger, check: str, look: Callable[[], Found]) -> None:
    """Count what a check finds and keep the first of it; a database that cannot answer is itself a finding."""
    report.checks.setdefault(check, 0)
    try:
        for subject, message in look():
            report.checks[check] += 1
            if report.checks[check] <= MOST:
                report.problems.append(Problem(check, subject, message))
    except ledger.engine.errors as error:
        report.checks[check] += 1
        report.problems.append(Problem(check, ledger.where, f"the database cannot read it: {error}"))


def _asked(reader: Reader, words: str, sql: str) -> Found:
    for subject, detail in reader.query(sql):
        yield str(subject), words.format(detail)


def _database(reader: Reader, sqlite: bool) -> Found:
    """Let SQLite look at its own file; a server keeps to its constraints by itself."""
    if not sqlite:
        return
    for (told,) in reader.query(f"PRAGMA integrity_check({MOST})"):
        if told != "ok":
            yield "the file", str(told)
    for table, number, owner, _ in reader.query("PRAGMA foreign_key_check"):
        yield f"{table} {number}", f"a row of {table} points to one of {owner} that is not there"


def _counted(reader: Reader, report: Report) -> Found:
    report.rows.update(counts(reader))
    yield from ()


def _audit(reader: Reader, report: Report, sqlite: bool) -> Found:
    """Look at each leaf's digest, and for leaves that are missing."""
    before, known, gaps = 0, set[int](), list[int]()
    while True:
        sql = "SELECT id, leaf, sha256 FROM audit WHERE id>? ORDER BY id LIMIT ?"
        rows = reader.query(sql, (before, _PAGE))
        for number, leaf, sha256 in rows:
            if digest_bytes(leaf) != sha256:
                yield f"leaf {number}", "its bytes are not those of its digest"
            elif IMPORTED.encode() in leaf:
                known.update(_told_gaps(leaf))
            gaps += range(before + 1, min(number, before + 1 + MOST))
            before = number
        if len(rows) < _PAGE:
            break
    missing = [number for number in gaps if number not in known]
    if missing and not sqlite:
        # A server does not give a number again whose transaction was undone.
        report.remarks.append(f"audit: {len(missing)} numbers were never used, such as {missing[0]}")
        return
    for number in missing:
        yield f"leaf {number}", "it is missing: the leaves have numbers without a gap"


def _told_gaps(leaf: bytes) -> Iterator[int]:
    """Yield the numbers that a leaf about an import says were missing where the rows came from."""
    for text in re.findall(rb"no leaf ([0-9 ]+);", leaf):
        yield from (int(number) for number in text.split())


def audit_gaps(reader: Reader) -> list[int]:
    """Return the first numbers, a hundred at most, that no leaf has though a later one has come."""
    sql = (
        "SELECT a.id FROM audit a WHERE a.id > 1 AND NOT EXISTS (SELECT 1 FROM audit b WHERE b.id=a.id-1)"
        " ORDER BY a.id LIMIT ?"
    )
    found: list[int] = []
    for (number,) in reader.query(sql, (MOST,)):
        last = int(reader.query("SELECT coalesce(max(id), 0) FROM audit WHERE id<?", (number,))[0][0])
        found += range(last + 1, number)
    return found[:MOST]


def _states(reader: Reader) -> Found:
    sql = (
        "SELECT t.run_id, t.status, r.state FROM tracked t JOIN run r ON r.id=t.run_id"
        " WHERE r.state <> CASE t.status " + " ".join(f"WHEN '{name}' THEN '{state}'" for name, state in STATES.items())
        + " ELSE '' END AND NOT (r.state='lost' AND t.status='RUNNING')"
    )  # fmt: skip
    for run_id, status, state in reader.query(sql):
        yield str(run_id), f"its client says {status} and the run is {state}"


def _latest(reader: Reader) -> Found:
    """Compare the latest point of each metric with its points, by the rank of ``points.by_step``.

    The pipeline's own runs rank by step alone: of points of one step it is the order of writing that counts.
    """
    rank = "CASE WHEN kind='+inf' THEN 1 WHEN kind IN ('nan', '-inf') THEN -1 ELSE 0 END"
    size = "CASE WHEN kind IN ('', '-0.0') THEN value ELSE 0.0 END"
    sql = (
        f"SELECT b.run_id, b.name FROM (SELECT run_id, name, step, at, {rank} AS level, {size} AS size, row_number()"
        f" OVER (PARTITION BY run_id, name ORDER BY step DESC, at DESC, {rank} DESC, {size} DESC) AS place"
        f" FROM metric) b JOIN (SELECT subject, name, step, at, {rank} AS level, {size} AS size FROM latest) l"
        " ON l.subject=b.run_id AND l.name=b.name LEFT JOIN tracked t ON t.run_id=b.run_id"
        " WHERE b.place=1 AND (l.step<>b.step OR (t.run_id IS NOT NULL AND"
        " (l.at<>b.at OR l.level<>b.level OR l.size<>b.size)))"
    )
    for run_id, name in reader.query(sql):
        yield str(run_id), f"the latest point of the metric {name} is not its latest"


def _cached(reader: Reader) -> Found:
    known = {row[0] for row in reader.query("SELECT id FROM version")}
    for key, versions in reader.query("SELECT key, versions FROM cache"):
        for version_id in unpack(versions):
            if version_id not in known:
                yield str(key), f"what is cached for a key names the version {version_id}, which is not there"


def _running(reader: Reader) -> Found:
    sql = "SELECT id, holder, beat FROM run WHERE state='running' AND holder<>''"
    for run_id, identity, beat in reader.query(sql):
        alive = is_alive(identity)
        if alive is False or (alive is None and wall_seconds() * 1e6 - beat > STALE_AFTER * 1e6):
            yield str(run_id), "it is running and its process has died; `trimtab run` or `trimtab up` marks it lost"


def _named(reader: Reader, named: dict[str, tuple[str, int | None]]) -> Found:
    """Gather the blobs that rows name: digest -> who names it, and its size where that is told."""
    for root, path, blob, size in reader.query("SELECT root, path, blob, size FROM artifact"):
        if _DIGEST.fullmatch(blob):
            named[blob] = (f"artifact {root}{path}", int(size))
        else:
            yield f"artifact {root}{path}", f"it names no blob but {blob[:80]!r}"
    sql = "SELECT v.id, a.kind, v.location, v.meta FROM version v JOIN asset a ON a.id=v.asset_id"
    for version_id, kind, location, meta in reader.query(sql):
        for blob in _of_version(kind, unpack(location), unpack(meta)):
            named.setdefault(blob, (f"version {version_id}", None))
    for run_id, data in reader.query("SELECT id, data FROM run WHERE kind<>'tracked'"):
        code = unpack(data).get("code") or {}
        for blob in (code.get("manifest"), code.get("diff")):
            if isinstance(blob, str) and _DIGEST.fullmatch(blob):
                named.setdefault(blob, (f"run {run_id}", None))


def _of_version(kind: str, location: Mapping[str, Any], meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield the blobs that hold a version; the files of tables are kept by themselves."""
    files = location.get("files")
    found = [location.get("blob"), meta.get("reference"), meta.get("golden")]
    found += files.values() if isinstance(files, dict) and kind == "model" else []
    for blob in found:
        if isinstance(blob, str) and _DIGEST.fullmatch(blob):
            yield blob


def _blobs(blobs: Blobs, named: Mapping[str, tuple[str, int | None]], deep: bool) -> Found:
    kept = {one.digest: one.size for one in blobs.kept()}
    for digest, (subject, size) in named.items():
        if digest not in kept:
            yield subject, f"its blob {digest} is not there"
        elif size is not None and size != kept[digest]:
            yield subject, f"its blob {digest} has {kept[digest]} bytes and not {size}"
        elif deep:
            told = _reread(blobs, digest, kept[digest])
            if told:
                yield subject, f"its blob {digest} {told}"


def _reread(blobs: Blobs, digest: str, size: int) -> str:
    """Read a blob where it lies, a piece at a time, and say what is wrong with it."""
    running = hashlib.sha256()
    try:
        for start in range(0, size, _PIECE):
            running.update(blobs.get_range(digest, start, _PIECE))
    except TrimtabError as error:
        return f"cannot be read: {error.message}"
    return "" if f"sha256:{running.hexdigest()}" == digest else "has other content"


def as_data(report: Report) -> dict[str, Any]:
    """Return a report as plain data, with ``ok`` and the number of problems."""
    told: dict[str, Any] = msgspec.to_builtins(report)
    return {"ok": report.found == 0, "found": report.found, **told}
