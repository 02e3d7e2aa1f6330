"""Evaluation datasets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from trimtab.api.mlflow.tracking import experiment_number, now_ms
from trimtab.api.mlflow.wire import LIST, NEEDED, TEXT, TEXTS, WHOLE, MlflowError, Spec
from trimtab.core.nouns import Data
from trimtab.store import evalsets
from trimtab.store.evalsets import EvalSet, Record
from trimtab.store.store import Store

_MOST = 50_000


class EvalSets:
    """The operations on evaluation datasets.

    Args:
        store: whose ledger is read and written.
    """

    def __init__(self, store: Store) -> None:
        self._ledger = store.ledger

    def create(self, given: Data) -> Data:
        """Make an empty dataset."""
        tags = _tags(given)
        homes = _experiments(given)
        if any(value is None for value in tags.values()):
            raise MlflowError("Invalid value for parameter 'tags' supplied: a tag has no value")
        plain = {name: str(value) for name, value in tags.items()}
        made = self._ledger.write(
            lambda tx: evalsets.create_evalset(tx, given["name"], tags=plain, experiments=homes, now_ms=now_ms()),
            what="create evaluation dataset",
        )
        return {"dataset": _shown(made)}

    def get(self, given: Data) -> Data:
        """Return a dataset."""
        return {"dataset": _shown(evalsets.get_evalset(self._ledger, given["dataset_id"]))}

    def delete(self, given: Data) -> Data:
        """Remove a dataset with its records."""
        self._ledger.write(lambda tx: evalsets.drop_evalset(tx, given["dataset_id"]), what="delete evaluation dataset")
        return {}

    def search(self, given: Data) -> Data:
        """Find datasets."""
        most = given.get("max_results") or 1000
        if not 1 <= most <= _MOST:
            raise MlflowError(f"Invalid value {most} for parameter 'max_results' supplied. It must be 1 to {_MOST}")
        found, token = evalsets.search_evalsets(
            self._ledger,
            experiments=_experiments(given),
            filter=given.get("filter_string") or "",
            order=given.get("order_by") or [],
            most=most,
            token=given.get("page_token") or "",
        )
        told: Data = {"datasets": [_shown(one) for one in found]}
        return {**told, "next_page_token": token} if token else told

    def set_tags(self, given: Data) -> Data:
        """Set tags; null removes one."""
        tags = _tags(given)
        self._ledger.write(
            lambda tx: evalsets.tag_evalset(tx, given["dataset_id"], tags, now_ms=now_ms()),
            what="tag evaluation dataset",
        )
        return {}

    def delete_tag(self, given: Data) -> Data:
        """Remove a tag, if it is there."""
        gone = {given["key"]: None}
        self._ledger.write(
            lambda tx: evalsets.tag_evalset(tx, given["dataset_id"], gone, now_ms=now_ms()),
            what="untag evaluation dataset",
        )
        return {}

    def merge(self, given: Data) -> Data:
        """Add records, or merge them into those with the same inputs."""
        records = _decoded("records", given["records"], list)
        for place, record in enumerate(records):
            if not isinstance(record, dict):
                raise MlflowError(f"Invalid value for parameter 'records[{place}]' supplied: no object")
            for name in ("inputs", "expectations", "tags", "source"):
                if record.get(name) is not None and not isinstance(record[name], dict):
                    raise MlflowError(
                        f"Invalid value for parameter 'records[{place}].{name}' supplied: it is no object"
                    )
        added, merged = self._ledger.write(
            lambda tx: evalsets.merge_records(tx, given["dataset_id"], records, now_ms=now_ms()),
            what="merge evaluation records",
        )
        return {"inserted_count": added, "updated_count": merged}

    def records(self, given: Data) -> Data:
        """Return a page of records."""
        most, token = given.get("max_results") or 1000, given.get("page_token") or "0"
        if most < 1 or not token.isdecimal() or len(token) > 18:
            raise MlflowError("Invalid value for parameter 'max_results' or 'page_token' supplied")
        found = evalsets.records_of(self._ledger, given["dataset_id"], after=int(token), most=most + 1)
        page = found[:most]
        shown = msgspec.json.encode([_record(given["dataset_id"], one) for one in page]).decode()
        return {"records": shown, **({"next_page_token": str(page[-1].place)} if len(found) > most else {})}

    def delete_records(self, given: Data) -> Data:
        """Remove records."""
        wanted = [str(one) for one in given.get("dataset_record_ids") or []]
        count = self._ledger.write(
            lambda tx: evalsets.drop_records(tx, given["dataset_id"], wanted), what="delete evaluation records"
        )
        return {"deleted_count": count}

    def experiments(self, given: Data) -> Data:
        """Return the experiments that have a dataset."""
        found = evalsets.get_evalset(self._ledger, given["dataset_id"])
        return {"experiment_ids": [str(one) for one in found.experiments]}

    def link(self, given: Data) -> Data:
        """Let experiments have a dataset."""
        self._ledger.write(
            lambda tx: evalsets.link(tx, given["dataset_id"], _experiments(given)), what="link evaluation dataset"
        )
        return self.get(given)

    def unlink(self, given: Data) -> Data:
        """Let experiments no longer have a dataset."""
        self._ledger.write(
            lambda tx: evalsets.unlink(tx, given["dataset_id"], _experiments(given)), what="unlink evaluation dataset"
        )
        return self.get(given)


def _decoded(name: str, text: str, kind: type) -> Any:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise MlflowError(f"Invalid value for parameter '{name}' supplied: it is no JSON: {error}") from error
    if not isinstance(found, kind):
        raise MlflowError(f"Invalid value for parameter '{name}' supplied: it is no JSON {kind.__name__}")
    return found


def _tags(given: Data) -> dict[str, str | None]:
    found: dict[str, Any] = _decoded("tags", given["tags"], dict) if given.get("tags") else {}
    return {name: None if value is None else str(value) for name, value in found.items()}


def _experiments(given: Data) -> list[int]:
    return [experiment_number(str(one)) for one in given.get("experiment_ids") or []]


def _shown(found: EvalSet) -> Data:
    by = {"created_by": found.created_by, "last_updated_by": found.updated_by}
    more = {"schema": found.schema, "profile": found.profile, **by}
    return {
        "dataset_id": found.id,
        "name": found.name,
        "tags": msgspec.json.encode(found.tags).decode(),
        "digest": found.digest,
        "created_time": found.created_ms,
        "last_update_time": found.updated_ms,
        "experiment_ids": [str(one) for one in found.experiments],
        **{name: value for name, value in more.items() if value is not None},
    }


def _record(dataset_id: str, one: Record) -> Data:
    found: Data = {"dataset_record_id": one.id, "dataset_id": dataset_id, "inputs": one.inputs, "tags": one.tags}
    if one.outputs is not msgspec.UNSET:
        found["outputs"] = one.outputs
    source: Data = one.source or {}
    data: Any = source.get("source_data") or {}
    kind = source.get("source_type")
    more = {
        "expectations": one.expectations,
        "source": one.source,
        "source_id": data.get("trace_id" if kind == "TRACE" else "source_id"),
        "source_type": kind,
        "created_by": one.created_by,
        "last_updated_by": one.updated_by,
    }
    found |= {name: value for name, value in more.items() if value is not None}
    return {**found, "created_time": one.created_ms, "last_update_time": one.updated_ms}


_AT = "datasets/{dataset_id:str}"
_SEARCH: Spec = {
    "experiment_ids": TEXTS,
    "filter_string": TEXT,
    "max_results": WHOLE,
    "order_by": TEXTS,
    "page_token": TEXT,
}
_LINKED: Spec = {"experiment_ids": TEXTS}
Operation = tuple[str, str, Spec, Callable[[EvalSets, Data], Data]]
OPERATIONS: tuple[Operation, ...] = (
    ("POST", "datasets/create", {"name": NEEDED, "experiment_ids": TEXTS, "tags": TEXT}, EvalSets.create),
    ("POST", "datasets/search", _SEARCH, EvalSets.search),
    ("GET", "datasets/search", _SEARCH, EvalSets.search),
    ("GET", _AT, {}, EvalSets.get),
    ("DELETE", _AT, {}, EvalSets.delete),
    ("PATCH", f"{_AT}/tags", {"tags": NEEDED}, EvalSets.set_tags),
    ("DELETE", f"{_AT}/tags/{{key:str}}", {}, EvalSets.delete_tag),
    ("POST", f"{_AT}/records", {"records": NEEDED}, EvalSets.merge),
    ("GET", f"{_AT}/records", {"max_results": WHOLE, "page_token": TEXT}, EvalSets.records),
    ("DELETE", f"{_AT}/records", {"dataset_record_ids": LIST}, EvalSets.delete_records),
    ("GET", f"{_AT}/experiment-ids", {}, EvalSets.experiments),
    ("POST", f"{_AT}/add-experiments", _LINKED, EvalSets.link),
    ("POST", f"{_AT}/remove-experiments", _LINKED, EvalSets.unlink),
)
"""Method, path below ``/api/3.0/mlflow/``, the request's fields, and what answers it."""
