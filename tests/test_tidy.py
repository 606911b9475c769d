"""The tidy rules, run over the tree: sizes, structure, names, signatures, prose. tests/rules/ holds them."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import inferd
from tests.rules.callers import parameter_faults, uncalled
from tests.rules.graph import ROOT, ImportGraph, sources_under
from tests.rules.prose import page_faults, prose_faults
from tests.rules.source import size_faults, source_faults

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Started from outside, so nothing in inferd imports them: `inferd` and `python -m inferd`.
ENTRY_POINTS = {*(target.partition(":")[0] for target in PROJECT["scripts"].values()), "inferd.__main__"}
MAX_MODULES_IN_A_FOLDER = 16
MAX_SHARE_OF_ONE_IMPORTER = 0.20
MAX_LINES_OF_A_CRUMB = 60
# Modules that list others of one kind: each of those has this importer and needs no other.
REGISTRIES = {"inferd.cli.main", "inferd.server.app", "inferd.server.admin.routes", "inferd.ledger.audit.run"}
# Names that a library calls, or reads from a class.
CALLED_BY_LIBRARIES = {
    "concat": "jinja2.Environment",
    "visit_For": "jinja2.compiler.CodeGenerator",
    "visit_Concat": "jinja2.compiler.CodeGenerator",
    "visit_Compare": "jinja2.compiler.CodeGenerator",
    "visit_Getitem": "jinja2.compiler.CodeGenerator",
    "visit_Pair": "jinja2.compiler.CodeGenerator",
    "data_received": "asyncio.Protocol",
    "capture_signals": "uvicorn.Server",
}
PAGES = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


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


def test_every_module_is_reached_from_an_entry_point() -> None:
    graph = ImportGraph.of(sources_under("inferd"))
    dead = sorted(graph.files.keys() - graph.reached_from(ENTRY_POINTS))
    assert not dead, f"nothing reaches {', '.join(dead)} from {' or '.join(sorted(ENTRY_POINTS))}: use or delete"


def test_every_folder_holds_at_most_16_modules() -> None:
    graph = ImportGraph.of(sources_under("inferd"))
    sizes = Counter(graph.folder(module) for module in graph.modules())
    assert {folder: size for folder, size in sizes.items() if size > MAX_MODULES_IN_A_FOLDER} == {}


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert ImportGraph.of(sources_under("inferd")).cycles() == []


def one_importer_modules(graph: ImportGraph) -> list[str]:
    """Return the modules of inferd with a single importer, scripts included, that is no registry.

    A package's face stands for its importers.
    """
    importers = graph.importers()
    found = []
    for module in graph.modules():
        if not module.startswith("inferd."):
            continue
        names = set(importers[module])
        face = module.rpartition(".")[0]
        if names == {face}:
            names = importers[face] - {face}
        if len(names) == 1 and not names & REGISTRIES:
            found.append(module)
    return found


def test_few_modules_have_a_single_importer() -> None:
    graph = ImportGraph.of(sources_under("inferd") | sources_under("scripts"))
    found = one_importer_modules(graph)
    share = len(found) / sum(module.startswith("inferd.") for module in graph.modules())
    assert share <= MAX_SHARE_OF_ONE_IMPORTER, f"{share:.0%}, merge some into their importers:\n" + "\n".join(found)


def test_no_small_module_has_a_single_importer() -> None:
    sources = sources_under("inferd") | sources_under("scripts")
    graph = ImportGraph.of(sources)
    lines = {module: len(sources[graph.files[module]].splitlines()) for module in one_importer_modules(graph)}
    assert {module: num for module, num in lines.items() if num < MAX_LINES_OF_A_CRUMB} == {}


def test_every_function_has_a_caller() -> None:
    found = [each for each in uncalled(sources_under("inferd")) if each.split(": ")[1] not in CALLED_BY_LIBRARIES]
    assert not found, "\n" + "\n".join(found)


def test_functions_have_at_most_six_parameters() -> None:
    found = [
        f"{path}:{line}: {what}"
        for path, source in sources_under("inferd").items()
        for line, what in parameter_faults(ast.parse(source, str(path)))
    ]
    assert not found, "\n" + "\n".join(found)


def test_prose_of_the_code_names_the_noun() -> None:
    found = [fault for path, source in sources_under("inferd").items() for fault in prose_faults(path, source)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_prose_of_a_page_names_the_noun_within_120_columns(page: Path) -> None:
    found = [f"{page}:{line}: {what}" for line, what in page_faults((ROOT / page).read_text(encoding="utf-8"))]
    assert not found, "\n" + "\n".join(found)


def tree_of(readme: str) -> set[str]:
    """Return the paths below `inferd/` in the tree of the README, folders with a slash at their end."""
    block = readme.partition("\ninferd/\n")[2].partition("\ntests/")[0]
    paths, parents = set(), []
    for line in block.splitlines():
        found = re.match(r"( +)([\w.]+/?)(?:  |$)", line)
        if found:
            depth = len(found[1]) // 2
            parents[depth - 1 :] = [found[2]]
            paths.add("".join(parents))
    return paths


def test_tree_of_the_readme_equals_the_tree() -> None:
    there = {
        *(
            f"{path.relative_to(ROOT / 'inferd')}/"
            for path in (ROOT / "inferd").glob("*/")
            if (path / "__init__.py").exists()
        ),
        *(path.name for path in (ROOT / "inferd").glob("*.py") if not path.stem.startswith("__")),
    }
    told = tree_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {path for path in told if path.count("/") <= path.endswith("/")} == there
    assert {path for path in told if not (ROOT / "inferd" / path).exists()} == set()


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
    graph = ImportGraph.of(sources)
    assert graph.files.keys() - graph.reached_from(ENTRY_POINTS) == {"inferd.ledger.old", "inferd.ledger.older"}
    assert graph.cycles() == [["inferd.ledger.old", "inferd.ledger.older"]]


def test_the_newest_version_of_a_changelog_is_its_first() -> None:
    assert newest_version("# Changelog\n\n## Unreleased\n\n## [1.2.0] - 2026-01-31\n\n## 1.1.0\n") == "1.2.0"
    assert newest_version("# Changelog\n") is None


def test_a_module_with_one_importer_is_found_unless_a_registry_lists_it() -> None:
    graph = ImportGraph.of(
        {
            Path("inferd/cli/main.py"): "from inferd.cli import keys, console\n",
            Path("inferd/cli/keys.py"): "from inferd.cli import console, words\n",
            Path("inferd/cli/console.py"): "",
            Path("inferd/cli/words.py"): "",
            Path("inferd/cli/__init__.py"): "",
        }
    )
    assert one_importer_modules(graph) == ["inferd.cli.words"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('"""Keys."""\ndef f():\n    """What a key may do."""\n', "begins with 'what'"),
        ('"""Keys."""\ndef f():\n    """Returns the key."""\n', "begins with 'returns'"),
        ('"""Keys."""\ndef f():\n    """The key."""\n', "begins with 'the'"),
        ('"""Keys."""\nclass A:\n    """Whether a key is valid."""\n', "begins with 'whether'"),
        ('"""Keys."""\nclass A:\n    """Likewise."""\n', "is a fragment"),
        ('"""What keys are."""\n', "begins with 'what'"),
        ('"""Keys."""\n# nobody reads it\nx = 1\n', "'nobody'"),
        ('"""Keys."""\nraise ValueError("so many keys")\n', "'so many'"),
    ],
)
def test_prose_without_a_noun_is_found(source: str, said: str) -> None:
    assert said in "\n".join(prose_faults(Path("inferd/sample.py"), source))


def test_plain_prose_passes() -> None:
    source = '"""Keys."""\nclass A:\n    """A key."""\n    @property\n    def name(self):\n        """The name."""\n'
    assert prose_faults(Path("inferd/sample.py"), source + '\ndef f():\n    """Return the key, or None."""\n') == []


def test_a_wide_line_of_prose_is_found_and_tables_and_code_are_exempt() -> None:
    wide = "word " * 30
    page = f"{wide}\n| {wide} |\n```\n{wide}\n```\n[link](https://example.org/{'x' * 120})\n"
    assert [line for line, _ in page_faults(page)] == [1]


def test_a_function_without_a_caller_is_found() -> None:
    sources = {Path("inferd/a.py"): "def used(): ...\ndef unused(): ...\n@app.command\ndef told(): ...\nused()\n"}
    assert uncalled(sources) == ["inferd/a.py:2: unused"]


def test_a_seventh_parameter_is_found() -> None:
    source = "class A:\n    def f(self, a, b, c, d, e, *, f): ...\n    def g(self, a, b, c, d, e, f, *, g): ...\n"
    assert [line for line, _ in parameter_faults(ast.parse(source))] == [3]
