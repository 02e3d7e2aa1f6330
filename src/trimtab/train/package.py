"""Packing a fitted model: skops where it can, pickle under a grant where it cannot; equal fits pack equally."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trimtab.core.errors import StepFailed
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.train.predictor import Predictor

_TRUSTED = ("sklearn.", "numpy.", "scipy.", "builtins.")
_FUNCTIONS = ("sklearn.feature_selection.", "sklearn.metrics.")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def dump(model: Any, modules: frozenset[str]) -> tuple[bytes, Data]:
    """Return a model's bytes and ``{"format", "trusted", "note"}``.

    Estimators are kept by skops; classes of scikit-learn, numpy, scipy and Python that skops asks about are
    trusted and named in ``trusted``. What holds anything else is kept by pickle, and ``note`` says why.

    Args:
        model: a fitted estimator or a Predictor.
        modules: the project's own modules; a Predictor's class must live in one, so that it can be read again
            from the snapshot.

    Raises:
        StepFailed: it cannot be packed.
    """
    if isinstance(model, Predictor):
        return _pickled(model, modules, "a tt.Predictor is kept by pickle")
    skops: Any = need("skops.io")
    try:
        content = skops.dumps(model)
        unknown = skops.get_untrusted_types(data=content)
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        return _pickled(model, modules, f"skops cannot keep it: {error}")
    foreign = [name for name in unknown if not _is_harmless(name)]
    if foreign:
        return _pickled(model, modules, f"skops does not know {', '.join(foreign[:5])}")
    return _same_every_time(content), {"format": "skops", "trusted": sorted(unknown), "note": ""}


def _is_harmless(name: str) -> bool:
    """Say whether what ``name`` names only computes: a class of a known library, not a function that may read files."""
    if not name.startswith(_TRUSTED):
        return False
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return isinstance(found, type) or type(found).__name__ == "ufunc" or name.startswith(_FUNCTIONS)


def _pickled(model: Any, modules: frozenset[str], note: str) -> tuple[bytes, Data]:
    home, name = type(model).__module__, type(model).__qualname__
    if home == "__main__" or (isinstance(model, Predictor) and home not in modules):
        raise StepFailed(
            f"the class {name} lives in {home!r}, which is not a module of the project",
            fix="define it in a module of the project, at its top level",
        )
    try:
        return pickle.dumps(model, protocol=5), {"format": "pickle", "trusted": [], "note": note}
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise StepFailed(
            f"the model cannot be packed: {error}", fix="keep only data in it, and its class at a module's top level"
        ) from error


def _same_every_time(content: bytes) -> bytes:
    """Return a skops file without the time of day and memory addresses, so that equal fits are equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        schema = json.loads(source.read("schema.json"))
        names = _renumber(schema)
        members = {names.get(name, name): source.read(name) for name in source.namelist()}
        members["schema.json"] = json.dumps(schema).encode()
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, members[name])
    return out.getvalue()


def _renumber(schema: Any) -> dict[str, str]:
    """Replace the ids in a skops schema (addresses of objects) by counting, and return old -> new file names.

    Objects that are referred to again keep one number; texts share addresses by accident, so each gets its own.
    """
    nodes = list(_nodes(schema))
    shared = {node["__id__"] for node in nodes if node.get("__loader__") == "CachedNode"}
    numbers: dict[int, int] = {}
    files: dict[str, str] = {}
    for count, node in enumerate(nodes, start=1):
        old = node["__id__"]
        node["__id__"] = count if node.get("is_json") and old not in shared else numbers.setdefault(old, count)
        if isinstance(node.get("file"), str):
            files.setdefault(node["file"], f"{len(files) + 1:06d}.{node['file'].rpartition('.')[2]}")
            node["file"] = files[node["file"]]
    return files


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "__id__" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def files_of(location: Mapping[str, Any], blobs: Any) -> dict[str, Path]:
    """Return a model version's files: name -> local path."""
    return {name: blobs.path(digest) for name, digest in location["files"].items()}
