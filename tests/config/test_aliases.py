"""`[aliases]`: exact names, patterns, and faults."""

from __future__ import annotations

import pytest

from inferd.config import Aliases
from tests.config.toml_files import DEPLOYMENT, MODEL, complaint, load

FILE = MODEL + DEPLOYMENT + DEPLOYMENT.replace("o/d", "o/other") + "[aliases]\n"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("gpt-4o-mini", "exact"),
        ("gpt-4o", "trailing"),
        ("gpt-", "trailing"),
        ("gpt-4o-turbo", "inner"),
        ("gpt-turbo", "inner"),
        ("GPT-4o", None),
        ("o/d", None),
        ("gpt-4*", "trailing"),
        ("a", None),
        ("aa", "overlap"),
    ],
)
def test_alias_resolves_exactly_then_by_the_longest_pattern(name, target):
    aliases = Aliases({"gpt-*": "trailing", "gpt-*turbo": "inner", "gpt-4o-mini": "exact", "a*a": "overlap"})
    assert aliases.target(name) == target


def test_alias_of_a_star_takes_every_name_that_nothing_else_takes():
    aliases = Aliases({"*": "any", "x": "exact", "x*": "longer"})
    assert [aliases.target(name) for name in ("", "y", "x", "xy")] == ["any", "any", "exact", "longer"]


def test_aliases_of_a_deployment_keep_the_files_order(tmp_path):
    config = load(tmp_path, FILE + '"z-*" = "o/d"\n"gpt-4o" = "o/other"\n"claude-3.5" = "o/d"\na = "o/d"\n')
    assert config.aliases.of("o/d") == ("z-*", "claude-3.5", "a")
    assert config.aliases.of("o/other") == ("gpt-4o",)
    assert load(tmp_path, MODEL + DEPLOYMENT).aliases.of("o/d") == ()


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ('x = "o/f"', "x", 'there is no [deployments."o/f"]; did you mean "o/d"?'),
        ('x = "nothing-alike"', "x", "there is no [deployments.nothing-alike] (known: o/d, o/other)"),
        ('"o/d" = "o/other"', '"o/d"', 'is a deployment too; remove it, or rename [deployments."o/d"]'),
        ('x = "o/d"\ny = "x"', "y", "x is an alias: name the deployment behind it"),
        ("x = 1", "x", "expected the name of a deployment, got an integer"),
        ('claude-3.5 = "o/d"', "claude-3", "expected a string, got a table: write a name with dots in quotes"),
        ('"a*b*" = "o/d"', '"a*b*"', "at most one of them a '*'"),
        ('"" = "o/d"', '""', "1 to 128 printable ASCII characters"),
        ('"a b" = "o/d"', '"a b"', "without spaces"),
        (f'{"a" * 129} = "o/d"', "a" * 129, "1 to 128 printable ASCII characters"),
    ],
)
def test_alias_that_is_wrong_is_refused_by_name(tmp_path, line, key, said):
    message = complaint(tmp_path, FILE + line + "\n")
    assert message.startswith(f"[aliases] {key}: ")
    assert said in message


def test_aliases_that_are_no_table_are_refused(tmp_path):
    assert complaint(tmp_path, "aliases = 1\n") == "aliases: expected a table, got an integer"


def test_table_whose_name_is_nearly_aliases_is_asked_about(tmp_path):
    assert "did you mean aliases?" in complaint(tmp_path, '[alias]\nx = "o/d"\n')
