"""The line that the house holds: tail limits, no cycles, no hidden imports, light front door."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trimtab

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "trimtab"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_METHODS, MAX_NAMES = 600, 60, 25, 25
HEAVY = {
    "polars", "duckdb", "deltalake", "pyarrow", "numpy", "pandas", "sklearn", "skops", "scipy",
    "granian", "litestar", "jinja2", "rich", "yaml",
}  # fmt: skip


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, list[str]]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, []
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, [alias.name for alias in node.names]


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements that run on import; a TYPE_CHECKING block does not."""
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        stack.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_tail_limits(path: Path) -> None:
    """No file, function or class grows past the line."""
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE, f"{path.name} is too long: give the room a better shape"
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            body = node.body[0]
            docstring = 0
            if isinstance(body, ast.Expr) and isinstance(body.value, ast.Constant):
                docstring = (body.end_lineno or 0) - body.lineno + 1
            length = (node.end_lineno or 0) - first + 1 - docstring
            assert length <= MAX_FUNCTION, f"{path.name}:{node.lineno} {node.name} has {length} lines"
        if isinstance(node, ast.ClassDef):
            public = [
                item
                for item in node.body
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_")
            ]
            assert len(public) <= MAX_METHODS, f"{path.name}:{node.lineno} {node.name} is too fat"


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_no_hidden_first_party_imports(path: Path) -> None:
    """First-party imports stand at the top of the file, where everybody sees them."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for name, _ in _imports(iter(ast.walk(node))):
                assert name.partition(".")[0] != "trimtab", f"{path}:{node.lineno} hides an import of {name}"


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_heavy_packages_come_through_one_door(path: Path) -> None:
    """No module imports a heavy package when it is imported itself."""
    for name, _ in _imports(_top_level(_tree(path))):
        assert name.partition(".")[0] not in HEAVY, f"{path}: import {name} through core.optional.need"


def test_no_import_cycles() -> None:
    """The modules of the house form no cycle."""
    known = {_module(path) for path in FILES}
    graph: dict[str, set[str]] = {}
    for path in FILES:
        edges: set[str] = set()
        for name, members in _imports(_top_level(_tree(path))):
            inner = {f"{name}.{member}" for member in members} & known
            edges |= inner or ({name} & known)
        graph[_module(path)] = edges - {_module(path)}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for neighbour in sorted(graph[module]):
            visit(neighbour, (*path, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_front_door_lists_the_public_names() -> None:
    """The front door lists exactly its public names, and not too many."""
    submodules = {path.stem for path in SOURCE.glob("*.py")} | {path.name for path in SOURCE.iterdir()}
    public = {name for name in vars(trimtab) if not name.startswith("_") and name not in submodules - {"check"}}
    assert public == set(trimtab.__all__)
    assert len(public) <= MAX_NAMES
    assert trimtab.__all__ == sorted(trimtab.__all__)


def test_import_is_light() -> None:
    """`import trimtab` and the command line's help bring in no heavy package."""
    code = (
        "import sys, trimtab, trimtab.cli\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *sorted(HEAVY - {"rich"})],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
    )  # fmt: skip
    assert answer.stdout.strip() == "[]"


def test_control_plane_is_light() -> None:
    """The long-lived processes bring in no data engine and no model library."""
    modules = ["trimtab.api.__main__", "trimtab.serve.router", "trimtab.serve.supervisor"]
    code = (
        "import sys, importlib\n"
        f"[importlib.import_module(name) for name in {modules!r}]\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    )
    banned = ["polars", "duckdb", "deltalake", "pyarrow", "numpy", "pandas", "sklearn", "skops", "scipy"]
    answer = subprocess.run(
        [sys.executable, "-c", code, *banned], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert answer.stdout.strip() == "[]"


def test_every_module_and_public_function_is_documented() -> None:
    """Everything public has a docstring."""
    bare: list[str] = []
    for path in FILES:
        tree = _tree(path)
        if not ast.get_docstring(tree):
            bare.append(_module(path))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            stub = any(ast.unparse(one) == "overload" for one in node.decorator_list)
            if not stub and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{_module(path)}.{node.name}")
    assert not bare


def test_tests_mirror_the_source() -> None:
    """Each test file of a room tests a module of that room."""
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        room = path.parent.name
        if room in rooms:
            module = path.stem.removeprefix("test_")
            assert (SOURCE / room / f"{module}.py").exists() or (SOURCE / room / module).is_dir(), path
