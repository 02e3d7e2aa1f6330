"""The manifest: all that a project declares, as data, and the snapshot of the code that it was read from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from trimtab.core.declare import AutomationDeclaration, Declaration, EndpointDeclaration, as_data
from trimtab.core.digest import digest
from trimtab.core.errors import Conflict, NotFound, ProjectError
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.pipeline.describe import Answer, Request
from trimtab.pipeline.files import FileDigests, own_files
from trimtab.pipeline.problems import Problems
from trimtab.pipeline.project import Project
from trimtab.pipeline.spawn import PACKAGE, command, environment
from trimtab.store.store import Store

_FORMAT = 1
_DECLARING = ("core", "check")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a project declares.

    Attributes:
        code: asset -> ``module.name`` of each unit of its code -> digest.
        steps: asset -> digest of what its declaration and code add to the key of its steps.
        checks: asset -> digest of its checks, for the steps that judge by them.
        snapshot: path of each own file, relative to the project folder -> digest of the blob that keeps it.
        digest: of everything above; also names the blob that keeps this manifest.
    """

    project: str
    declarations: list[Declaration]
    endpoints: list[EndpointDeclaration]
    automations: list[AutomationDeclaration]
    code: dict[str, dict[str, str]]
    steps: dict[str, str]
    checks: dict[str, str]
    snapshot: dict[str, str]
    digest: str = ""

    @property
    def snapshot_digest(self) -> str:
        """The digest of the snapshot as a whole."""
        return digest(self.snapshot)


def read_manifest(project: Project, store: Store, *, timeout_s: float = 120.0) -> Manifest:
    """Return what the project declares; its modules are imported by a project worker, never here.

    The answer is kept by the digests of the project's own files, so modules must not declare other things
    because of anything else (the environment, the time, data files).

    Args:
        project: the project.
        store: keeps the snapshot, the manifest and the digests of files.
        timeout_s: how long importing the modules may take.

    Raises:
        ProjectError: a module does not exist or cannot be imported, or a declaration is wrong.
        Conflict: the files kept changing while they were read.
    """
    digests = FileDigests(store.home.cache / "files.msgpack")
    for _ in range(5):
        files = _own_digests(project, digests)
        key = digest([_FORMAT, files, list(project.modules), list(sys.version_info[:2]), _declaring_mark()])
        cached = store.home.cache / f"manifest-{key.removeprefix('sha256:')}"
        if cached.is_file():
            found = cached.read_text()
            if store.blobs.has(found):
                digests.save()
                return load_manifest(store, found)
        for path, known in files.items():
            if not store.blobs.has(known):
                store.blobs.put_file(project.root / path)
        answer = _describe(project, list(files), timeout_s)
        # Only what did not change meanwhile is both what was imported and what was kept.
        if _own_digests(project, digests) == files:
            _check(answer)
            made = _keep(project, answer, files, store)
            _replace(cached, made.digest)
            digests.save()
            return made
    raise Conflict("the project's files keep changing while they are read", fix="try again when they are saved")


def load_manifest(store: Store, wanted: str) -> Manifest:
    """Return the manifest that a plan was made from.

    Raises:
        NotFound: the store does not have it.
    """
    if not store.blobs.has(wanted):
        raise NotFound(f"the store has no manifest {wanted}", fix="make the plan again")
    found = msgspec.msgpack.decode(store.blobs.get(wanted), type=Manifest)
    return msgspec.structs.replace(found, digest=wanted)


def snapshot_folder(store: Store, manifest: Manifest) -> Path:
    """Return the folder that holds the manifest's own files, laid out for import; made when it is missing."""
    folder = store.home.snapshots / manifest.snapshot_digest.removeprefix("sha256:")
    if folder.is_dir():
        return folder
    temporary = folder.with_name(f"{folder.name[:16]}.{new_hex()}")
    for path, known in manifest.snapshot.items():
        target = temporary / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.blobs.get(known))
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        temporary.rename(folder)
    except OSError:
        # Another process made the same folder first; theirs is as good.
        if not folder.is_dir():
            raise
    return folder


def step_digest(declaration: Declaration, code: dict[str, str]) -> str:
    """Return the digest of what a declaration and its code, but not its checks, add to a step's key."""
    frames = [[name, declaration.frames.get(name, "")] for name in declaration.inputs]
    return digest([declaration.kind, frames, step_spec(declaration), code])


def checks_data(declaration: Declaration) -> list[Data]:
    """Return the checks of a declaration as plain data."""
    return [as_data(check) for check in declaration.checks]


def step_spec(declaration: Declaration) -> Data:
    """Return the options that change what a step makes: all but who owns it and how fresh it must be."""
    return {name: value for name, value in declaration.spec.items() if name not in ("owner", "fresh", "seed")}


def _own_digests(project: Project, digests: FileDigests) -> dict[str, str]:
    return {path: digests.digest(project.root / path) for path in own_files(project.root, store=project.store)}


def _declaring_mark() -> list[list[object]]:
    """Return a mark of the code that makes declarations, so that another release reads them anew."""
    files = [path for room in _DECLARING for path in sorted((PACKAGE / room).glob("*.py"))]
    return [[path.name, stat.st_size, stat.st_mtime_ns] for path in files for stat in [path.stat()]]


def _describe(project: Project, files: list[str], timeout_s: float) -> Answer:
    modules = {name: project.where("modules", index) for index, name in enumerate(project.modules)}
    request = Request(root=str(project.root), modules=modules, files=files)
    names = ", ".join(project.modules)
    # Files, not pipes: a process that the modules left behind would hold a pipe open, and this one with it.
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered, tempfile.TemporaryFile() as said:
        asked.write(msgspec.json.encode(request))
        asked.seek(0)
        child = subprocess.Popen(
            command("trimtab.pipeline.describe"),
            stdin=asked,
            stdout=answered,
            stderr=said,
            cwd=project.root,
            env=environment(),
            start_new_session=True,
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ProjectError(
                f"importing {names} took more than {timeout_s:g} s",
                where=project.where("modules"),
                fix="do long work inside the step functions, not when their module is imported",
            ) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        answer, words = _read(answered), _read(said)
    try:
        if code == 0:
            return msgspec.msgpack.decode(answer, type=Answer)
    except msgspec.DecodeError:
        pass
    raise ProjectError(
        f"importing {names} ended its process ({_ending(code)}): {_tail(words)}",
        where=project.where("modules"),
        fix=f"try `python -c 'import {project.modules[0]}'`",
    )


def _read(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _tail(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return " | ".join(lines[-3:]) or "it said nothing"


def _check(answer: Answer) -> None:
    problems = Problems()
    for told in answer.problems:
        problems.add(told["message"], where=told["where"], fix=told["fix"])
    problems.check()


def _keep(project: Project, answer: Answer, files: dict[str, str], store: Store) -> Manifest:
    made = Manifest(
        project=project.name,
        declarations=answer.declarations,
        endpoints=answer.endpoints,
        automations=answer.automations,
        code=answer.code,
        steps={item.name: step_digest(item, answer.code[item.name]) for item in answer.declarations},
        checks={item.name: digest(checks_data(item)) for item in answer.declarations},
        snapshot=files,
    )
    return msgspec.structs.replace(made, digest=store.blobs.put(msgspec.msgpack.encode(made)))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name[:24]}.{new_hex()}")
    temporary.write_text(text)
    temporary.replace(path)
