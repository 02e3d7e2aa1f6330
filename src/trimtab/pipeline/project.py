"""The project file ``trimtab.yaml``: what a project is called, where its modules are and what is live."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from trimtab.core.clock import as_utc, parse_time
from trimtab.core.declare import Rollout
from trimtab.core.errors import NotFound, ProjectError, WrongUse, closest
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.pipeline.problems import Problems
from trimtab.store.roots import checked_options

FILE = "trimtab.yaml"
_KEYS = ("project", "modules", "store", "ledger", "artifacts", "lock", "workers", "clock", "environments")
_ARTIFACTS = ("at", "options")
_ENVIRONMENT = ("endpoints", "automations", "approve")
_ENDPOINT = ("rollout", "sticky", "timeout", "threads")
_AUTOMATION = ("enabled",)
_CLOCK = ("simulated",)
Place = tuple[str | int, ...]


class Project(Struct, frozen=True, kw_only=True):
    """A project folder and what its file says.

    Attributes:
        root: the folder that holds the file; modules and globs count from here.
        modules: dotted names of the modules that declare assets, importable from ``root``.
        store: the folder of the store.
        ledger: the URL of the database that holds the ledger, or empty for a file of the store.
        artifacts: the URL or folder that holds blobs and tables, or empty for the store's own folder.
        options: what the object store behind ``artifacts`` needs, secrets as ``${VARIABLE}``.
        lock: the lock file of the runtime, or None when none is declared.
        workers: how many steps may run at once.
        clock: ``{"simulated": ISO time}``, or empty for real time.
        environments: environment name -> ``{"endpoints", "automations", "approve"}``.
        lines: where things stand in the file: a path such as ``environments.dev`` -> line.
    """

    root: Path
    file: Path
    name: str
    modules: tuple[str, ...]
    store: Path
    ledger: str = ""
    artifacts: str = ""
    options: dict[str, str] = field(default_factory=dict)
    lock: Path | None = None
    workers: int = 1
    clock: Data = field(default_factory=dict)
    environments: dict[str, Data] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, *path: str | int) -> str:
        """Return ``trimtab.yaml:LINE`` of the thing at ``path``, or of the nearest thing above it."""
        return _where(self.lines, path)

    def check_environment(self, name: str) -> None:
        """Check that the project has the environment ``name``; ``dev`` is always there.

        Raises:
            NotFound: it has not; the message names the closest.
        """
        known = sorted({"dev", *self.environments})
        if name not in known:
            raise NotFound(
                f"the project has no environment {name!r}{closest(name, known)}",
                where=self.where("environments"),
                fix=f"use one of {', '.join(known)}, or add it to environments in {FILE}",
            )

    def live(self, environment: str) -> Data:
        """Return what the file says about what is live in ``environment``."""
        return self.environments.get(environment, {})


def find_project(start: Path) -> Project:
    """Return the project that the folder ``start`` lies in.

    Raises:
        NotFound: neither ``start`` nor a folder above it has a project file.
        ProjectError: the file is wrong.
    """
    folder = start.resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE).is_file():
            return load_project(candidate / FILE)
    raise NotFound(f"there is no {FILE} in {folder} or above it", fix="run `trimtab init` to start a project")


def load_project(file: Path) -> Project:
    """Return the project that ``file`` describes.

    Raises:
        ProjectError: it is not YAML, has an unknown key, or a value of the wrong type.
    """
    data, lines = _parse(file)
    problems = Problems()
    reader = _Reader(lines, problems)
    reader.known(data, _KEYS, ())
    name = reader.text(data, "project", required="such as `project: flights`")
    modules = reader.modules(data)
    lock = reader.text(data, "lock")
    artifacts, options = reader.artifacts(data)
    root = file.parent
    if lock and not (root / lock).is_file():
        problems.add(f"the lock file {lock!r} does not exist", where=_where(lines, ("lock",)), fix="make it")
    project = Project(
        root=root,
        file=file,
        name=name,
        modules=modules,
        store=root / (reader.text(data, "store") or ".trimtab"),
        ledger=reader.text(data, "ledger"),
        artifacts=artifacts if "://" in artifacts or not artifacts else str(root / artifacts),
        options=options,
        lock=root / lock if lock else None,
        workers=reader.workers(data),
        clock=reader.clock(data),
        environments=reader.environments(data),
        lines=lines,
    )
    problems.check()
    return project


def _where(lines: dict[str, int], path: Place) -> str:
    for end in range(len(path), -1, -1):
        line = lines.get(_key(path[:end]))
        if line:
            return f"{FILE}:{line}"
    return FILE


def _key(path: Place) -> str:
    return ".".join(map(str, path))


def _parse(file: Path) -> tuple[Data, dict[str, int]]:
    yaml = need("yaml")
    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        if node is not None:
            _walk(yaml, node, (), lines, set())
        data = loader.construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ProjectError(
            f"this is not YAML: {error.problem or error}",
            where=f"{FILE}:{mark.line + 1}" if mark else FILE,
            fix="check the indentation, quotes and colons around this line",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ProjectError(f"this is not YAML: {error}", where=FILE, fix="write it as UTF-8 text") from error
    except RecursionError as error:
        raise ProjectError("this is nested too deeply", where=FILE, fix="a few levels are enough") from error
    if not isinstance(data, dict):
        raise ProjectError(f"{FILE} holds keys and values", where=f"{FILE}:1", fix="such as `project: flights`")
    return data, lines


def _shown(value: Any) -> str:
    """Return a value for a message; one that refers to itself, or is huge, is told in brief."""
    return reprlib.repr(value)


def _walk(yaml: Any, node: Any, path: Place, lines: dict[str, int], met: set[int]) -> None:
    if not isinstance(node, yaml.ScalarNode):
        if id(node) in met:
            where = f"{FILE}:{lines.get(_key(path), node.start_mark.line + 1)}"
            raise ProjectError("an alias (*name) repeats a part of the file", where=where, fix="write it out")
        met.add(id(node))
    lines.setdefault(_key(path), node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                where = f"{FILE}:{key.start_mark.line + 1}"
                raise ProjectError("a key is no plain word", where=where, fix="such as `project: flights`")
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ProjectError(
                    f"the key {key.value!r} stands twice, here and in line {seen[key.value]}",
                    where=f"{FILE}:{line}",
                    fix="keep one of them",
                )
            seen[key.value] = lines[_key(here)] = line
            _walk(yaml, value, here, lines, met)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(yaml, value, (*path, index), lines, met)


class _Reader:
    """Takes values out of the parsed file and notes what is wrong with them."""

    def __init__(self, lines: dict[str, int], problems: Problems) -> None:
        self.lines = lines
        self.problems = problems

    def wrong(self, message: str, path: Place, fix: str = "") -> None:
        self.problems.add(message, where=_where(self.lines, path), fix=fix)

    def known(self, data: Data, keys: Iterable[str], path: Place) -> None:
        """Note the keys of ``data`` that mean nothing, with the closest that would."""
        names = list(keys)
        for key in data:
            if key not in names:
                self.wrong(
                    f"unknown key {key!r}{closest(str(key), names)}",
                    (*path, str(key)),
                    f"known here: {', '.join(names)}",
                )

    def text(self, data: Data, key: str, *, required: str = "") -> str:
        value = data.get(key)
        if value is None:
            if required:
                self.wrong(f"{key} is missing", (), f"add it, {required}")
            return ""
        if not isinstance(value, str) or not value.strip():
            self.wrong(f"{key} is text, not {_shown(value)}", (key,), f"write {key}: some text")
            return ""
        return value

    def modules(self, data: Data) -> tuple[str, ...]:
        value = data.get("modules")
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names:
            self.wrong("modules lists the modules that declare assets", ("modules",), "such as `modules: [pipeline]`")
            return ()
        for index, name in enumerate(names):
            if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
                self.wrong(
                    f"{name!r} is not the dotted name of a module",
                    ("modules", index),
                    "write flights.tables for flights/tables.py",
                )
                return ()
        return tuple(names)

    def artifacts(self, data: Data) -> tuple[str, dict[str, str]]:
        """Return where blobs and tables lie, and what is needed there; no value of an option is ever told."""
        if not isinstance(data.get("artifacts"), dict):
            return self.text(data, "artifacts"), {}
        spec = data["artifacts"]
        self.known(spec, _ARTIFACTS, ("artifacts",))
        at = spec.get("at")
        if not isinstance(at, str) or not at.strip():
            self.wrong("artifacts.at is a URL or a folder", ("artifacts",), "such as `at: s3://bucket/prefix`")
            return "", {}
        options = {}
        for key, value in self.mapping(spec, "options", ("artifacts",)).items():
            if not isinstance(value, str | int | float):
                self.wrong(f"the option {key} is text, a number or true", ("artifacts", "options", str(key)))
            options[str(key)] = str(value).lower() if isinstance(value, bool) else str(value)
        try:
            return at, checked_options(options)
        except WrongUse as error:
            self.wrong(error.message, ("artifacts", "options"), error.fix)
            return at, {}

    def workers(self, data: Data) -> int:
        value = data.get("workers")
        if value is None:
            return os.cpu_count() or 1
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
            self.wrong(f"workers is a whole number from 1 to 1024, not {_shown(value)}", ("workers",))
            return 1
        return value

    def mapping(self, data: Data, key: str, path: Place) -> Data:
        value = data.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(f"{key} holds keys and values, not {_shown(value)}", (*path, key))
            return {}
        return value

    def clock(self, data: Data) -> Data:
        clock = self.mapping(data, "clock", ())
        self.known(clock, _CLOCK, ("clock",))
        start = clock.get("simulated")
        if start is None:
            return {}
        try:
            return {"simulated": _moment(start).isoformat()}
        except WrongUse as error:
            self.wrong(f"clock.simulated: {error.message}", ("clock", "simulated"), error.fix)
            return {}

    def environments(self, data: Data) -> dict[str, Data]:
        found: dict[str, Data] = {}
        environments = self.mapping(data, "environments", ())
        for name in environments:
            path: Place = ("environments", str(name))
            spec = self.mapping(environments, name, ("environments",))
            self.known(spec, _ENVIRONMENT, path)
            self.items(spec, "endpoints", _ENDPOINT, path)
            self.items(spec, "automations", _AUTOMATION, path)
            found[str(name)] = spec
        return found

    def items(self, spec: Data, key: str, fields: tuple[str, ...], path: Place) -> None:
        """Check the named things below ``key``, such as the endpoints of an environment."""
        items = self.mapping(spec, key, path)
        for name in items:
            here = (*path, key, str(name))
            item = self.mapping(items, name, (*path, key))
            self.known(item, fields, here)
            if not isinstance(item.get("enabled", True), bool):
                self.wrong("enabled is true or false", (*here, "enabled"))
            rollout = self.mapping(item, "rollout", here)
            self.known(rollout, Rollout.__struct_fields__, (*here, "rollout"))


def _moment(value: Any) -> datetime:
    # YAML itself makes dates and times of what looks like one.
    if isinstance(value, datetime):
        return as_utc(value)
    if isinstance(value, date):
        return as_utc(datetime(value.year, value.month, value.day))  # noqa: DTZ001
    return parse_time(str(value))
