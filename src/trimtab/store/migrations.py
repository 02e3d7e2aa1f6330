"""Numbered, append-only migrations; each runs once, in order, under the writer's lock."""

from __future__ import annotations

import apsw

from trimtab.core.errors import Fault

_SCOPE = "workspace TEXT NOT NULL, environment TEXT NOT NULL"

_FIRST = f"""
CREATE TABLE workspace (name TEXT PRIMARY KEY, created_at INTEGER NOT NULL) STRICT;
CREATE TABLE environment (workspace TEXT NOT NULL, name TEXT NOT NULL, spec BLOB NOT NULL, PRIMARY KEY (workspace, name)) STRICT;
CREATE TABLE asset (id TEXT PRIMARY KEY, {_SCOPE}, name TEXT NOT NULL, kind TEXT NOT NULL, spec BLOB NOT NULL,
  created_at INTEGER NOT NULL, UNIQUE (workspace, name)) STRICT;
CREATE TABLE run (id TEXT PRIMARY KEY, {_SCOPE}, kind TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
  started_at INTEGER NOT NULL, ended_at INTEGER, actor TEXT NOT NULL, parent_id TEXT NOT NULL, attempt INTEGER NOT NULL,
  key TEXT NOT NULL, seed INTEGER NOT NULL, data BLOB NOT NULL, holder TEXT NOT NULL DEFAULT '', beat INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX run_name ON run (workspace, name, id);
CREATE INDEX run_kind ON run (workspace, kind, id);
CREATE INDEX run_state ON run (state, id);
CREATE INDEX run_parent ON run (parent_id) WHERE parent_id <> '';
CREATE TABLE version (id TEXT PRIMARY KEY, {_SCOPE}, asset_id TEXT NOT NULL REFERENCES asset (id), number INTEGER NOT NULL,
  digest TEXT NOT NULL, run_id TEXT NOT NULL, state TEXT NOT NULL, location BLOB NOT NULL, meta BLOB NOT NULL,
  created_at INTEGER NOT NULL, UNIQUE (asset_id, number)) STRICT;
CREATE INDEX version_state ON version (asset_id, environment, state, number);
CREATE INDEX version_digest ON version (digest);
CREATE TABLE alias (workspace TEXT NOT NULL, environment TEXT NOT NULL, asset_id TEXT NOT NULL REFERENCES asset (id),
  name TEXT NOT NULL, version_id TEXT NOT NULL REFERENCES version (id), epoch INTEGER NOT NULL,
  PRIMARY KEY (environment, asset_id, name)) STRICT;
CREATE TABLE metric (run_id TEXT NOT NULL REFERENCES run (id), {_SCOPE}, name TEXT NOT NULL, step INTEGER NOT NULL,
  at INTEGER NOT NULL, value REAL, kind TEXT NOT NULL) STRICT;
CREATE INDEX metric_run ON metric (run_id, name, step);
CREATE INDEX metric_name ON metric (name, value);
CREATE TABLE used (run_id TEXT NOT NULL REFERENCES run (id), version_id TEXT NOT NULL REFERENCES version (id), {_SCOPE},
  role TEXT NOT NULL, PRIMARY KEY (run_id, version_id, role)) STRICT;
CREATE INDEX used_version ON used (version_id);
CREATE TABLE made (run_id TEXT NOT NULL REFERENCES run (id), version_id TEXT NOT NULL REFERENCES version (id), {_SCOPE},
  PRIMARY KEY (run_id, version_id)) STRICT;
CREATE INDEX made_version ON made (version_id);
CREATE TABLE cache (key TEXT NOT NULL, {_SCOPE}, asset TEXT NOT NULL, fields BLOB NOT NULL, run_id TEXT NOT NULL,
  versions BLOB NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (workspace, environment, key)) STRICT;
CREATE INDEX cache_asset ON cache (workspace, environment, asset, at);
CREATE TABLE verdict (id TEXT PRIMARY KEY, {_SCOPE}, name TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL,
  subject TEXT NOT NULL, run_id TEXT NOT NULL, evidence BLOB NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE INDEX verdict_subject ON verdict (subject, id);
CREATE INDEX verdict_run ON verdict (run_id);
CREATE TABLE state ({_SCOPE}, key TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (workspace, environment, key)) STRICT;
CREATE TABLE endpoint (id TEXT PRIMARY KEY, {_SCOPE}, name TEXT NOT NULL, spec BLOB NOT NULL, traffic BLOB NOT NULL,
  epoch INTEGER NOT NULL, created_at INTEGER NOT NULL, UNIQUE (workspace, environment, name)) STRICT;
CREATE TABLE deployment (id TEXT PRIMARY KEY, {_SCOPE}, endpoint_id TEXT NOT NULL REFERENCES endpoint (id),
  number INTEGER NOT NULL, version_id TEXT NOT NULL REFERENCES version (id), runtime BLOB NOT NULL, desired TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL, created_at INTEGER NOT NULL, UNIQUE (endpoint_id, number)) STRICT;
CREATE TABLE rollout (id TEXT PRIMARY KEY, {_SCOPE}, endpoint_id TEXT NOT NULL REFERENCES endpoint (id), run_id TEXT NOT NULL,
  state TEXT NOT NULL, stable_id TEXT NOT NULL, candidate_id TEXT NOT NULL, data BLOB NOT NULL, updated_at INTEGER NOT NULL) STRICT;
CREATE INDEX rollout_endpoint ON rollout (endpoint_id, id);
CREATE TABLE automation (id TEXT PRIMARY KEY, {_SCOPE}, name TEXT NOT NULL, spec BLOB NOT NULL, enabled INTEGER NOT NULL,
  created_at INTEGER NOT NULL, UNIQUE (workspace, environment, name)) STRICT;
CREATE TABLE firing (id TEXT PRIMARY KEY, {_SCOPE}, automation_id TEXT NOT NULL REFERENCES automation (id), key TEXT NOT NULL,
  state TEXT NOT NULL, at INTEGER NOT NULL, data BLOB NOT NULL, run_id TEXT NOT NULL, UNIQUE (automation_id, key)) STRICT;
CREATE TABLE alarm (id TEXT PRIMARY KEY, {_SCOPE}, name TEXT NOT NULL, endpoint_id TEXT NOT NULL, at INTEGER NOT NULL,
  data BLOB NOT NULL, resolved_at INTEGER) STRICT;
CREATE INDEX alarm_endpoint ON alarm (endpoint_id, at);
CREATE TABLE "case" (id TEXT PRIMARY KEY, {_SCOPE}, kind TEXT NOT NULL, title TEXT NOT NULL, state TEXT NOT NULL,
  opened_at INTEGER NOT NULL, subject TEXT NOT NULL, owner TEXT NOT NULL, closed_by TEXT NOT NULL, data BLOB NOT NULL) STRICT;
CREATE TABLE call (prediction_id TEXT NOT NULL, {_SCOPE}, request_id TEXT NOT NULL, row INTEGER NOT NULL,
  endpoint_id TEXT NOT NULL, deployment_id TEXT NOT NULL, version_id TEXT NOT NULL, at INTEGER NOT NULL, candidate INTEGER NOT NULL,
  weight REAL NOT NULL, candidate_weight REAL NOT NULL, status INTEGER NOT NULL, latency_us INTEGER NOT NULL,
  prediction BLOB, score REAL, PRIMARY KEY (prediction_id, endpoint_id)) STRICT, WITHOUT ROWID;
CREATE INDEX call_time ON call (endpoint_id, at);
CREATE TABLE label (prediction_id TEXT NOT NULL, {_SCOPE}, endpoint_id TEXT NOT NULL, label BLOB NOT NULL, at INTEGER NOT NULL,
  arrived_at INTEGER NOT NULL, corrections INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (prediction_id, endpoint_id)) STRICT, WITHOUT ROWID;
CREATE INDEX label_arrival ON label (endpoint_id, arrived_at);
CREATE TABLE tail ({_SCOPE}, stream TEXT NOT NULL, segment INTEGER NOT NULL, byte INTEGER NOT NULL,
  PRIMARY KEY (workspace, environment, stream)) STRICT;
CREATE TABLE "grant" (digest TEXT NOT NULL, {_SCOPE}, format TEXT NOT NULL, run_id TEXT NOT NULL, by TEXT NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (workspace, digest)) STRICT;
CREATE TABLE pin (version_id TEXT NOT NULL REFERENCES version (id), {_SCOPE}, reason TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (version_id, reason)) STRICT;
CREATE TABLE lease (name TEXT PRIMARY KEY, {_SCOPE}, holder TEXT NOT NULL, epoch INTEGER NOT NULL, expires INTEGER NOT NULL) STRICT;
CREATE TABLE idempotency ({_SCOPE}, key TEXT NOT NULL, answer BLOB NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (workspace, key)) STRICT;
CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, {_SCOPE}, at INTEGER NOT NULL, leaf BLOB NOT NULL, sha256 TEXT NOT NULL,
  sequence INTEGER) STRICT;
CREATE TABLE clock ({_SCOPE}, mode TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (workspace, environment)) STRICT;
"""

# A key names one act; a corrected label keeps what it said before.
_SECOND = f"""
ALTER TABLE idempotency ADD COLUMN what TEXT NOT NULL DEFAULT '';
CREATE TABLE correction (prediction_id TEXT NOT NULL, {_SCOPE}, endpoint_id TEXT NOT NULL, label BLOB NOT NULL, at INTEGER NOT NULL,
  arrived_at INTEGER NOT NULL, replaced_at INTEGER NOT NULL) STRICT;
CREATE INDEX correction_prediction ON correction (prediction_id, endpoint_id);
"""

# Runs are listed newest first within an environment, by one of these or all of them; a partial index is not used
# for a bound parameter.
_THIRD = """
DROP INDEX run_kind;
DROP INDEX run_state;
DROP INDEX run_parent;
CREATE INDEX run_scope ON run (workspace, environment, id);
CREATE INDEX run_scope_name ON run (workspace, environment, name, id);
CREATE INDEX run_scope_kind ON run (workspace, environment, kind, id);
CREATE INDEX run_scope_state ON run (workspace, environment, state, id);
CREATE INDEX run_scope_parent ON run (workspace, environment, parent_id, id);
"""

# SQLite's hidden row id orders nothing: PostgreSQL has none. A point of a metric is itself its key, so that one which
# is sent twice is kept once; the last one of each metric stands beside them. What other tools name (experiments,
# their models) does not stand in the way of the project's names: each has a name space of its own.
_POINTS = f"""
CREATE TABLE metric (run_id TEXT NOT NULL REFERENCES run (id), {_SCOPE}, name TEXT NOT NULL, at INTEGER NOT NULL,
  step INTEGER NOT NULL, value REAL NOT NULL, kind TEXT NOT NULL,
  PRIMARY KEY (run_id, name, at, step, value, kind)) STRICT, WITHOUT ROWID;
CREATE TABLE latest (subject TEXT NOT NULL, {_SCOPE}, name TEXT NOT NULL, value REAL, kind TEXT NOT NULL,
  step INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (subject, name)) STRICT, WITHOUT ROWID;
"""
_FOURTH = f"""
ALTER TABLE metric RENAME TO metric_3;
DROP INDEX metric_run;
DROP INDEX metric_name;
{_POINTS}
INSERT OR IGNORE INTO metric(run_id, workspace, environment, name, at, step, value, kind)
  SELECT run_id, workspace, environment, name, at, step, coalesce(value, 0.0), kind FROM metric_3;
INSERT INTO latest(subject, workspace, environment, name, value, kind, step, at)
  SELECT run_id, workspace, environment, name, value, kind, step, at FROM (SELECT *, row_number() OVER (
    PARTITION BY run_id, name ORDER BY step DESC, rowid DESC) AS place FROM metric_3) WHERE place = 1;
DROP TABLE metric_3;
CREATE TABLE correction_4 (id INTEGER PRIMARY KEY, prediction_id TEXT NOT NULL, {_SCOPE}, endpoint_id TEXT NOT NULL,
  label BLOB NOT NULL, at INTEGER NOT NULL, arrived_at INTEGER NOT NULL, replaced_at INTEGER NOT NULL) STRICT;
INSERT INTO correction_4(prediction_id, workspace, environment, endpoint_id, label, at, arrived_at, replaced_at)
  SELECT prediction_id, workspace, environment, endpoint_id, label, at, arrived_at, replaced_at FROM correction ORDER BY rowid;
DROP TABLE correction;
ALTER TABLE correction_4 RENAME TO correction;
CREATE INDEX correction_prediction ON correction (prediction_id, endpoint_id);
CREATE TABLE asset_4 (id TEXT PRIMARY KEY, {_SCOPE}, space TEXT NOT NULL DEFAULT '', name TEXT NOT NULL, kind TEXT NOT NULL,
  spec BLOB NOT NULL, created_at INTEGER NOT NULL, UNIQUE (workspace, space, name)) STRICT;
INSERT INTO asset_4(id, workspace, environment, name, kind, spec, created_at)
  SELECT id, workspace, environment, name, kind, spec, created_at FROM asset;
DROP TABLE asset;
ALTER TABLE asset_4 RENAME TO asset;
"""

# What tracking clients write. Times are milliseconds, as they send them; ``tracked`` is a run's other half.
_FIFTH = f"""
CREATE TABLE experiment (id TEXT PRIMARY KEY REFERENCES asset (id), {_SCOPE}, number INTEGER NOT NULL, name TEXT NOT NULL,
  stage TEXT NOT NULL, root TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
  UNIQUE (workspace, number), UNIQUE (workspace, name)) STRICT;
CREATE TABLE tracked (run_id TEXT PRIMARY KEY REFERENCES run (id), {_SCOPE}, experiment INTEGER NOT NULL, name TEXT NOT NULL,
  status TEXT NOT NULL, stage TEXT NOT NULL, start_ms INTEGER NOT NULL, end_ms INTEGER, deleted_ms INTEGER,
  user_id TEXT NOT NULL, root TEXT NOT NULL) STRICT;
CREATE INDEX tracked_list ON tracked (workspace, experiment, stage, start_ms DESC, run_id);
CREATE TABLE param (subject TEXT NOT NULL, {_SCOPE}, name TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (subject, name)) STRICT, WITHOUT ROWID;
CREATE TABLE tag (subject TEXT NOT NULL, {_SCOPE}, name TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (subject, name)) STRICT, WITHOUT ROWID;
CREATE TABLE artifact (root TEXT NOT NULL, {_SCOPE}, path TEXT NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (root, path)) STRICT, WITHOUT ROWID;
"""

# A model that a client logs is a version in its experiment's name space; a registered one is an asset like any other.
_SIXTH = f"""
CREATE TABLE logged_model (version_id TEXT PRIMARY KEY REFERENCES version (id), {_SCOPE}, model_id TEXT NOT NULL UNIQUE,
  experiment INTEGER NOT NULL, name TEXT NOT NULL, run_id TEXT NOT NULL, status TEXT NOT NULL, type TEXT NOT NULL,
  stage TEXT NOT NULL, root TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT;
CREATE INDEX logged_model_list ON logged_model (workspace, experiment, stage, created_ms DESC, model_id);
CREATE INDEX logged_model_run ON logged_model (run_id);
CREATE TABLE model_metric (model_id TEXT NOT NULL, {_SCOPE}, run_id TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL,
  step INTEGER NOT NULL, value REAL NOT NULL, kind TEXT NOT NULL, dataset_name TEXT NOT NULL, dataset_digest TEXT NOT NULL,
  PRIMARY KEY (model_id, name, run_id, dataset_name, dataset_digest, at, step, value, kind)) STRICT, WITHOUT ROWID;
CREATE TABLE registered (asset_id TEXT PRIMARY KEY REFERENCES asset (id), {_SCOPE}, description TEXT NOT NULL,
  created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT;
CREATE TABLE registered_version (version_id TEXT PRIMARY KEY REFERENCES version (id), {_SCOPE}, asset_id TEXT NOT NULL,
  number INTEGER NOT NULL, description TEXT NOT NULL, stage TEXT NOT NULL, status TEXT NOT NULL, source TEXT NOT NULL,
  run_id TEXT NOT NULL, run_link TEXT NOT NULL, model_id TEXT NOT NULL, user_id TEXT NOT NULL, created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL, deleted INTEGER NOT NULL DEFAULT 0, UNIQUE (asset_id, number)) STRICT;
"""

# Traces: a row a span with its exact content beside what is searched; a link may come before its trace. The row of
# ``span_metric`` without a span is the whole trace's.
_TRACES = f"""
CREATE TABLE trace (id TEXT PRIMARY KEY, {_SCOPE}, trace_id TEXT NOT NULL, experiment INTEGER NOT NULL, state TEXT NOT NULL,
  start_ms INTEGER NOT NULL, duration_ms INTEGER, client_id TEXT, request TEXT, response TEXT, session TEXT NOT NULL,
  final INTEGER NOT NULL, UNIQUE (workspace, trace_id)) STRICT;
CREATE INDEX trace_list ON trace (workspace, experiment, start_ms DESC, trace_id);
CREATE TABLE trace_metadata (trace TEXT NOT NULL REFERENCES trace (id), {_SCOPE}, name TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (trace, name)) STRICT, WITHOUT ROWID;
CREATE TABLE trace_link (workspace TEXT NOT NULL, environment TEXT NOT NULL, trace_id TEXT NOT NULL, kind TEXT NOT NULL,
  target TEXT NOT NULL, PRIMARY KEY (workspace, trace_id, kind, target)) STRICT, WITHOUT ROWID;
CREATE INDEX trace_link_target ON trace_link (workspace, kind, target);
CREATE TABLE span (trace TEXT NOT NULL REFERENCES trace (id), {_SCOPE}, span_id TEXT NOT NULL, parent_id TEXT NOT NULL,
  name TEXT NOT NULL, type TEXT NOT NULL, status TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER, model TEXT NOT NULL,
  provider TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (trace, span_id)) STRICT;
CREATE TABLE span_attribute (trace TEXT NOT NULL, {_SCOPE}, span_id TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (trace, span_id, name)) STRICT, WITHOUT ROWID;
CREATE TABLE span_metric (trace TEXT NOT NULL, {_SCOPE}, span_id TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (trace, span_id, name)) STRICT, WITHOUT ROWID;
CREATE TABLE assessment (trace TEXT NOT NULL REFERENCES trace (id), {_SCOPE}, id TEXT NOT NULL, kind TEXT NOT NULL,
  name TEXT NOT NULL, value TEXT NOT NULL, text TEXT NOT NULL, number REAL, source_type TEXT NOT NULL, source_id TEXT NOT NULL,
  run_id TEXT NOT NULL, span_id TEXT NOT NULL, rationale TEXT, metadata TEXT NOT NULL, overrides TEXT NOT NULL,
  valid INTEGER NOT NULL, session TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
  PRIMARY KEY (trace, id)) STRICT;
CREATE INDEX assessment_name ON assessment (trace, kind, name);
CREATE INDEX assessment_session ON assessment (session, kind);
"""

# The data that runs read, as clients describe it: each digest of a dataset is a version of it.
_DATASETS = f"""
CREATE TABLE dataset (version_id TEXT PRIMARY KEY REFERENCES version (id), {_SCOPE}, experiment INTEGER NOT NULL,
  name TEXT NOT NULL, digest TEXT NOT NULL, source_type TEXT NOT NULL, source TEXT NOT NULL, schema TEXT, profile TEXT,
  UNIQUE (workspace, experiment, name, digest)) STRICT;
CREATE TABLE run_dataset (run_id TEXT NOT NULL REFERENCES run (id), version_id TEXT NOT NULL REFERENCES version (id), {_SCOPE},
  context TEXT, tags TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (run_id, version_id)) STRICT;
CREATE INDEX run_dataset_version ON run_dataset (version_id);
CREATE TABLE run_model (run_id TEXT NOT NULL REFERENCES run (id), model_id TEXT NOT NULL, {_SCOPE}, role TEXT NOT NULL,
  step INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (run_id, role, model_id)) STRICT, WITHOUT ROWID;
"""

# What receivers elsewhere want to hear of, and what is yet to be told to them: written with the act that it is about.
_WEBHOOKS = f"""
CREATE TABLE webhook (id TEXT PRIMARY KEY, {_SCOPE}, name TEXT NOT NULL, url TEXT NOT NULL, description TEXT NOT NULL,
  status TEXT NOT NULL, secret TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0, paused INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE webhook_event (webhook_id TEXT NOT NULL REFERENCES webhook (id), {_SCOPE}, event TEXT NOT NULL,
  place INTEGER NOT NULL, PRIMARY KEY (webhook_id, event)) STRICT;
CREATE INDEX webhook_event_wanted ON webhook_event (workspace, event);
CREATE TABLE delivery (id TEXT PRIMARY KEY, {_SCOPE}, webhook_id TEXT NOT NULL REFERENCES webhook (id), event TEXT NOT NULL,
  body BLOB NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, due INTEGER NOT NULL, created_at INTEGER NOT NULL,
  ended_at INTEGER, answer INTEGER, error TEXT NOT NULL) STRICT;
CREATE INDEX delivery_due ON delivery (webhook_id, state, due, id);
"""

# Evaluation datasets: an asset each, and one record for each different input.
_EVALSETS = f"""
CREATE TABLE evalset (id TEXT PRIMARY KEY REFERENCES asset (id), {_SCOPE}, dataset_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  digest TEXT NOT NULL, schema TEXT, profile TEXT, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, created_by TEXT,
  updated_by TEXT) STRICT;
CREATE TABLE evalset_experiment (dataset_id TEXT NOT NULL, {_SCOPE}, experiment INTEGER NOT NULL,
  PRIMARY KEY (dataset_id, experiment)) STRICT, WITHOUT ROWID;
CREATE TABLE evalset_record (dataset_id TEXT NOT NULL, {_SCOPE}, hash TEXT NOT NULL, record_id TEXT NOT NULL UNIQUE,
  inputs TEXT NOT NULL, outputs TEXT, expectations TEXT, tags TEXT NOT NULL, source TEXT, created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL, created_by TEXT, updated_by TEXT, place INTEGER NOT NULL, PRIMARY KEY (dataset_id, hash)) STRICT;
CREATE INDEX evalset_record_place ON evalset_record (dataset_id, place);
"""

MIGRATIONS: tuple[str, ...] = (
    _FIRST,
    _SECOND,
    _THIRD,
    _FOURTH,
    _FIFTH,
    _SIXTH,
    _TRACES,
    _DATASETS,
    _WEBHOOKS,
    _EVALSETS,
)

ALTERED: dict[int, str] = {
    4: f"""
DROP TABLE metric;
{_POINTS}
ALTER TABLE correction ADD COLUMN id INTEGER PRIMARY KEY;
ALTER TABLE asset ADD COLUMN space TEXT NOT NULL DEFAULT '';
ALTER TABLE asset DROP CONSTRAINT asset_workspace_name_key;
ALTER TABLE asset ADD UNIQUE (workspace, space, name);
""",
}
"""Migrations for a database that can alter tables which SQLite has to make anew, by number."""


def check_level(have: int) -> None:
    """Refuse a schema that only a newer release knows.

    Raises:
        Fault: the ledger was written by a newer release.
    """
    if have > len(MIGRATIONS):
        raise Fault(
            f"the ledger has schema {have} and this release knows {len(MIGRATIONS)}",
            fix="use the release that wrote it, or a newer one",
        )


def migrate(connection: apsw.Connection) -> None:
    """Bring the schema up to date; the caller holds the writer's lock.

    Raises:
        Fault: the ledger was written by a newer release.
    """
    have = int(connection.pragma("user_version"))
    check_level(have)
    # A table is rebuilt by taking its name over from the old one, which what points to it must outlive.
    connection.pragma("foreign_keys", False)
    try:
        for number, text in enumerate(MIGRATIONS[have:], start=have + 1):
            with connection:
                connection.execute(text)
                connection.pragma("user_version", number)
    finally:
        connection.pragma("foreign_keys", True)
