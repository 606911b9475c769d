"""Rules of signatures: parameters of a function, and functions without a caller."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

MAX_PARAMETERS = 6


def parameter_faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, fault) of each function with more than 6 parameters besides self.

    Commands of typer are exempt: their parameters are the command's options.
    """
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_command(node):
            continue
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        num = len(given) - (given[:1] != [] and given[0].arg in {"self", "cls"})
        if num > MAX_PARAMETERS:
            yield (
                node.lineno,
                f"{node.name} has {num} parameters, at most {MAX_PARAMETERS}: make a type of what travels together",
            )


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if any(".command(" in ast.unparse(decorator) for decorator in node.decorator_list):
        return True
    annotated = [arg.annotation for arg in [*node.args.args, *node.args.kwonlyargs] if arg.annotation is not None]
    return any("typer." in ast.unparse(annotation) for annotation in annotated)


def uncalled(sources: dict[Path, str]) -> list[str]:
    """Return `file:line: name` of each function, method or protocol member whose name is used nowhere in `sources`.

    A use is any name, attribute, keyword or string besides the definitions. Special methods are exempt, and so are
    functions with a decorator other than property and the like (typer and Starlette call those).
    """
    trees = {path: ast.parse(source, str(path)) for path, source in sources.items()}
    uses: Counter[str] = Counter()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                uses[node.id] += 1
            elif isinstance(node, ast.Attribute):
                uses[node.attr] += 1
            elif isinstance(node, ast.alias):
                uses[node.name.rpartition(".")[2]] += 1
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                uses[node.value] += 1
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_called_from_outside(node):
                continue
            if not uses[node.name]:
                found.append(f"{path}:{node.lineno}: {node.name}")
    return sorted(found)


def _is_called_from_outside(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    plain = {"property", "cached_property", "staticmethod", "classmethod", "contextmanager", "asynccontextmanager"}
    decorators = {ast.unparse(each).partition("(")[0].rpartition(".")[2] for each in node.decorator_list}
    return node.name.startswith("__") or bool(decorators - plain - {"abstractmethod", "lru_cache", "cache", "override"})
