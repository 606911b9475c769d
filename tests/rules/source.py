"""Rules of one source file: sizes, handlers, calls, asserts, reminders, names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 400

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}

# Called thing -> what to write instead.
BANNED_CALLS = {
    "datetime.utcnow": "datetime.now(UTC)",
    "datetime.utcfromtimestamp": "datetime.fromtimestamp(seconds, UTC)",
    "asyncio.get_event_loop": "asyncio.get_running_loop()",
    "os.system": "subprocess.run([...])",
    "print": "rich's console in cli, logging elsewhere",
    "breakpoint": "nothing",
}
# Called thing -> how many arguments it needs before it is given a time zone.
NEEDS_TIME_ZONE = {"datetime.now": 1, "datetime.fromtimestamp": 2}
FOR_TOOLS = re.compile(r"noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?|type:\s*ignore(\[[^\]]*\])?")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def dotted(node: ast.expr) -> str:
    """`datetime.datetime.now` -> `datetime.now`: the last two names, as modules are imported in both ways."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    names.append(node.id if isinstance(node, ast.Name) else "?")
    return ".".join(reversed(names[:2]))


def size_faults(tree: ast.Module, source: str) -> Iterator[tuple[int, str]]:
    """(line, fault) of files and functions that are too long; a function counts from `def`, without decorators."""
    lines = len(source.splitlines())
    if lines > MAX_FILE_LINES:
        yield 1, f"{lines} lines, and a file has at most {MAX_FILE_LINES}: one idea a file"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {length} lines, and a function has at most {MAX_FUNCTION_LINES}"


def comments_by_line(source: str) -> dict[int, str]:
    """The comment of each line that has one, without what is meant for a tool (`noqa`, `type: ignore`)."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = ((token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT)
    return {line: FOR_TOOLS.sub("", text).strip("# -:") for line, text in comments}


def except_faults(tree: ast.Module, source: str) -> Iterator[tuple[int, str]]:
    """(line, fault) of each handler that swallows everything and neither raises nor says why on its line."""
    comments = comments_by_line(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(kind is None or dotted(kind).split(".")[-1] in {"Exception", "BaseException"} for kind in caught)
        raises = any(isinstance(inner, ast.Raise) for statement in node.body for inner in ast.walk(statement))
        if broad and not raises and not comments.get(node.lineno):
            yield node.lineno, "catches everything: name the errors, raise again, or say why in a comment on this line"


def call_faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, fault) of each banned call, with its replacement."""
    own_print = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "rich"
        and any(alias.name == "print" for alias in node.names)
        for node in ast.walk(tree)
    )
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in BANNED_CALLS and not (called == "print" and own_print):
            yield node.lineno, f"{called}(): instead {BANNED_CALLS[called]}"
        if called in NEEDS_TIME_ZONE and len(node.args) + len(node.keywords) < NEEDS_TIME_ZONE[called]:
            yield node.lineno, f"{called}() without a time zone is local time: give it UTC"


def statement_faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, fault) of asserts that do not say what was assumed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and node.msg is None:
            yield node.lineno, "an assert carries a sentence: what a programmer got wrong if it fails"


def unfinished_faults(source: str) -> Iterator[tuple[int, str]]:
    """(line, fault) of each reminder left behind."""
    for line, text in enumerate(source.splitlines(), start=1):
        found = UNFINISHED.search(text)
        if found:
            yield line, f"{found[0]} left behind: do it, or file an issue"


def source_faults(path: Path, source: str) -> list[str]:
    """Every fault of one file of inferd, as `file:line: what`."""
    tree = ast.parse(source, str(path))
    found = [
        *size_faults(tree, source),
        *except_faults(tree, source),
        *call_faults(tree),
        *statement_faults(tree),
        *unfinished_faults(source),
    ]
    if not ast.get_docstring(tree):
        found.append((1, "a module says in a docstring what it holds"))
    if VAGUE_NAMES & {path.stem, path.parent.name}:
        found.append((1, "a module is named for the one idea it holds"))
    return [f"{path}:{line}: {what}" for line, what in sorted(found)]
