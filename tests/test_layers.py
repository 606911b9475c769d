"""The layers of inferd (docs/ARCHITECTURE.md), read off every import: at the top, in functions, under TYPE_CHECKING."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Imports go to a lower layer, or stay within the own package.
LAYERS = {
    "__init__": 0,
    "attribution": 0,
    "errors": 0,
    "constraint": 0,
    "instants": 0,
    "logprobs": 0,
    "sampling_params": 0,
    "sealed": 0,
    "usage": 0,
    "tokenizer": 0,
    "price": 0,
    "money": 0,
    "plans": 0,
    "subjects": 0,
    "units": 0,
    "config": 1,
    "engine": 2,
    "ledger": 2,
    "limits": 2,
    "chat": 2,
    "wire": 2,
    "deployments": 3,
    "serving": 4,
    "server": 5,
    "cli": 6,
    "__main__": 6,
}
# The modules of L0 are one layer.
SHARED_LAYERS = {0}
# Chat renders and answers requests in the structs of the wire formats; not the other way.
TRANSLATIONS = {("chat", "wire")}

# Outside modules that only these parts of inferd may import.
OWNERS = {
    "llama_cpp": ("inferd.engine.llama",),
    "llguidance": ("inferd.engine",),
    "ctypes": ("inferd.engine.llama",),
    "starlette": ("inferd.server",),
    "python_multipart": ("inferd.server",),
    "sse_starlette": ("inferd.server",),
    "uvicorn": ("inferd.server", "inferd.cli.serve"),
    "typer": ("inferd.cli",),
    "click": ("inferd.cli",),
    "rich": ("inferd.cli",),
    "sqlite3": ("inferd.ledger",),
    "sqlite_utils": ("inferd.ledger",),
    "cryptography": ("inferd.sealed",),
}

# Sub-packages in the order in which they are built on each other: none imports one of a later row.
ROWS = {
    "inferd.engine": (("kv", "grammar", "embeddings"), ("llama",)),
    "inferd.ledger": (
        ("storage",),
        ("identity", "terms"),
        ("alerts",),
        ("credit",),
        ("requests", "batches"),
        ("operations",),
        ("reports",),
        ("audit",),
        ("maintenance",),
    ),
    "inferd.serving": (("endpoints",), ("batches", "responses")),
    "inferd.server": (("transport",), ("middleware",), ("endpoints",), ("admin",)),
}

# The ledger's packages without a facade: their modules are tools that load much. Others are imported by the package.
TOOLS = ("inferd.ledger.audit", "inferd.ledger.maintenance")

# What a part must not know of, its own modules and outside ones.
STRANGERS = {
    "inferd.engine": ("inferd.money", "inferd.price", "json", "msgspec", "http", "httpx"),
    "inferd.ledger": ("inferd.tokenizer", "inferd.sampling_params", "jinja2", "http", "httpx", "socket", "urllib"),
    "inferd.limits": ("asyncio", "http", "httpx", "socket", "time", "urllib"),
    "inferd.chat": ("asyncio", "http", "httpx", "socket", "urllib"),
    "inferd.wire": ("asyncio", "http", "httpx", "socket", "urllib"),
    # Anthropic's requests become chat requests, which are OpenAI's and the only ones that are served.
    "inferd.wire.openai": ("inferd.wire.anthropic",),
}

ENVIRONMENT_READER = "inferd.config"
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}


def module_name(path: Path) -> str:
    """`inferd/ledger/__init__.py` -> `inferd.ledger`; `path` is relative to the repository."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, package: str) -> bool:
    """Whether `module` is `package` or lies in it."""
    return module == package or module.startswith(package + ".")


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of each import; `from a import b` is `a.b`, as b may be a module."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            first = node.args[0] if node.args else None
            yield node.lineno, str(first.value) if isinstance(first, ast.Constant) else "?"


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def layer(module: str) -> str:
    """`inferd.ledger.storage.store` -> `ledger`; of inferd itself, `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def row_of(module: str, package: str, rows: tuple[tuple[str, ...], ...]) -> int | None:
    """Return the row of `rows` that names the sub-package of `package` in which `module` lies."""
    found = (index for index, row in enumerate(rows) if any(within(module, f"{package}.{name}") for name in row))
    return next(found, None)


def import_fault(importer: str, imported: str) -> str | None:
    """The rule that `importer` breaks by importing `imported`, or None."""
    if imported == "?":
        return "a module named at run time cannot be checked: name it in an import statement"
    for outside, owners in OWNERS.items():
        if within(imported, outside) and not any(within(importer, owner) for owner in owners):
            return f"only {' and '.join(owners)} may import {outside}"
    for package, rows in ROWS.items():
        own_row, other_row = row_of(importer, package, rows), row_of(imported, package, rows)
        if own_row is not None and other_row is not None and other_row > own_row:
            return f"{package} builds {imported.split('.')[2]} on {importer.split('.')[2]}, not the other way"
    for part, strangers in STRANGERS.items():
        for stranger in strangers:
            if within(importer, part) and within(imported, stranger):
                return f"{part} must not know of {stranger}"
    if not within(imported, "inferd"):
        return None
    if within(imported, "inferd.ledger.storage") and not within(importer, "inferd.ledger"):
        return "other packages import the ledger's file from inferd.ledger"
    if imported.startswith("inferd.ledger.") and imported.count(".") > 3 and not within(importer, "inferd.ledger"):
        package = imported.rsplit(".", 2)[0]
        if package not in TOOLS:
            return f"other packages import {package}, not its modules"
    own, other = layer(importer), layer(imported)
    if other not in LAYERS and imported.count(".") == 1:
        other = "__init__"  # `from inferd import __version__`: a name, not a module
    if other not in LAYERS or own not in LAYERS:
        return None  # said once, by layer_fault
    if own == other or (own, other) in TRANSLATIONS or LAYERS[other] < LAYERS[own]:
        return None
    if LAYERS[own] == LAYERS[other] and LAYERS[own] in SHARED_LAYERS:
        return None
    return f"{own} (L{LAYERS[own]}) may import only lower layers, and {other} is L{LAYERS[other]}"


def layer_fault(path: Path) -> str | None:
    """Return the fault of a file whose part of inferd has no layer, or None."""
    part = path.parts[1].removesuffix(".py")
    if part in LAYERS:
        return None
    return f"{path}: `{part}` has no layer: give it one in LAYERS of tests/test_layers.py and in docs/ARCHITECTURE.md"


def environment_faults(module: str, tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, what, rule) of each use of the environment outside config."""
    if within(module, ENVIRONMENT_READER):
        return
    rule = f"only {ENVIRONMENT_READER} reads the environment"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT:
            yield node.lineno, f"os.{node.attr}", rule
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from ((node.lineno, f"os.{alias.name}", rule) for alias in node.names if alias.name in ENVIRONMENT)
        elif isinstance(node, ast.keyword) and node.arg == "envvar":
            yield node.value.lineno, "envvar=", rule


def faults(path: Path, source: str) -> list[str]:
    """Every broken rule of one file (`path` relative to the repository), as `file:line: import: rule`."""
    tree, module = ast.parse(source, str(path)), module_name(path)
    found = [f"{path}:{line}: {what}: {rule}" for line, what, rule in environment_faults(module, tree)]
    for line, imported in imports(path, tree):
        rule = import_fault(module, imported)
        if rule:
            found.append(f"{path}:{line}: import of {imported}: {rule}")
    no_layer = layer_fault(path)
    return [*found, no_layer] if no_layer else found


def test_every_import_of_inferd_keeps_to_the_layers() -> None:
    files = sorted((ROOT / "inferd").rglob("*.py"))
    assert files, "there is nothing to check"
    found = [fault for file in files for fault in faults(file.relative_to(ROOT), file.read_text(encoding="utf-8"))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("inferd/errors.py", "from inferd.config.models_file import Config", "config is L1"),
        ("inferd/config/models_file.py", "import inferd.engine.core", "engine is L2"),
        ("inferd/ledger/requests/holds.py", "from inferd.engine.core import EngineCore", "engine is L2"),
        ("inferd/ledger/requests/holds.py", "from inferd import engine", "engine is L2"),
        ("inferd/ledger/requests/holds.py", "from ...engine import core", "engine is L2"),
        ("inferd/ledger/__init__.py", "from ..engine import core", "engine is L2"),
        ("inferd/engine/core.py", "def f():\n    from inferd.server import app", "server is L5"),
        (
            "inferd/engine/core.py",
            "if TYPE_CHECKING:\n    from inferd.serving.endpoints.prompt import A",
            "serving is L4",
        ),
        (
            "inferd/wire/openai/chat_request.py",
            "import importlib\nimportlib.import_module('inferd.cli')",
            "cli is L6",
        ),
        (
            "inferd/wire/openai/chat_request.py",
            "from importlib import import_module\nimport_module(name)",
            "at run time",
        ),
        ("inferd/server/auth.py", "from inferd.ledger.identity.keys import Key", "import inferd.ledger.identity, not"),
        ("inferd/server/auth.py", "from inferd.ledger.storage import Store", "file from inferd.ledger"),
        ("inferd/server/app.py", "from inferd.cli.main import main", "cli is L6"),
        ("inferd/engine/core.py", "import llama_cpp.llama_cpp as lib", "only inferd.engine.llama may import llama_cpp"),
        ("inferd/engine/core.py", "import ctypes", "only inferd.engine.llama may import ctypes"),
        ("inferd/serving/completions.py", "from starlette.requests import Request", "only inferd.server"),
        (
            "inferd/cli/commands/keys.py",
            "import uvicorn",
            "only inferd.server and inferd.cli.serve may import uvicorn",
        ),
        ("inferd/server/app.py", "from rich import print", "only inferd.cli may import rich"),
        ("inferd/serving/endpoints/prompt.py", "import sqlite3", "only inferd.ledger may import sqlite3"),
        ("inferd/ledger/storage/store.py", "import httpx", "must not know of httpx"),
        ("inferd/ledger/storage/store.py", "from inferd.ledger.audit.run import audit", "builds audit on storage"),
        ("inferd/ledger/storage/store.py", "from starlette.responses import Response", "only inferd.server"),
        ("inferd/engine/core.py", "from inferd.money import format_usd", "must not know of inferd.money"),
        ("inferd/limits/rates.py", "import time", "must not know of time"),
        ("inferd/server/app.py", "import os\nos.environ['PORT']", "only inferd.config reads the environment"),
        ("inferd/server/app.py", "from os import getenv", "only inferd.config reads the environment"),
        (
            "inferd/cli/serve.py",
            "Option(envvar='INFERD_DATA_DIR')",
            "only inferd.config reads the environment",
        ),
        ("inferd/engine/llama/library.py", "import os\nos.environ['HOME'] = 'x'", "only inferd.config"),
        ("inferd/webhooks/post.py", "", "`webhooks` has no layer"),
        (
            "inferd/wire/openai/chat_request.py",
            "import inferd.wire.anthropic.requests",
            "must not know of inferd.wire.anthropic",
        ),
        ("inferd/wire/anthropic/requests.py", "import inferd.engine.core", "engine is L2"),
        ("inferd/wire/openai/chat_request.py", "import inferd.chat.format", "chat is L2"),
        ("inferd/helpers.py", "", "`helpers` has no layer"),
        ("inferd/ledger/storage/store.py", "from inferd.ledger.requests import holds", "builds requests on storage"),
        ("inferd/engine/kv/cache.py", "from inferd.engine.llama.model import Model", "builds llama on kv"),
    ],
)
def test_a_broken_rule_is_found_and_named(path: str, source: str, rule: str) -> None:
    (found,) = faults(Path(path), source)
    assert found.startswith(path)
    assert rule in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("inferd/price.py", "from inferd.money import NANO_PER_USD"),
        (
            "inferd/config/models_file.py",
            "from inferd.config.models import ModelConfig\nimport os\nos.environ.get('HOME')",
        ),
        (
            "inferd/ledger/requests/holds.py",
            "from inferd.ledger.storage.store import Store\nfrom . import grants\nimport sqlite3",
        ),
        ("inferd/ledger/storage/store.py", "from inferd import __version__, errors"),
        ("inferd/engine/core.py", "from .llama.model import Model\nfrom inferd.errors import GenerationError"),
        (
            "inferd/server/app.py",
            "from inferd.serving.endpoints.prompt import admit\nfrom starlette.routing import Route",
        ),
        ("inferd/cli/serve.py", "import uvicorn\nimport typer\nfrom inferd.server.app import App"),
        ("inferd/wire/openai/chat_request.py", "import msgspec"),
        (
            "inferd/server/auth.py",
            "from inferd.ledger.identity import Key\nfrom inferd.ledger import Store, operations",
        ),
        ("inferd/chat/format.py", "from inferd.wire.openai.chat_request import ChatRequest"),
        ("inferd/wire/anthropic/requests.py", "from inferd.wire.openai.chat_request import ChatRequest"),
    ],
)
def test_what_the_layers_allow_passes(path: str, source: str) -> None:
    assert faults(Path(path), source) == []


def test_a_fault_names_file_line_import_and_rule() -> None:
    (found,) = faults(
        Path("inferd/ledger/requests/holds.py"), "import json\n\nfrom inferd.engine.core import EngineCore\n"
    )
    assert found == (
        "inferd/ledger/requests/holds.py:3: import of inferd.engine.core.EngineCore: "
        "ledger (L2) may import only lower layers, and engine is L2"
    )
