"""Rules of a grammar in llguidance's Lark, put together one by one."""

from __future__ import annotations

import json


def literal(text: str) -> str:
    """An expression that matches just this text; "" matches nothing and says nothing."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def regex_of(text: str) -> str:
    """A regular expression that matches just this text, to stand between slashes."""
    return "".join(character if character.isalnum() else f"\\x{{{ord(character):x}}}" for character in text)


class LarkRules:
    """Every rule is named once."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}

    def has(self, name: str) -> bool:
        return name in self._rules

    def add(self, name: str, body: str, *, lazy: bool = False) -> str:
        """`lazy`: one lexeme that ends at its first match. Returns the name without its attributes."""
        assert name not in self._rules, f"two rules are named {name}"
        self._rules[name] = f"{name}{'[lazy]' if lazy else ''}: {body}"
        return name

    def text(self) -> str:
        return "\n".join(self._rules.values()) + "\n"
