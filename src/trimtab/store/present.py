"""Whether what a version stands for is still there; light enough to be asked of every step of a plan."""

from __future__ import annotations

from trimtab.core.errors import WrongUse
from trimtab.core.nouns import Data
from trimtab.store.store import Store


def missing(store: Store, location: Data) -> str:
    """Return the first file of a version that is not there any more, or an empty string.

    Only names are looked at: what is there may still have other content, which whoever reads it finds out.
    """
    digests = [*location.get("files", {}).values(), *([location["blob"]] if "blob" in location else [])]
    for digest in digests:
        try:
            if not store.blobs.has(digest):
                return f"blob {digest}"
        except WrongUse:
            return f"blob {digest}"
    if "delta_version" in location:
        return store.tables.missing(location)
    return ""
