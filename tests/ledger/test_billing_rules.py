"""docs/billing.md: each rule has a test, and what it says of the export is what the code does."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from inferd.ledger import operations
from inferd.ledger.maintenance.retention import RollUpUsage
from inferd.ledger.reports.export import export_lines
from inferd.ledger.storage.rows import FORMATS
from tests.ledger.every_record import move_everything

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "billing.md").read_text(encoding="utf-8")


def named_tests() -> dict[str, list[str]]:
    """Rule id -> the tests whose docstring names it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for rule in re.findall(r"\bR\d+\b", ast.get_docstring(node) or ""):
                    found.setdefault(rule, []).append(f"{path.name}::{node.name}")
    return found


def test_every_rule_of_the_document_has_a_test():
    rules = re.findall(r"^\*\*(R\d+) ", DOCUMENT, re.MULTILINE)
    assert len(rules) == len(set(rules)) > 0
    untested = set(rules) - named_tests().keys()
    assert not untested


def documented_tables(section: str) -> dict[str, list[str]]:
    """First cell -> the words in backquotes of the others, or the bare words if there are none."""
    rows = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rest = " ".join(re.sub(r"\([^)]*\)", "", cell) for cell in cells[1:])
            rows[cells[0].strip("`")] = re.findall(r"`(\w+)`", rest) or re.findall(r"\w+", rest)
    return rows


def test_the_documented_fields_are_those_of_the_export(books):
    books.grant(100)
    books.settle(books.hold(1, 1), 1, 1)
    books.apply(RollUpUsage(books.now_ms + 1, books.now_ms))
    books.settle(books.hold(1, 1), 1, 1)
    books.conn.execute("INSERT INTO users VALUES ('acme', 'ada', 1, 'test')")
    move_everything(books)
    operations.set_budget(books.conn, "acme", 10**12, "day", by=operations.Author("test", books.now_ms))
    operations.suspend(books.conn, "user", ("acme", "ada"), by=operations.Author("test", 1))
    export, _, _ = DOCUMENT.partition("## Export")[2].partition("**To refold it:**")
    documented = documented_tables(export)
    for line in export_lines(books.conn, now_ms=1):
        record = json.loads(line)
        name = record.pop("record")
        if name == "ledger":
            continue
        assert sorted(documented[name]) == sorted(record), name
    assert documented.keys() == {json.loads(line)["record"] for line in export_lines(books.conn, now_ms=1)} - {"ledger"}


def test_the_documented_checksums_are_those_of_the_code():
    documented = documented_tables(DOCUMENT.partition("**Checksums.**")[2])
    assert documented == {table: list(FORMATS[table].covered) for table in documented}
    assert documented.keys() == FORMATS.keys() - {"keys", "idempotency"}
