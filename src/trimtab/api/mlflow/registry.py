"""The model registry as MLflow's clients write and read it; their prompts are registered models with tags."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args
from urllib.parse import unquote, unquote_plus, urlsplit

from trimtab.api.mlflow import limits
from trimtab.api.mlflow.entities import pairs
from trimtab.api.mlflow.tracking import now_ms
from trimtab.api.mlflow.wire import LIST, NEEDED, TEXT, TEXTS, WHOLE, Field, MlflowError, Spec, invalid
from trimtab.core.nouns import Data
from trimtab.store import facts, models, registry, registrysearch, registrytags, tracking
from trimtab.store.ledger import Reader, Tx
from trimtab.store.registry import ModelVersion, RegisteredModel, Stage
from trimtab.store.store import Store

_NAME, _VALUE, _ALIAS = 256, 100_000, 255
_MOST_MODELS, _MOST_VERSIONS = 1000, 200_000
_ACTIVE = ["Staging", "Production"]
_STAGES: dict[str, Stage] = {stage.lower(): stage for stage in get_args(Stage)}
_ALIAS_FORM, _RESERVED = re.compile(r"[\w-]+"), re.compile(r"[vV]\d+")


class Registry:
    """The operations on registered models and their versions, each from a request's arguments to an answer.

    Args:
        store: whose ledger is read and written.
    """

    def __init__(self, store: Store) -> None:
        self._ledger = store.ledger

    # Registered models

    def create(self, given: Data) -> Data:
        """Register a name."""
        name, tags = model_name(given["name"]), _tags(given.get("tags") or [])
        made = self._ledger.write(
            lambda tx: registry.create_registered(
                tx, name, description=given.get("description") or "", tags=tags, now_ms=now_ms()
            ),
            what="register model",
        )
        return {"registered_model": model_data(made)}

    def get(self, given: Data) -> Data:
        """Return a registered model with the newest version of each stage."""
        return {"registered_model": model_data(registry.get_registered(self._ledger, model_name(given["name"])))}

    def rename(self, given: Data) -> Data:
        """Give a registered model another name."""
        new = model_name(given["new_name"], "new_name")
        made = self._ledger.write(
            lambda tx: registry.rename_registered(tx, model_name(given["name"]), new, now_ms=now_ms()),
            what="rename registered model",
        )
        return {"registered_model": model_data(made)}

    def update(self, given: Data) -> Data:
        """Replace a registered model's description."""
        name, text = model_name(given["name"]), given.get("description") or ""
        made = self._ledger.write(
            lambda tx: registry.describe_registered(tx, name, text, now_ms=now_ms()), what="describe registered model"
        )
        return {"registered_model": model_data(made)}

    def delete(self, given: Data) -> Data:
        """Delete a registered model with its versions."""
        name = model_name(given["name"])
        self._ledger.write(lambda tx: registry.delete_registered(tx, name), what="delete registered model")
        return {}

    def search(self, given: Data) -> Data:
        """Return a page of registered models."""
        found, token = registrysearch.search_models(self._ledger, **_query(given, 100, _MOST_MODELS))
        return _page("registered_models", [model_data(one) for one in found], token)

    def latest(self, given: Data) -> Data:
        """Return the newest version of each stage, or of those that are asked for."""
        stages = {_stage(one) for one in given.get("stages") or _STAGES}
        known = registry.get_registered(self._ledger, model_name(given["name"]))
        return _page("model_versions", [version_data(one) for one in known.latest if one.stage in stages], "")

    def set_tag(self, given: Data) -> Data:
        """Set a tag of a registered model."""
        name, tags = model_name(given["name"]), _tags([given])
        self._ledger.write(lambda tx: registrytags.tag_registered(tx, name, tags), what="tag registered model")
        return {}

    def delete_tag(self, given: Data) -> Data:
        """Remove a tag of a registered model, if it has it."""
        name, key = model_name(given["name"]), limits.check_name(given["key"], "key")
        self._ledger.write(lambda tx: registrytags.untag_registered(tx, name, key), what="untag registered model")
        return {}

    def set_alias(self, given: Data) -> Data:
        """Point an alias to a version."""
        name, alias, number = model_name(given["name"]), alias_name(given["alias"]), version_number(given["version"])
        if alias.lower() == registry.LATEST:
            raise MlflowError("'latest' alias name (case insensitive) is reserved.")
        if _RESERVED.fullmatch(alias):
            raise MlflowError(f"Version alias name '{alias}' is reserved.")

        def put(tx: Tx) -> None:
            facts.set_alias(tx, name, alias, registry.get_version(tx, name, number).id)

        self._ledger.write(put, what="set alias")
        return {}

    def delete_alias(self, given: Data) -> Data:
        """Remove an alias, if it is there."""
        name, alias = model_name(given["name"]), alias_name(given["alias"])
        self._ledger.write(lambda tx: registry.drop_alias(tx, name, alias), what="delete alias")
        return {}

    def get_alias(self, given: Data) -> Data:
        """Return the version that an alias points to."""
        name, alias = model_name(given["name"]), alias_name(given["alias"])
        return {"model_version": version_data(registry.aliased(self._ledger, name, alias))}

    # Versions

    def create_version(self, given: Data) -> Data:
        """Add a version; its source is kept as text and no file of this machine is ever read by it."""
        name, tags = model_name(given["name"]), _tags(given.get("tags") or [])
        source, run_id, model_id = given["source"], given.get("run_id") or "", given.get("model_id") or ""
        limits.check_length("source", limits.LOCATION, source)
        if registry.PROMPT in tags:
            check_prompt_source(source)
        else:
            check_source(self._ledger, source, run_id, model_id)
        made = self._ledger.write(
            lambda tx: registry.create_version(
                tx,
                name,
                source=source,
                run_id=run_id,
                run_link=given.get("run_link") or "",
                model_id=model_id,
                description=given.get("description") or "",
                tags=tags,
                now_ms=now_ms(),
            ),
            what="create model version",
        )
        return {"model_version": version_data(made)}

    def get_version(self, given: Data) -> Data:
        """Return a version."""
        return {"model_version": version_data(registry.get_version(self._ledger, *_version(given)))}

    def update_version(self, given: Data) -> Data:
        """Replace a version's description."""
        name, number = _version(given)
        text = given.get("description") or ""
        made = self._ledger.write(
            lambda tx: registry.describe_version(tx, name, number, text, now_ms=now_ms()), what="describe version"
        )
        return {"model_version": version_data(made)}

    def move_version(self, given: Data) -> Data:
        """Put a version in a stage."""
        (name, number), stage = _version(given), _stage(given["stage"])
        archive = bool(given.get("archive_existing_versions"))
        if archive and stage not in _ACTIVE:
            raise MlflowError(
                f"Model version transition cannot archive existing model versions because '{given['stage']}' is not an"
                f" Active stage. Valid stages are {_ACTIVE}"
            )
        made = self._ledger.write(
            lambda tx: registry.move_version(tx, name, number, stage, archive=archive, now_ms=now_ms()),
            what="transition stage",
        )
        return {"model_version": version_data(made)}

    def delete_version(self, given: Data) -> Data:
        """Delete a version."""
        name, number = _version(given)
        self._ledger.write(
            lambda tx: registry.delete_version(tx, name, number, now_ms=now_ms()), what="delete model version"
        )
        return {}

    def search_versions(self, given: Data) -> Data:
        """Return a page of versions."""
        found, token = registrysearch.search_versions(self._ledger, **_query(given, 200_000, _MOST_VERSIONS))
        return _page("model_versions", [version_data(one) for one in found], token)

    def download_uri(self, given: Data) -> Data:
        """Return where a version's files are for its client."""
        found = registry.get_version(self._ledger, *_version(given))
        return {"artifact_uri": registry.root_of(self._ledger, found)}

    def set_version_tag(self, given: Data) -> Data:
        """Set a tag of a version."""
        (name, number), tags = _version(given), _tags([given])
        self._ledger.write(lambda tx: registrytags.tag_version(tx, name, number, tags), what="tag model version")
        return {}

    def delete_version_tag(self, given: Data) -> Data:
        """Remove a tag of a version, if it has it."""
        (name, number), key = _version(given), limits.check_name(given["key"], "key")
        self._ledger.write(lambda tx: registrytags.untag_version(tx, name, number, key), what="untag model version")
        return {}


def model_name(name: str, path: str = "name") -> str:
    """Return a registered model's name.

    Raises:
        MlflowError: it is empty or too long, has a slash or a colon, or would be another name as a path.
    """
    if not name.strip():
        raise MlflowError(f"Missing value for required parameter '{path}'.")
    if "/" in name or ":" in name:
        raise MlflowError(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    if name in (".", "..") or name.startswith(".."):
        raise invalid(
            "name",
            name,
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as"
            f" such. This name would resolve to {posixpath.normpath(name)!r}",
        )
    return limits.check_length("name", _NAME, name)


def alias_name(alias: str) -> str:
    """Return an alias.

    Raises:
        MlflowError: it is too long, or has other characters.
    """
    if not _ALIAS_FORM.fullmatch(alias):
        text = "Names may only contain alphanumerics, underscores (_), and dashes (-)."
        raise MlflowError(f"Invalid alias name: '{alias}'. {text}")
    return limits.check_length("Registered model alias name", _ALIAS, alias)


def version_number(text: str) -> int:
    """Return the number of a version; one that there cannot be is 0.

    Raises:
        MlflowError: it is none.
    """
    if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):
        raise MlflowError(f"Parameter 'version' must be an integer, got '{text}'.")
    return int(text) if len(text) < 12 else 0


def _version(given: Data) -> tuple[str, int]:
    return model_name(given["name"]), version_number(given["version"])


def _stage(text: str) -> Stage:
    if text.lower() not in _STAGES:
        raise MlflowError(f"Invalid Model Version stage: {text}. Value must be one of {', '.join(_STAGES.values())}.")
    return _STAGES[text.lower()]


def _tags(items: Sequence[Any]) -> dict[str, str]:
    found = {}
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise invalid(f"tags[{index}]", item)
        key, value = limits.check_name(item.get("key"), "key"), item.get("value", "")
        if not isinstance(value, str):
            raise invalid("value", value)
        if key == registry.TEXT and len(value) > _VALUE:
            raise MlflowError(f"Prompt text exceeds max length of {_VALUE} characters.")
        found[limits.check_length("key", limits.KEY, key)] = limits.check_length("value", _VALUE, value)
    return found


def _query(given: Data, usual: int, limit: int) -> dict[str, Any]:
    most = given.get("max_results", usual)
    if most < 1:
        raise MlflowError(f"Invalid value for max_results. It must be a positive integer, but got {most}")
    if most > limit:
        raise invalid("max_results", most, f"It must be at most {limit}.")
    return {
        "filter": given.get("filter") or "",
        "order": given.get("order_by") or [],
        "most": most,
        "token": given.get("page_token") or "",
    }


def _page(name: str, items: list[Data], token: str) -> Data:
    return {**({name: items} if items else {}), **({"next_page_token": token} if token else {})}


def check_prompt_source(source: str) -> None:
    """Check the source of a prompt, which is a placeholder or a URI.

    Raises:
        MlflowError: it is a path of a file system, or hides one.
    """
    scheme = _scheme(source)
    if scheme == "file" or (not scheme and source.startswith("/")):
        raise MlflowError(f"Invalid prompt source: '{source}'. Local source paths are not allowed for prompts.")
    if scheme:
        _check_plain(source)


def check_source(reader: Reader, source: str, run_id: str, model_id: str) -> None:
    """Check the source of a version: a URI, or a path below the artifacts of its run or logged model.

    Raises:
        NotFound: there is no such run or logged model.
        MlflowError: it is a path elsewhere, or hides one.
    """
    if not _local(source):
        _check_plain(source)
        return
    if model_id:
        root = models.get_model(reader, model_id).root
    else:
        root = tracking.get_run(reader, run_id).root if run_id else ""
    if root and _local(root):
        base, path = _plain_path(root), _plain_path(source)
        if path is not None and base is not None and f"{path}/".startswith(f"{base.rstrip('/')}/"):
            return
    what = "model_id" if model_id else "run_id"
    raise MlflowError(
        f"Invalid model version source: '{source}'. To use a local path as a model version source, the {what} request"
        " parameter has to be specified and the local path has to be contained within the artifact directory of the"
        f" run specified by the {what}."
    )


def _scheme(source: str) -> str:
    found = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", source)
    return found[1].lower() if found else ""


def _local(source: str) -> bool:
    if _scheme(source) not in ("", "file"):
        return False
    host = _parts(source)[0]
    if _scheme(source) and host and host != "." and not host.startswith(("localhost", "127.0.0.1")):
        raise MlflowError(
            f"{source} is not a valid remote uri. For remote access on windows, please consider using a different"
            " scheme such as SMB (e.g. smb://<hostname>/<path>)."
        )
    return True


def _parts(source: str) -> tuple[str, str]:
    try:
        parts = urlsplit(source)
        return parts.hostname or "", parts.path
    except ValueError:
        raise _relative(source) from None


def _plain_path(source: str) -> str | None:
    """Return the absolute path that a local source names, without asking the file system; None for any other."""
    path = unquote(_parts(source)[1]) if _scheme(source) else source
    if not path.startswith("/") or "\0" in path:
        return None
    return posixpath.normpath(path)


def _check_plain(source: str) -> None:
    """Refuse a URI whose path has another meaning when it is decoded, as often as it takes."""
    plain = source
    while (decoded := unquote_plus(plain)) != plain:
        plain = decoded
    path = re.sub(r"/+", "/", _parts(plain)[1].rstrip("/"))
    if "\0" in plain or ".." in re.split(r"[/\\]", plain):
        raise _relative(source)
    if path and (not path.startswith("/") or posixpath.normpath(path) != path):
        raise _relative(source)


def _relative(source: str) -> MlflowError:
    return MlflowError(
        f"Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp,"
        " objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references"
        " present. Please provide an absolute path."
    )


def version_data(found: ModelVersion) -> Data:
    """Return a version as an answer has it."""
    told = {
        "name": found.model,
        "version": str(found.number),
        "creation_timestamp": found.created_ms,
        "last_updated_timestamp": found.updated_ms,
        "current_stage": found.stage,
        "description": found.description,
        "source": found.source,
        "run_id": found.run_id,
        "status": found.status,
        "run_link": found.run_link,
    }
    more = {
        "user_id": found.user_id, "model_id": found.model_id, "tags": pairs(found.tags), "aliases": found.aliases
    }  # fmt: skip
    return {**told, **{name: value for name, value in more.items() if value}}


def model_data(found: RegisteredModel) -> Data:
    """Return a registered model as an answer has it."""
    more = {
        "description": found.description,
        "latest_versions": [version_data(one) for one in found.latest],
        "tags": pairs(found.tags),
        "aliases": [{"alias": alias, "version": str(number)} for alias, number in found.aliases.items()],
    }
    return {
        "name": found.name,
        "creation_timestamp": found.created_ms,
        "last_updated_timestamp": found.updated_ms,
        **{name: value for name, value in more.items() if value},
    }


_ONE: Spec = {"name": NEEDED}
_AT: Spec = {"name": NEEDED, "version": NEEDED}
_TAG: Spec = {"key": NEEDED, "value": TEXT}
_SEARCH: Spec = {"filter": TEXT, "max_results": WHOLE, "order_by": TEXTS, "page_token": TEXT}
_MODEL, _VERSION_AT = "registered-models", "model-versions"
_ALIASED: Spec = {"name": NEEDED, "alias": NEEDED}
Operation = tuple[str, str, Spec, Callable[[Registry, Data], Data]]
OPERATIONS: tuple[Operation, ...] = (
    ("POST", f"{_MODEL}/create", {**_ONE, "tags": LIST, "description": TEXT}, Registry.create),
    ("GET", f"{_MODEL}/get", _ONE, Registry.get),
    ("POST", f"{_MODEL}/rename", {**_ONE, "new_name": NEEDED}, Registry.rename),
    ("PATCH", f"{_MODEL}/update", {**_ONE, "description": TEXT}, Registry.update),
    ("DELETE", f"{_MODEL}/delete", _ONE, Registry.delete),
    ("GET", f"{_MODEL}/search", _SEARCH, Registry.search),
    ("GET", f"{_MODEL}/get-latest-versions", {**_ONE, "stages": TEXTS}, Registry.latest),
    ("POST", f"{_MODEL}/get-latest-versions", {**_ONE, "stages": TEXTS}, Registry.latest),
    ("POST", f"{_MODEL}/set-tag", {**_ONE, **_TAG}, Registry.set_tag),
    ("DELETE", f"{_MODEL}/delete-tag", {**_ONE, "key": NEEDED}, Registry.delete_tag),
    ("POST", f"{_MODEL}/alias", {**_ALIASED, "version": NEEDED}, Registry.set_alias),
    ("DELETE", f"{_MODEL}/alias", _ALIASED, Registry.delete_alias),
    ("GET", f"{_MODEL}/alias", _ALIASED, Registry.get_alias),
    (
        "POST",
        f"{_VERSION_AT}/create",
        {
            "name": NEEDED,
            "source": NEEDED,
            "run_id": TEXT,
            "run_link": TEXT,
            "model_id": TEXT,
            "description": TEXT,
            "tags": LIST,
        },
        Registry.create_version,
    ),
    ("GET", f"{_VERSION_AT}/get", _AT, Registry.get_version),
    ("PATCH", f"{_VERSION_AT}/update", {**_AT, "description": TEXT}, Registry.update_version),
    ("DELETE", f"{_VERSION_AT}/delete", _AT, Registry.delete_version),
    ("GET", f"{_VERSION_AT}/search", _SEARCH, Registry.search_versions),
    ("GET", f"{_VERSION_AT}/get-download-uri", _AT, Registry.download_uri),
    (
        "POST",
        f"{_VERSION_AT}/transition-stage",
        {**_AT, "stage": NEEDED, "archive_existing_versions": Field("flag")},
        Registry.move_version,
    ),
    ("POST", f"{_VERSION_AT}/set-tag", {**_AT, **_TAG}, Registry.set_version_tag),
    ("DELETE", f"{_VERSION_AT}/delete-tag", {**_AT, "key": NEEDED}, Registry.delete_version_tag),
)
"""Method, path below ``/api/2.0/mlflow/``, the request's fields, and what answers it."""
