"""The project worker: imports a project's modules and tells what they declare.

It runs as ``python -m trimtab.pipeline.describe`` in a process of its own, so that nothing else ever imports
user code only to know what a project holds. A request (JSON) comes in on standard input, the answer
(MessagePack) goes out on what was standard output; what the modules print goes to standard error.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

import msgspec

from trimtab.core.declare import REGISTRY, AutomationDeclaration, Declaration, EndpointDeclaration
from trimtab.core.errors import ProjectError, TrimtabError, closest
from trimtab.pipeline.code import CodeIndex
from trimtab.pipeline.files import module_of


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker is asked.

    Attributes:
        modules: dotted module name -> where the project file names it.
        files: the project's own files, relative to ``root``.
    """

    root: str
    modules: dict[str, str]
    files: list[str]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the modules declare, or what is wrong with them.

    Attributes:
        problems: ``{message, where, fix}`` of each thing that is wrong; then the rest is empty.
        code: asset -> ``module.name`` of each unit of its code -> digest.
    """

    problems: list[dict[str, str]] = []
    declarations: list[Declaration] = []
    endpoints: list[EndpointDeclaration] = []
    automations: list[AutomationDeclaration] = []
    code: dict[str, dict[str, str]] = {}


def describe(request: Request) -> Answer:
    """Import the modules and return what they declare, with files relative to the project folder."""
    root = Path(request.root)
    problems: list[ProjectError] = []
    for module, where in request.modules.items():
        error = _import(module)
        if error is not None:
            problems.append(_problem(error, module, where, root, request.files))
    found = [msgspec.structs.replace(declared, file=_relative(declared.file, root)) for declared in REGISTRY.declared]
    assets = [item for item in found if isinstance(item, Declaration)]
    problems += [_nested(item) for item in assets if "<locals>" in item.qualname]
    code: dict[str, dict[str, str]] = {}
    if not problems:
        index = CodeIndex(root, request.files)
        try:
            code = {item.name: index.parts(item.module, item.qualname) for item in assets}
        except ProjectError as error:
            problems.append(ProjectError(error.message, where=_relative(error.where, root), fix=error.fix))
    if problems:
        return Answer(problems=[error.as_data() for error in problems])
    return Answer(
        declarations=assets,
        endpoints=[item for item in found if isinstance(item, EndpointDeclaration)],
        automations=[item for item in found if isinstance(item, AutomationDeclaration)],
        code=code,
    )


def _import(module: str) -> BaseException | None:
    try:
        importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code may raise anything, SystemExit included; all of it is told
        return error
    return None


def _nested(item: Declaration) -> ProjectError:
    return ProjectError(
        f"{item.name!r} is declared inside a function, where no worker can find it",
        where=item.where,
        fix="declare it at the top level of its module",
    )


def _problem(error: BaseException, module: str, where: str, root: Path, files: list[str]) -> ProjectError:
    place = user_place(error, root)
    if isinstance(error, TrimtabError):
        told = _relative(error.where, root)
        return ProjectError(error.message, where=told or place or where, fix=error.fix)
    if isinstance(error, SyntaxError) and error.filename:
        return ProjectError(
            f"this is not Python: {error.msg}",
            where=f"{_relative(error.filename, root)}:{error.lineno or 1}",
            fix="mend the syntax",
        )
    if isinstance(error, ModuleNotFoundError) and not place and _is_part(error.name or "", module):
        known = [module_of(path) for path in files if path.endswith(".py")]
        return ProjectError(
            f"module {module!r} does not exist in the project folder{closest(module, known)}",
            where=where,
            fix=f"make {module.replace('.', '/')}.py, or correct the name",
        )
    fix = "install it into this runtime" if isinstance(error, ModuleNotFoundError) else "mend this line"
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ProjectError(f"importing {module} failed: {text}", where=place or where, fix=fix)


def _is_part(missing: str, module: str) -> bool:
    return module == missing or module.startswith(f"{missing}.")


def user_place(error: BaseException, root: Path) -> str:
    """Return ``file:line`` of an error's innermost frame below ``root``, or an empty string."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        told = _relative(frame.filename, root)
        if told != frame.filename:
            return f"{told}:{frame.lineno or 1}"
    return ""


def _relative(place: str, root: Path) -> str:
    return place.removeprefix(f"{root}{os.sep}")


def main() -> None:
    """Answer one request and end."""
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    os.chdir(request.root)
    sys.path.insert(0, request.root)
    answer = msgspec.msgpack.encode(describe(request))
    sys.stdout.flush()
    with os.fdopen(answer_fd, "wb") as out:
        out.write(answer)
    sys.stderr.flush()
    # Threads and exit hooks of user modules must not hold the answer up.
    os._exit(0)


if __name__ == "__main__":
    main()
