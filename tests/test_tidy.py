"""What keeps the tree liveable: small functions and files, no dead modules, no calls with a better replacement."""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import inferd

ROOT = Path(__file__).resolve().parents[1]
MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 400

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Started from outside, so nothing in inferd imports them: `inferd` and `python -m inferd`.
ENTRY_POINTS = {*(target.partition(":")[0] for target in PROJECT["scripts"].values()), "inferd.__main__"}
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


def module_name(path: Path) -> str:
    """`inferd/ledger/__init__.py` -> `inferd.ledger`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def dead_modules(sources: dict[Path, str]) -> list[str]:
    """Modules that no entry point reaches by imports; a package is reached with any module of it."""
    modules = {module_name(path): path for path in sources}
    imported = {name: _imported_modules(path, sources[path], modules) for name, path in modules.items()}
    reached: set[str] = set()
    todo = [name for name in ENTRY_POINTS if name in modules]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [*imported[name], *([name.rpartition(".")[0]] if "." in name else [])]
    return sorted(set(modules) - reached)


def _imported_modules(path: Path, source: str, modules: dict[str, Path]) -> set[str]:
    package = path.with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return names & modules.keys()


def sources_under(folder: str) -> dict[Path, str]:
    """Relative path -> text of each Python file in a folder of the repository."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return {file.relative_to(ROOT): file.read_text(encoding="utf-8") for file in files}


def test_every_file_of_inferd_is_tidy() -> None:
    found = [fault for path, source in sources_under("inferd").items() for fault in source_faults(path, source)]
    assert not found, "\n" + "\n".join(found)


def test_every_test_is_of_a_size_to_be_read() -> None:
    found = [
        f"{path}:{line}: {what}"
        for path, source in sources_under("tests").items()
        for line, what in size_faults(ast.parse(source, str(path)), source)
    ]
    assert not found, "\n" + "\n".join(found)


def test_the_median_file_stays_small() -> None:
    lengths = [len(source.splitlines()) for path, source in sources_under("inferd").items() if path.stem != "__init__"]
    assert statistics.median(lengths) <= 150, "files grow: about 100 lines is the target"


def test_no_module_is_dead() -> None:
    dead = dead_modules(sources_under("inferd"))
    assert not dead, f"nothing reaches {', '.join(dead)} from {' or '.join(sorted(ENTRY_POINTS))}: use or delete"


def test_the_version_is_the_newest_of_the_changelog() -> None:
    assert inferd.__version__ == PROJECT["version"]
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("there is no CHANGELOG.md yet")
    newest = newest_version(changelog.read_text(encoding="utf-8"))
    assert newest == PROJECT["version"], "the newest heading of CHANGELOG.md is the version of pyproject.toml"


def newest_version(changelog: str) -> str | None:
    """The version in the first heading that has one: `## 1.2.0`, `## [1.2.0] - 2026-01-31`."""
    found = re.search(r"^##\s+\[?v?(\d+\.\d+\.\d+[\w.]*)", changelog, re.MULTILINE)
    return found[1] if found else None


GOOD = '"""A module."""\n'


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", "in a docstring"),
        (GOOD + "def f():\n" + "    x = 1\n" * 70, "f has 71 lines"),
        (GOOD + "x = 1\n" * 400, "401 lines"),
        (GOOD + "class A:\n    async def f(self):\n" + "        x = 1\n" * 70, "f has 71 lines"),
        (GOOD + "try:\n    f()\nexcept Exception:\n    pass\n", "catches everything"),
        (GOOD + "try:\n    f()\nexcept:\n    pass\n", "catches everything"),
        (GOOD + "try:\n    f()\nexcept (OSError, BaseException) as e:\n    log(e)\n", "catches everything"),
        (GOOD + "try:\n    f()\nexcept Exception:  # noqa: BLE001, E722\n    pass\n", "catches everything"),
        (GOOD + "print('hello')\n", "instead rich's console in cli, logging elsewhere"),
        (GOOD + "datetime.datetime.utcnow()\n", "instead datetime.now(UTC)"),
        (GOOD + "datetime.now()\n", "give it UTC"),
        (GOOD + "datetime.fromtimestamp(1.0)\n", "give it UTC"),
        (GOOD + "asyncio.get_event_loop()\n", "instead asyncio.get_running_loop()"),
        (GOOD + "assert x is not None\n", "carries a sentence"),
        (GOOD + "x = 1  # TODO: two\n", "TODO left behind"),
    ],
)
def test_an_untidy_file_is_found(source: str, said: str) -> None:
    (found,) = source_faults(Path("inferd/ledger/sample.py"), source)
    assert found.startswith("inferd/ledger/sample.py:")
    assert said in found


@pytest.mark.parametrize(
    "source",
    [
        GOOD + "@decorated(\n" + "    1,\n" * 70 + ")\ndef f():\n" + "    x = 1\n" * 69,
        GOOD + "x = 1\n" * 399,
        GOOD + "try:\n    f()\nexcept Exception as e:\n    raise InferdError('no') from e\n",
        GOOD
        + "try:\n    f()\nexcept Exception:  # noqa: BLE001 one request's fault must not stop the others\n    pass\n",
        GOOD + "try:\n    f()\nexcept OSError:\n    pass\n",
        GOOD + "from rich import print\nprint('hello')\n",
        GOOD + "datetime.now(UTC)\ndatetime.now(tz=UTC)\ndatetime.fromtimestamp(1.0, UTC)\ntime.time()\n",
        GOOD + "assert x is not None, 'the caller opens the store first'\n",
    ],
)
def test_a_tidy_file_passes(source: str) -> None:
    assert source_faults(Path("inferd/ledger/sample.py"), source) == []


@pytest.mark.parametrize("path", ["inferd/ledger/utils.py", "inferd/helpers/text.py", "inferd/engine/manager.py"])
def test_a_vague_name_is_found(path: str) -> None:
    assert source_faults(Path(path), GOOD) == [f"{path}:1: a module is named for the one idea it holds"]


def test_modules_that_only_import_each_other_are_dead() -> None:
    sources = {
        Path("inferd/__init__.py"): "",
        Path("inferd/cli/__init__.py"): "",
        Path("inferd/cli/main.py"): "def main():\n    from inferd.ledger.storage import store\n",
        Path("inferd/ledger/__init__.py"): "",
        Path("inferd/ledger/storage/__init__.py"): "",
        Path("inferd/ledger/storage/store.py"): "from . import schema\nfrom .rows import Row\n",
        Path("inferd/ledger/storage/schema.py"): "",
        Path("inferd/ledger/storage/rows.py"): "",
        Path("inferd/ledger/old.py"): "import inferd.ledger.older\n",
        Path("inferd/ledger/older.py"): "import inferd.ledger.old\n",
    }
    assert dead_modules(sources) == ["inferd.ledger.old", "inferd.ledger.older"]


def test_the_newest_version_of_a_changelog_is_its_first() -> None:
    assert newest_version("# Changelog\n\n## Unreleased\n\n## [1.2.0] - 2026-01-31\n\n## 1.1.0\n") == "1.2.0"
    assert newest_version("# Changelog\n") is None
