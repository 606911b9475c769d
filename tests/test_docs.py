"""What the program has, the docs describe: routes, configuration keys, error codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from inferd.config import SETTINGS, TABLES
from inferd.server.app import ROUTES
from inferd.wire.anthropic import requests as messages
from inferd.wire.anthropic.requests import MessagesRequest
from inferd.wire.classify import ClassifyRequest
from inferd.wire.ollama import requests as ollama
from inferd.wire.ollama.embeddings import OllamaEmbedRequest
from inferd.wire.ollama.options import Options
from inferd.wire.ollama.requests import OllamaChatRequest, OllamaGenerateRequest
from inferd.wire.openai import chat_request as chat
from inferd.wire.openai import text_completions as text
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.embeddings import EmbeddingRequest
from inferd.wire.openai.responses import requests as responses
from inferd.wire.openai.responses.requests import ResponsesRequest
from inferd.wire.openai.text_completions import TextRequest
from inferd.wire.rerank import RerankRequest

ROOT = Path(__file__).parent.parent
API = (ROOT / "docs" / "api.md").read_text()
OLLAMA = (ROOT / "docs" / "ollama.md").read_text()
MODELS_TOML = (ROOT / "docs" / "models-toml.md").read_text()
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("scripts/*.md"),
    )
)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_route_is_documented(route):
    path = route.path.replace(":path", "")
    methods = route.methods - {"HEAD"}
    for method in methods:
        assert f"`{method} {path}`" in API, f"docs/api.md does not describe {method} {path}"


class Fields(NamedTuple):
    """A section of a page with a table of fields, and the type that the server parses them with."""

    section: str
    kind: type[msgspec.Struct]
    refused: tuple[str, ...] = ()
    page: str = API

    def rows(self) -> dict[str, str]:
        """Each field that the table names, with what it says of it."""
        section = self.page.partition(f"\n## {self.section}\n")[2].partition("\n## ")[0]
        rows = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| `")]
        return {name.partition(".")[0]: told for cell, told in rows for name in re.findall(r"`([\w.]+)`", cell)}


FIELDS = [
    Fields("Chat completions", ChatRequest, chat.UNSUPPORTED),
    Fields("Text completions", TextRequest, text.UNSUPPORTED),
    Fields("Embeddings", EmbeddingRequest),
    Fields("Rerank", RerankRequest),
    Fields("Classify", ClassifyRequest),
    Fields("Responses", ResponsesRequest, responses.UNSUPPORTED),
    Fields("Messages", MessagesRequest, messages.UNSUPPORTED),
    Fields("Chats", OllamaChatRequest, page=OLLAMA),
    Fields("Completions", OllamaGenerateRequest, ollama.UNSUPPORTED, page=OLLAMA),
    Fields("Options", Options, page=OLLAMA),
    Fields("Embeddings", OllamaEmbedRequest, page=OLLAMA),
]


@pytest.mark.parametrize(
    ("table", "field"),
    [(table, field) for table in FIELDS for field in table.kind.__struct_fields__],
    ids=lambda value: getattr(value, "section", value),
)
def test_the_table_of_fields_says_what_happens_to_each(table, field):
    told = table.rows().get(field)
    assert told, f"{table.section} does not describe {field}"
    assert (field in table.refused) == told.startswith("refused"), f"{table.section} is wrong about {field}"


@pytest.mark.parametrize("table", FIELDS, ids=lambda table: table.section)
def test_a_table_of_fields_names_no_other(table):
    assert set(table.rows()) <= set(table.kind.__struct_fields__)


@pytest.mark.parametrize("key", [key for keys in TABLES.values() for key in keys])
def test_every_configuration_key_is_documented(key):
    assert f"`{key}`" in MODELS_TOML, f"docs/models-toml.md does not describe {key}"


@pytest.mark.parametrize(("table", "key"), [(table, key) for table, keys in SETTINGS.items() for key in keys])
def test_every_setting_is_documented(table, key):
    section = MODELS_TOML.partition(f"## `[{table}]`")[2].partition("\n## ")[0]
    assert f"### `{key}`" in section, f"docs/models-toml.md does not describe {key} of [{table}]"


@pytest.mark.parametrize("table", TABLES)
def test_every_configuration_table_is_documented(table):
    assert f"[{table}." in MODELS_TOML


def test_every_error_code_of_the_tree_is_documented():
    source = (ROOT / "inferd" / "errors.py").read_text()
    codes = set(re.findall(r'default_code = "(\w+)"', source)) - {"permission_denied", "rate_limit_exceeded"}
    assert codes, "the tree has default codes"
    assert not [code for code in codes if f"`{code}`" not in API]


@pytest.mark.parametrize("name", PAGES)
def test_link_of_a_page_leads_to_a_file_and_a_heading(name):
    page = ROOT / name
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), f"{name} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(path), f"{name} links to {target}#{anchor}, which is no heading there"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("script", ["serve", "test", "check", "install"])
def test_every_script_that_the_readme_names_can_be_run(script):
    path = ROOT / "scripts" / script
    assert f"scripts/{script}" in (ROOT / "README.md").read_text() or script == "install"
    assert path.stat().st_mode & 0o111, f"{path} has no run bit"


@pytest.mark.parametrize("name", PAGES)
def test_source_file_that_a_page_names_exists(name):
    """A path with NAME or NOUN in it stands for a file that a reader makes."""
    paths = r"`([a-z_]+(?:/[a-z_0-9]+)*\.py|(?:inferd|tests|scripts)/[\w/.]*)`"
    named = {path for path in re.findall(paths, (ROOT / name).read_text()) if not re.search(r"NAME|NOUN", path)}
    assert {path for path in named if not any((root / path).exists() for root in (ROOT, ROOT / "inferd"))} == set()


def test_architecture_has_at_most_120_lines():
    assert len((ROOT / "docs" / "ARCHITECTURE.md").read_text().splitlines()) <= 120


def test_decisions_are_numbered_without_gaps():
    assert [path.name[:4] for path in DECISIONS] == [f"{number:03}-" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_its_number_its_sections_and_half_a_page(path):
    text = path.read_text()
    assert text.startswith(f"# {path.name[:3]} "), "its title begins with its number"
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Context", "Decision", "Consequence", "Figures"]
    assert all(len(section.strip()) > 0 for section in re.split(r"^## \w+$", text, flags=re.MULTILINE))
    assert len(text.splitlines()) <= 50


def test_index_of_decisions_names_each_once_with_its_title():
    told = re.findall(r"^- \[(.*)\]\((.*)\)$", (ROOT / "docs" / "decisions" / "README.md").read_text(), re.MULTILINE)
    assert told == [(path.read_text().partition("\n")[0].removeprefix("# "), path.name) for path in DECISIONS]
