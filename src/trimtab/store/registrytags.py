"""Tags of registered models and their versions, each told to the webhooks that want to hear of it."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.core.errors import BadInput
from trimtab.store import webhooks
from trimtab.store.ledger import Tx
from trimtab.store.registry import PROMPT, TEXT, get_version, is_prompt, need_registered
from trimtab.store.tracking import drop_tag, put_tags


def tag_registered(tx: Tx, name: str, tags: Mapping[str, str]) -> None:
    """Set tags of a registered model.

    Raises:
        NotFound: there is none.
    """
    ident = need_registered(tx, name)
    put_tags(tx, ident, tags)
    tx.note(ident, tags=sorted(tags))
    if is_prompt(tx, ident):
        for key, value in tags.items():
            webhooks.publish(tx, "prompt_tag.set", {"name": name, "key": key, "value": value})


def untag_registered(tx: Tx, name: str, key: str) -> None:
    """Remove a tag of a registered model, if it has it.

    Raises:
        NotFound: there is none.
    """
    ident = need_registered(tx, name)
    gone = drop_tag(tx, ident, key)
    tx.note(ident, untagged=key)
    if gone and is_prompt(tx, ident):
        webhooks.publish(tx, "prompt_tag.deleted", {"name": name, "key": key})


def tag_version(tx: Tx, name: str, number: int, tags: Mapping[str, str]) -> None:
    """Set tags of a version; the text of a prompt is its content and stays.

    Raises:
        NotFound: there is none.
        BadInput: the text of a prompt would change.
    """
    known = get_version(tx, name, number)
    if PROMPT in known.tags and tags.get(TEXT, known.tags.get(TEXT)) != known.tags.get(TEXT):
        raise BadInput(f"The text of {name}:{number} cannot be changed; register another version", where=TEXT)
    put_tags(tx, known.id, tags)
    tx.note(known.id, tags=sorted(tags))
    prompt = is_prompt(tx, need_registered(tx, name))
    for key, value in tags.items():
        told = {"name": name, "version": str(number), "key": key, "value": value}
        webhooks.publish(tx, "model_version_tag.set", told, prompt=prompt)


def untag_version(tx: Tx, name: str, number: int, key: str) -> None:
    """Remove a tag of a version, if it has it.

    Raises:
        NotFound: there is no such version.
    """
    known = get_version(tx, name, number)
    gone = drop_tag(tx, known.id, key)
    tx.note(known.id, untagged=key)
    if gone:
        told = {"name": name, "version": str(number), "key": key}
        webhooks.publish(tx, "model_version_tag.deleted", told, prompt=is_prompt(tx, need_registered(tx, name)))
