"""The key of a step: equal keys mean that doing it again would give the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from trimtab.core.declare import Declaration
from trimtab.core.digest import digest, digest_bytes
from trimtab.core.nouns import Data
from trimtab.pipeline.manifest import Manifest, checks_data, step_spec

Change = tuple[str, Literal["new", "changed", "gone"]]
_SHOWN = 4


def key_fields(
    step: str,
    declaration: Declaration,
    manifest: Manifest,
    *,
    inputs: Mapping[str, str],
    references: Mapping[str, str],
    params: Data,
    runtime: Data,
    extra: Data,
    judged: bool,
) -> Data:
    """Return the fields of a step's key, as they are recorded with its run.

    Args:
        step: ``op:asset``.
        declaration: the asset's declaration.
        manifest: where its code digests stand.
        inputs: parameter name -> digest of the version that it gets.
        references: reference -> digest of the version behind it, or an empty string.
        params: the params, overrides included.
        runtime: the declared runtime: ``{"lock", "python"}``.
        extra: the kind's fingerprint.
        judged: the step judges by the declaration's checks.
    """
    options: Data = {"kind": declaration.kind, **step_spec(declaration)}
    if declaration.frames:
        options["frames"] = {name: declaration.frames.get(name, "") for name in declaration.inputs}
    return {
        "step": step,
        "code": manifest.code[declaration.name],
        "spec": options,
        "checks": checks_by_name(declaration) if judged else {},
        "inputs": dict(inputs),
        "references": dict(references),
        "params": params,
        "runtime": runtime,
        "seed": seed_of(declaration),
        "extra": extra,
    }


def step_key(
    step: str,
    declaration: Declaration,
    manifest: Manifest,
    *,
    inputs: Mapping[str, str],
    references: Mapping[str, str],
    params: Data,
    runtime: str,
    extra: Data,
    judged: bool,
) -> str:
    """Return the key of a step: the digest of what ``key_fields`` lists.

    Each part enters as a line of its own, and no name, reference or digest has a line break in it. What only
    the manifest decides enters as digests that were computed when it was made, which keeps a plan of a
    thousand steps within its budget; ``runtime`` is the digest of the runtime fields.
    """
    lines = [
        step,
        manifest.steps[declaration.name],
        manifest.checks[declaration.name] if judged else "",
        digest(params) if params else "",
        runtime,
        str(seed_of(declaration)),
        digest(extra) if extra else "",
        *(f"{name}={inputs[name]}" for name in sorted(inputs)),
        "references",
        *(f"{name}={references[name]}" for name in sorted(references)),
    ]
    return digest_bytes("\n".join(lines).encode())


def checks_by_name(declaration: Declaration) -> Data:
    """Return the checks of an asset as the fields of a key have them."""
    return {check["name"]: check for check in checks_data(declaration)}


def seed_of(declaration: Declaration) -> int:
    """Return the seed of an asset's steps: what its declaration says, else 0."""
    return int(declaration.spec.get("seed") or 0)


def changes(old: Data, new: Data) -> list[Change]:
    """Return which fields of a key differ, as dotted names, and how."""
    before, after = dict(_flat(old)), dict(_flat(new))
    found: list[Change] = []
    for name in [*after, *(name for name in before if name not in after)]:
        if name not in before:
            found.append((name, "new"))
        elif name not in after:
            found.append((name, "gone"))
        elif before[name] != after[name] or type(before[name]) is not type(after[name]):
            found.append((name, "changed"))
    return found


def diff_fields(old: Data, new: Data) -> list[str]:
    """Return which fields of a key differ, such as ``code.flights.clean`` and ``inputs.weather``."""
    return [name for name, _ in changes(old, new)]


def in_words(found: list[Change]) -> str:
    """Return what changed as text for a person; long lists are counted, ``changed`` has all of it."""
    words = [_word(name, how) for name, how in found[:_SHOWN]]
    if len(found) > _SHOWN:
        words.append(f"and {len(found) - _SHOWN} more")
    return "; ".join(words)


_NAMES = {
    "code": "code of ",
    "inputs": "input ",
    "params": "param ",
    "runtime": "runtime ",
    "spec": "option ",
}


def _word(name: str, how: str) -> str:
    section, _, rest = name.partition(".")
    how = {"new": "is new", "gone": "is gone"}.get(how, "changed")
    if section == "extra":
        return f"{rest.replace('files.', 'file ', 1) if rest.startswith('files.') else rest} {how}"
    if section in ("checks", "references"):
        return f"{section.removesuffix('s')} {rest} {how}"
    return f"{_NAMES.get(section, section)}{rest} {how}"


def _flat(fields: Data) -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value; checks and code are told whole, other mappings by their entries."""
    for section, value in fields.items():
        if isinstance(value, Mapping):
            deep = section in ("extra", "spec")
            for name, item in value.items():
                if deep and isinstance(item, Mapping):
                    yield from ((f"{section}.{name}.{key}", inner) for key, inner in item.items())
                else:
                    yield f"{section}.{name}", item
        else:
            yield section, value
