"""The structure rules of the three packages, held by `make check`: sizes, cycles, private modules, processes, names.

`python tests/tools/structure.py` prints one line for each violation, and ends with 1 where there is one. The files are
read as text and never imported. Layers between folders are import-linter's, in pyproject.toml.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("worker", "loadgen", "capacity")
MOST_LINES = 350
MOST_MODULES = 10
#: Each module of these folders is public: generated stubs, and tables and readers that every package shares.
PUBLIC_FOLDERS = frozenset({"worker.wire"})
#: Modules beside a package's folders that other packages may import: what they catch.
PUBLIC_MODULES = frozenset({"capacity.errors"})
#: Who may start a process: experiments; the worker's own fleet, and its probe of devices in a process apart.
PROCESS_STARTERS = ("capacity.experiments", "worker.fleet", "worker.accelerators")
PROCESS_MODULES = frozenset({"subprocess", "multiprocessing", "pty"})
PROCESS_CALLS = frozenset({"fork", "forkpty", "posix_spawn", "posix_spawnp", "popen", "system"})
#: The one module that may keep state between runs: Locust's listeners have nowhere else to look.
STATEFUL = frozenset({"loadgen._locust"})
#: Participles name neither what a variable holds nor of which type it is.
PARTICIPLES = frozenset(
    ["found", "said", "told", "asked", "kept", "known", "given", "seen", "heard", "wanted", "made", "taken", "played"]
)


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its folder's dotted name, and what it holds."""

    name: str
    folder: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def is_init(self) -> bool:
        return self.path.name == "__init__.py"


def read_modules(root: Path) -> dict[str, Module]:
    """All modules of the packages below `root` by dotted name, generated stubs left out."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if path.stem.endswith(("_pb2", "_pb2_grpc")):
                continue
            text = path.read_text(encoding="utf-8")
            folder = ".".join(path.parent.relative_to(root).parts)
            name = folder if path.name == "__init__.py" else f"{folder}.{path.stem}"
            modules[name] = Module(name, folder, path, ast.parse(text), text.count("\n"))
    return modules


def imports_of(module: Module, modules: Mapping[str, Module]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of our own, wherever it stands: functions and TYPE_CHECKING count too.

    `from folder import name` is an import of the module `folder.name` where there is one, else of `folder`.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in modules:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if submodule in modules:
                    yield node.lineno, submodule
                elif node.module in modules:
                    yield node.lineno, node.module


def cycles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Every strongly connected component of more than one node (Tarjan, 1972), sorted."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = lowest[node] = len(index)
        stack.append(node)
        for successor in graph[node]:
            if successor not in index:
                visit(successor)
                lowest[node] = min(lowest[node], lowest[successor])
            elif successor in stack:
                lowest[node] = min(lowest[node], index[successor])
        if lowest[node] == index[node]:
            start = stack.index(node)
            component = sorted(stack[start:])
            del stack[start:]
            if len(component) > 1:
                components.append(component)

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(components)


def violations(root: Path) -> list[str]:
    """One line for each violation of a structure rule below `root`."""
    modules = read_modules(root)
    lines = [*_sizes(modules), *_cycles(modules), *_private(modules), *_processes(modules)]
    for module in modules.values():
        lines += [*_exports(module), *_state(module), *_names(module)]
    return lines


def _where(module: Module, line: int) -> str:
    return f"{module.name.replace('.', '/')}{'/__init__' if module.is_init else ''}.py:{line}"


def _sizes(modules: Mapping[str, Module]) -> Iterator[str]:
    folders: dict[str, int] = {}
    for module in modules.values():
        if module.lines > MOST_LINES:
            yield f"{_where(module, module.lines)}: {module.lines} lines; a module has at most {MOST_LINES}"
        if not module.is_init:
            folders[module.folder] = folders.get(module.folder, 0) + 1
        if module.folder.startswith("loadgen.") and not module.path.name.startswith("_"):
            yield f"{_where(module, 1)}: Locust would load this file; name it _{module.path.name}"
    for folder, number in folders.items():
        if number > MOST_MODULES:
            yield f"{folder.replace('.', '/')}/: {number} modules side by side; a folder has at most {MOST_MODULES}"


def _cycles(modules: Mapping[str, Module]) -> Iterator[str]:
    by_module: dict[str, set[str]] = {name: set() for name in modules}
    by_folder: dict[str, set[str]] = {module.folder: set() for module in modules.values()}
    for module in modules.values():
        for _line, name in imports_of(module, modules):
            if name != module.name:
                by_module[module.name].add(name)
            folder = modules[name].folder
            # Modules beside a package's folders (errors, options) may be below and above them: by_module covers these.
            if folder != module.folder and "." in folder and "." in module.folder:
                by_folder[module.folder].add(folder)
    for component in cycles(by_module):
        yield f"modules import each other in a cycle: {', '.join(component)}"
    for component in cycles(by_folder):
        yield f"folders import each other in a cycle: {', '.join(component)}"


def _private(modules: Mapping[str, Module]) -> Iterator[str]:
    for module in modules.values():
        for line, name in imports_of(module, modules):
            target = modules[name]
            private = not target.is_init and target.folder not in PUBLIC_FOLDERS and "." in target.folder
            if private and target.folder != module.folder:
                yield f"{_where(module, line)}: {name} is private to its folder; import the name from {target.folder}"
            foreign = name.split(".")[0] != module.name.split(".")[0]
            if foreign and "." not in target.folder and name not in PUBLIC_FOLDERS | PUBLIC_MODULES:
                yield f"{_where(module, line)}: {name} is not one of the public folders of {target.folder}"


def _processes(modules: Mapping[str, Module]) -> Iterator[str]:
    for module in modules.values():
        if any(module.name == starter or module.name.startswith(f"{starter}.") for starter in PROCESS_STARTERS):
            continue
        for node in ast.walk(module.tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module.split(".")[0]]
            for name in PROCESS_MODULES.intersection(names):
                yield f"{_where(module, node.lineno)}: {name}: only capacity/experiments starts processes"
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in PROCESS_CALLS and ast.unparse(called.value) == "os":
                words = f"os.{called.attr}: only capacity/experiments starts processes"
                yield f"{_where(module, called.lineno)}: {words}"


def _exports(module: Module) -> Iterator[str]:
    if not module.is_init or "." not in module.name or module.name in PUBLIC_FOLDERS:
        return
    exported = [node for node in module.tree.body if isinstance(node, ast.Assign) and _assigned(node) == ["__all__"]]
    if not exported:
        yield f"{_where(module, 1)}: no __all__; a folder exports its few public names"
        return
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("__"):
            yield f"{_where(module, node.lineno)}: {node.name} is defined in an __init__; it belongs in a module"


def _state(module: Module) -> Iterator[str]:
    if module.name in STATEFUL:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield f"{_where(module, node.lineno)}: global {', '.join(node.names)}: no module-level mutable state"
    classes = {node.name for node in module.tree.body if isinstance(node, ast.ClassDef)}
    for node in module.tree.body:
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        lower = [name for name in _assigned(node) if name.islower() and not name.startswith("__")]
        made = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in classes
        if lower and (made or isinstance(value, (ast.List, ast.Dict, ast.Set))):
            yield f"{_where(module, node.lineno)}: {', '.join(lower)}: no module-level mutable state"


def _assigned(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Assign):
        targets: list[ast.expr] = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr, ast.AugAssign, ast.For, ast.comprehension)):
        targets = [node.target]
    else:
        return []
    return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]


def _names(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        for name in PARTICIPLES.intersection(_assigned(node)):
            line = getattr(node, "lineno", getattr(getattr(node, "target", None), "lineno", 0))
            yield f"{_where(module, line)}: {name} is a participle; a variable says what it holds"


def main() -> int:
    lines = violations(ROOT)
    for line in lines:
        print(line)
    print(f"structure: {len(lines)} violations" if lines else "structure: every rule holds")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
