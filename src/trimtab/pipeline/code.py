"""Digests of a step's code and of the first-party code that it calls, without running any of it.

A *unit* is a name at the top level of a module together with every statement there that binds or changes it.
A step's code is its own unit and, transitively, each unit that it names: functions, classes, constants, also
through imports, re-exports and ``from x import *``. Units are compared as normalised syntax trees, so
comments, formatting and docstrings do not count, and neither do Trimtab's own decorators (their options are
part of the declaration).

A bare use of a first-party module (``getattr(helpers, name)``, ``run(helpers)``) counts the whole module, and
statements that bind nothing (``warnings.simplefilter(...)``) count for each unit of their module.

What is not seen: names made at run time (``globals()[name]``, ``importlib.import_module(text)``), code
outside the project folder (the runtime's lock stands for it), files that the code reads by path, module
variables that another function assigns through ``global``, and imports that only have side effects.
"""

from __future__ import annotations

import ast
import hashlib
import symtable
from collections.abc import Iterator, Mapping
from pathlib import Path

from trimtab.core.errors import ProjectError
from trimtab.pipeline.files import module_of

_LOOSE = "<module>"
Uses = set[tuple[str, tuple[str, ...]]]


class Imported:
    """What an import binds a name to: a module, or something in a module."""

    def __init__(self, module: str, attribute: str = "") -> None:
        self.module = module
        self.attribute = attribute

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


class _Module:
    """The units and imports of one first-party module."""

    def __init__(self, name: str, path: Path, *, is_package: bool) -> None:
        self.name = name
        self._package = name if is_package else name.rpartition(".")[0]
        self.units: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, Imported] = {}
        self.stars: list[str] = []
        self._digests: dict[str, tuple[str, Uses, dict[str, Imported]]] = {}
        try:
            tree = ast.parse(path.read_bytes(), str(path))
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            raise ProjectError(f"this is not Python: {error}", where=f"{path}:{line}") from error
        _strip_docstrings(tree)
        for statement in tree.body:
            if not _is_main_guard(statement):
                self._collect_imports(statement)
        for statement in tree.body:
            if not _is_main_guard(statement) and not isinstance(statement, ast.Import | ast.ImportFrom):
                self._collect_units(statement)

    def _collect_imports(self, statement: ast.stmt) -> None:
        for node in _outside_functions(statement):
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                self.stars.append(self.absolute(node))
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.imports.update(self.bindings(node))

    def absolute(self, node: ast.ImportFrom) -> str:
        """Return the absolute name of the module that an import takes names from."""
        if not node.level:
            return node.module or ""
        parts = self._package.split(".")
        base = ".".join(parts[: len(parts) - node.level + 1])
        return f"{base}.{node.module}" if node.module else base

    def bindings(self, node: ast.Import | ast.ImportFrom) -> dict[str, Imported]:
        """Return what an import statement binds: name -> where it comes from."""
        if isinstance(node, ast.ImportFrom):
            base = self.absolute(node)
            return {alias.asname or alias.name: Imported(base, alias.name) for alias in node.names}
        return {
            alias.asname or alias.name.partition(".")[0]: Imported(
                alias.name if alias.asname else alias.name.partition(".")[0]
            )
            for alias in node.names
        }

    def _collect_units(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            statement.decorator_list = [item for item in statement.decorator_list if not self._is_trimtab(item)]
        elif isinstance(statement, ast.Expr) and self._is_trimtab(statement.value):
            return
        table = symtable.symtable(ast.unparse(statement), "<unit>", "exec")
        names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()}
        names |= {name for name in _mutated(statement) if name in self.units}
        if not names and not isinstance(statement, ast.Pass) and not _is_constant(statement):
            names = {_LOOSE}
        for name in names:
            self.units.setdefault(name, []).append(statement)

    def _is_trimtab(self, node: ast.expr) -> bool:
        while isinstance(node, ast.Call | ast.Attribute):
            node = node.func if isinstance(node, ast.Call) else node.value
        found = self.imports.get(node.id) if isinstance(node, ast.Name) else None
        return found is not None and found.module.partition(".")[0] == "trimtab"

    def unit(self, name: str) -> tuple[str, Uses, dict[str, Imported]]:
        """Return a unit's digest, what it uses of its module's names, and its imports of its own."""
        if name not in self._digests:
            text = "\n".join(ast.unparse(statement) for statement in self.units[name])
            tree = ast.parse(text)
            local: dict[str, Imported] = {}
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    local.update(self.bindings(node))
            wanted = _global_names(symtable.symtable(text, "<unit>", "exec")) | set(local)
            uses = {use for use in _uses(tree) if use[0] in wanted}
            known = {**self.imports, **local}
            aliases = sorted(f"{root}={known[root]}" for root, _ in uses if root in known)
            content = "\n".join([text, *dict.fromkeys(aliases)])
            digest = "sha256:" + hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
            self._digests[name] = (digest, uses, local)
        return self._digests[name]


class CodeIndex:
    """Finds the code that steps stand on among a project's own files.

    Args:
        root: the folder that the files lie in.
        files: paths relative to ``root`` (see ``files.own_files``).
    """

    def __init__(self, root: Path, files: Mapping[str, str] | list[str]) -> None:
        self._root = root
        self._paths = {module_of(path): path for path in files if path.endswith(".py")}
        parents = {tuple(name.split(".")[:end]) for name in self._paths for end in range(1, name.count(".") + 1)}
        self._names = set(self._paths) | {".".join(parent) for parent in parents}
        self._modules: dict[str, _Module] = {}

    def parts(self, module: str, qualname: str) -> dict[str, str]:
        """Return what a step's code consists of: ``module.name`` of each unit -> its digest.

        A function of a module that is not the project's own has the single part ``module.name`` with an empty
        digest: the runtime stands for it.

        Raises:
            ProjectError: a module among them cannot be parsed.
        """
        start = qualname.partition(".")[0]
        if module not in self._paths:
            return {f"{module}.{start}": ""}
        found: dict[str, str] = {}
        waiting = [(module, start)]
        while waiting:
            home, name = waiting.pop()
            key = f"{home}.{name}"
            if key in found or name not in self._module(home).units:
                continue
            digest, uses, local = self._module(home).unit(name)
            found[key] = digest
            waiting.append((home, _LOOSE))
            for root, chain in uses:
                waiting.extend(self._targets(home, root, chain, local))
        return found

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            path = self._paths[name]
            is_package = path.endswith("__init__.py")
            self._modules[name] = _Module(name, self._root / path, is_package=is_package)
        return self._modules[name]

    def _targets(
        self, home: str, root: str, chain: tuple[str, ...], local: Mapping[str, Imported]
    ) -> Iterator[tuple[str, str]]:
        """Yield the units that a use of ``root.chain`` in module ``home`` stands for."""
        module = self._module(home)
        if root in module.units:
            yield home, root
        imported = local.get(root) or module.imports.get(root)
        if imported is not None:
            yield from self._imported(imported, chain, frozenset())
        elif root not in module.units:
            for star in module.stars:
                if star in self._paths:
                    yield from self._named(star, root, chain, frozenset({home}))

    def _imported(self, imported: Imported, chain: tuple[str, ...], seen: frozenset[str]) -> Iterator[tuple[str, str]]:
        module, path = imported.module, chain
        if imported.attribute:
            path = (imported.attribute, *chain)
        while path and f"{module}.{path[0]}" in self._names:
            if module in self._paths and path[0] in self._module(module).units:
                break
            module, path = f"{module}.{path[0]}", path[1:]
        if module not in self._paths:
            return
        if path:
            yield from self._named(module, path[0], path[1:], seen)
        else:
            yield from ((module, name) for name in self._module(module).units)
            for name, other in self._module(module).imports.items():
                if f"{module}.{name}" not in seen and other.module != module:
                    yield from self._imported(other, (), seen | {f"{module}.{name}"})

    def _named(self, home: str, name: str, chain: tuple[str, ...], seen: frozenset[str]) -> Iterator[tuple[str, str]]:
        """Yield the units behind ``name`` of module ``home``, through re-exports."""
        key = f"{home}.{name}"
        if key in seen:
            return
        module = self._module(home)
        if name in module.units:
            yield home, name
        if name in module.imports:
            yield from self._imported(module.imports[name], chain, seen | {key})
        elif name not in module.units:
            for star in module.stars:
                if star in self._paths:
                    yield from self._named(star, name, chain, seen | {key})


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) and node.body:
            first = node.body[0]
            if _is_constant(first) and isinstance(first.value.value, str):  # type: ignore[attr-defined]
                node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]


def _is_main_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) in (
        "__name__ == '__main__'",
        "'__main__' == __name__",
    )


def _is_constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _outside_functions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the nodes of a statement that run when its module is imported."""
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def _mutated(statement: ast.stmt) -> set[str]:
    """Return the names whose objects a statement changes: ``X[k] = v``, ``X.a = v``, ``X.append(v)``."""
    found: set[str] = set()
    for node in _outside_functions(statement):
        target: ast.AST | None = None
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            target = node
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            target = node.value.func
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name) and not (isinstance(node, ast.Expr) and node.value is target):
            found.add(target.id)
    return found


def _global_names(table: symtable.SymbolTable, *, top: bool = True) -> set[str]:
    """Return the names that a unit takes from its module, whatever scope it uses them in."""
    found = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if (top and symbol.is_referenced()) or (not top and symbol.is_global())
    }
    for child in table.get_children():
        found |= _global_names(child, top=False)
    return found


def _uses(tree: ast.AST) -> Uses:
    """Return every use of a name with the attributes that are taken of it: ``a.b.c`` -> (a, (b, c))."""
    found: Uses = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        chain: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            found.add((inner.id, tuple(reversed(chain))))
        elif inner is not node:
            stack.append(inner)
        else:
            stack.extend(ast.iter_child_nodes(node))
    return found
