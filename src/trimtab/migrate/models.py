"""Logged models and the registry come over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from trimtab.core.errors import NotFound
from trimtab.core.nouns import Data
from trimtab.migrate.fits import why_not
from trimtab.migrate.move import Move, fields_differ
from trimtab.migrate.source import Broken, Files, OldVersion
from trimtab.store import bring, models, registry
from trimtab.store.ledger import Tx
from trimtab.store.models import LoggedModel
from trimtab.store.registry import PROMPT, ModelVersion, RegisteredModel

_MODEL = ("experiment", "name", "run_id", "status", "type", "stage", "root", "created_ms", "updated_ms", "params",
          "tags")  # fmt: skip
_VERSION = ("number", "description", "stage", "status", "source", "run_id", "run_link", "user_id", "created_ms",
            "updated_ms", "tags")  # fmt: skip
_OF_MODEL = re.compile(r"(?:^|/)models/(m-[0-9a-f]{32})/artifacts/?(.*)$|^models:/+(m-[0-9a-f]{32})$")
_OF_RUN = re.compile(r"(?:^|/)([0-9a-f]{32})/artifacts/?(.*)$|^runs:/+([0-9a-f]{32})/(.+)$")


def move_models(move: Move) -> None:
    """Let the logged models come over."""
    for model in move.source.models(list(move.homes)):
        if isinstance(model, Broken):
            move.broken(model)
            continue
        move.saw("models")
        if move.names:
            move.chosen.add(model.id)
        move.unit("model", model.id, lambda model=model: _model(move, model))  # type: ignore[misc]


def _model(move: Move, model: LoggedModel) -> None:
    if reason := why_not(model.id, "model", model.created_ms, model.updated_ms):
        move.report.tell("refused", "model", model.id, reason)
        return
    home, files = move.homes[model.experiment], move.source.files(model.root)
    if files is None and model.root:
        move.leave(model.root)
    root = model.root if files is None and model.root else home.root("models", model.id, "artifacts")
    wanted, owner = replace(model, experiment=home.new, root=root), f"model {model.id}"
    if move.ledger.query("SELECT 1 FROM logged_model WHERE model_id=?", (model.id,)):
        listed = move.listed(owner, files)
        move.report.seen.update(files=len(listed))
        move.compared("models", model.id, _model_differs(move, wanted) + move.files_differ(root, listed),
                      files=len(listed))  # fmt: skip
        return
    kept = move.kept(owner, files)
    move.report.seen.update(files=len(kept))

    def put(tx: Tx) -> Data:
        bring.put_model(tx, wanted, metrics=model.metrics, files=kept)
        return {}

    if not move.dry:
        move.write(put, what="model", key=f"model:{model.id}")
    move.done("models", copied=True, files=len(kept))


def _model_differs(move: Move, wanted: LoggedModel) -> list[str]:
    known = models.get_model(move.ledger, wanted.id, deleted=True)
    found = fields_differ(*({name: getattr(one, name) for name in _MODEL} for one in (known, wanted)))
    there = {(one.run_id, str(one.point), one.dataset_name, one.dataset_digest) for one in wanted.metrics}
    if bring.metric_count(move.ledger, wanted.id) != len(there):
        found.append("metrics")
    return found


def move_registry(move: Move) -> None:
    """Let registered models and prompts come over with their versions and aliases.

    Of a move of some experiments only versions that are theirs come, and models that have such.
    """
    for given in move.source.registered():
        if isinstance(given, Broken):
            move.broken(given)
            continue
        olds = [] if not move.names else [one for one in move.source.versions(given.name) if _is_chosen(move, one)]
        if not move.names or olds:
            move.saw("registered models")
            move.unit("registered model", given.name, lambda given=given: _registered(move, given))  # type: ignore[misc]


def _is_chosen(move: Move, old: OldVersion | Broken) -> bool:
    if isinstance(old, Broken):
        return False
    found = _OF_MODEL.search(old.version.source) or _OF_MODEL.search(old.storage)
    return bool({old.version.run_id, old.version.model_id, *(found.groups() if found else ())} & move.chosen)


def _registered(move: Move, given: RegisteredModel) -> None:
    key = f"registered:{given.name}"
    try:
        known = registry.get_registered(move.ledger, given.name)
    except NotFound:
        if move.mark(key) is not None:
            move.gone("registered model", given.name)
            return
        if not move.dry:
            move.write(lambda tx: _put_registered(tx, given), what="registered model", key=key)
        move.done("registered models", copied=True)
    else:
        names = ("description", "tags")
        different = fields_differ(*({name: getattr(one, name) for name in names} for one in (known, given)))
        move.compared("registered models", given.name, different)
    for old in move.source.versions(given.name):
        if isinstance(old, Broken):
            move.broken(old)
        elif not move.names or _is_chosen(move, old):
            move.saw("versions")
            ident = f"{given.name}:{old.version.number}"
            move.unit("version", ident, lambda old=old, ident=ident: _version(move, old, ident))  # type: ignore[misc]
    _aliases(move, given)


def _put_registered(tx: Tx, given: RegisteredModel) -> Data:
    bring.put_registered(tx, given)
    return {}


def _version(move: Move, old: OldVersion, ident: str) -> None:
    version, key = old.version, f"version:{ident}"
    root, files = _root(move, old)
    try:
        known = registry.get_version(move.ledger, version.model, version.number)
    except NotFound:
        if move.mark(key) is not None:
            move.gone("version", ident)
            return
        kept = move.kept(f"version {ident}", files)
        move.report.seen.update(files=len(kept))

        def put(tx: Tx) -> Data:
            bring.put_version(tx, version, root=root, files=kept)
            return {}

        if not move.dry:
            move.write(put, what="version", key=key)
        move.done("versions", copied=True, files=len(kept))
        return
    listed = move.listed(f"version {ident}", files)
    move.report.seen.update(files=len(listed))
    different = fields_differ(*({name: getattr(one, name) for name in _VERSION} for one in (known, version)))
    move.compared("versions", ident, different, files=len(listed))


def _root(move: Move, old: OldVersion) -> tuple[str, Files | None]:
    """Return where a version's files are here, and the files if they come with it and nothing else."""
    version: ModelVersion = old.version
    place = old.storage or version.source
    if PROMPT in version.tags:
        return place, None
    for text in (place, version.source):
        found = _here(move, text)
        if found:
            return found, None
    files = move.source.files(place)
    if files is None:
        if ":" in place:
            move.leave(place)
        return place, None
    return f"{bring.SCHEME}/registered/{version.model}/{version.number}", files


def _here(move: Move, place: str) -> str:
    """Return where what a place names is here, if it is of a run or model that is here."""
    of_model, of_run = _OF_MODEL.search(place), _OF_RUN.search(place)
    if of_model:
        ident, path = of_model[1] or of_model[3], of_model[2] or ""
        rows = _asked(move, "SELECT root FROM logged_model WHERE model_id=?", ident)
    elif of_run:
        ident, path = of_run[1] or of_run[3], of_run[2] if of_run[1] else of_run[4]
        rows = _asked(move, "SELECT root FROM tracked WHERE run_id=?", f"run_{ident}")
    else:
        return ""
    if move.dry:
        return place
    return "/".join([str(rows[0][0]).rstrip("/"), *([path] if path else [])]) if rows else ""


def _asked(move: Move, sql: str, ident: str) -> Sequence[tuple[Any, ...]]:
    return move.ledger.query(sql, (ident,))


def _aliases(move: Move, given: RegisteredModel) -> None:
    if not given.aliases:
        return
    move.report.seen.update(aliases=len(given.aliases))
    key = f"aliases:{move.ledger.environment}:{given.name}"
    fresh = move.mark(key) is None
    if move.dry:
        move.report.copied.update(aliases=len(given.aliases) if fresh else 0)
        return
    move.write(lambda tx: {"missing": bring.put_aliases(tx, given.name, given.aliases)}, what="aliases", key=key)
    here = registry.get_registered(move.ledger, given.name).aliases
    for alias, number in given.aliases.items():
        if here.get(alias) == number:
            (move.report.copied if fresh else move.report.already).update(aliases=1)
        else:
            text = f"{here.get(alias)} here, {number} there"
            move.report.tell("conflict", "alias", f"{given.name}@{alias}", text)
