"""Import graph of a package, read from its sources: modules, importers, cycles."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def sources_under(folder: str) -> dict[Path, str]:
    """Return path (relative to the repository) -> text of each Python file in `folder`."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return {file.relative_to(ROOT): file.read_text(encoding="utf-8") for file in files}


def module_name(path: Path) -> str:
    """Return the dotted name: `inferd/ledger/__init__.py` -> `inferd.ledger`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class ImportGraph:
    """Imports between modules, those inside functions and under TYPE_CHECKING included.

    Attributes:
        files: module -> its file.
        imports: module -> the modules that it imports; `from package import module` imports the module alone.
    """

    files: dict[str, Path]
    imports: dict[str, set[str]]

    @classmethod
    def of(cls, sources: dict[Path, str]) -> ImportGraph:
        """Build the graph of `sources`: path -> text."""
        files = {module_name(path): path for path in sources}
        imports = {name: _imported_modules(path, sources[path], files) - {name} for name, path in files.items()}
        return cls(files, imports)

    def modules(self) -> list[str]:
        """Return the modules that are no package."""
        return sorted(name for name, path in self.files.items() if path.stem != "__init__")

    def importers(self) -> dict[str, set[str]]:
        """Return module -> the modules that import it."""
        found: dict[str, set[str]] = defaultdict(set)
        for importer, imported in self.imports.items():
            for name in imported:
                found[name].add(importer)
        return found

    def folder(self, module: str) -> str:
        """Return the package that `module` lies in; for a package, itself."""
        return module if self.files[module].stem == "__init__" else module.rpartition(".")[0]

    def reached_from(self, entry_points: set[str]) -> set[str]:
        """Return what `entry_points` reach by imports; a package is reached with any module of it."""
        reached: set[str] = set()
        pending = [name for name in entry_points if name in self.files]
        while pending:
            name = pending.pop()
            if name not in reached:
                reached.add(name)
                pending += [*self.imports[name], *([name.rpartition(".")[0]] if "." in name else [])]
        return reached & self.files.keys()

    def cycles(self) -> list[list[str]]:
        """Return the groups of modules that import each other, sorted (Tarjan's strongly connected components)."""
        order: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        found: list[list[str]] = []

        def visit(name: str) -> None:
            order[name] = low[name] = len(order)
            stack.append(name)
            for imported in sorted(self.imports[name]):
                if imported not in order:
                    visit(imported)
                if imported in stack:
                    low[name] = min(low[name], low[imported])
            if low[name] == order[name]:
                start = stack.index(name)
                group = stack[start:]
                del stack[start:]
                if len(group) > 1:
                    found.append(sorted(group))

        for name in sorted(self.files):
            if name not in order:
                visit(name)
        return sorted(found)


def _imported_modules(path: Path, source: str, files: dict[str, Path]) -> set[str]:
    package = path.with_suffix("").parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{origin}.{alias.name}"
                found.add(full if full in files else origin)
    return found & files.keys()
