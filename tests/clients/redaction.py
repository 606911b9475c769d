"""Removal of secrets, persons, machines and long texts from what a client sent."""

from __future__ import annotations

import json
import re
import socket
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 120
"""Characters of a text that stays whole."""
PREFIX = 60
MAX_PROTOCOL_TEXT = 2000
PROTOCOL_KEYS = frozenset({"$ref", "$schema", "const", "enum", "id", "model", "name", "pattern", "type", "tool_name"})
"""Keys of texts that a server reads and no person writes, so that a cut would change the request."""
KEPT_HEADERS = frozenset(
    {
        "accept",
        "content-encoding",
        "content-type",
        "conversation_id",
        "originator",
        "session-id",
        "session_id",
        "thread-id",
        "user-agent",
        "x-amp-thread-id",
        "x-app",
        "x-client-request-id",
        "x-litellm-session-id",
        "x-prompt-cache-isolation-key",
    }
)
KEPT_HEADER_PREFIXES = ("anthropic-", "openai-", "x-codex-", "x-openwebui-", "x-session-", "x-stainless-helper")
_SECRET_HEADERS = ("authorization", "x-api-key", "api-key", "proxy-authorization")
_SECRET = "sk-placeholder"


class Redaction:
    """Replaces what identifies a person, a machine or a session. Equal values get equal placeholders.

    Args:
        words: texts that the recording knows, such as folders, and their placeholders; longer ones go first.
    """

    def __init__(self, words: Mapping[str, str] | None = None) -> None:
        named = {socket.gethostname(): "host"} if len(socket.gethostname()) > 3 else {}
        self._words = named | dict(words or {})
        self._known: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that change what a server does, without secrets. Remembers the secrets of the others."""
        for name in _SECRET_HEADERS:
            if secret := headers.get(name, "").rpartition(" ")[2]:
                self._words[secret] = _SECRET
        kept = {}
        for name, value in sorted(headers.items()):
            if name in KEPT_HEADERS or name.startswith(KEPT_HEADER_PREFIXES):
                kept[name] = "User" if name.endswith("user-name") else self.text(value)
        return kept

    def value(self, value: Any, key: str = "") -> Any:
        """Return the JSON value without secrets and long texts."""
        if isinstance(value, dict):
            return {self.text(name): self.value(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, key) for item in value]
        return self._short(value, key) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """Return the text with placeholders for what identifies."""
        for word in sorted(self._words, key=len, reverse=True):
            text = text.replace(word, self._words[word])
        for pattern, kind in _PATTERNS:
            text = pattern.sub(lambda match, kind=kind: self._placeholder(kind, match), text)
        return text

    def _short(self, text: str, key: str) -> str:
        """Return the text, cut unless it is short or the protocol needs it; JSON in it stays JSON."""
        limit = MAX_PROTOCOL_TEXT if key in PROTOCOL_KEYS else MAX_TEXT
        if text[:1] in ("{", "["):
            try:
                return json.dumps(self.value(json.loads(text)), ensure_ascii=False)
            except ValueError:
                pass
        if _is_base64(text) and len(text) > limit:
            return text[: PREFIX // 4 * 4]
        clean = self.text(text)
        return clean if len(text) <= limit else f"{clean[:PREFIX]}… [{len(text)} characters]"

    def _placeholder(self, kind: str, match: re.Match[str]) -> str:
        found = match[0]
        if kind == "home":
            return "/home/user"
        if kind == "secret":
            return _SECRET
        known = self._known[kind]
        number = int(known.setdefault(found, str(len(known) + 1)))
        if kind == "uuid":
            return f"00000000-0000-4000-8000-{number:012}"
        if kind == "hex":
            return f"{number:0{len(found)}x}"
        if kind == "email":
            return f"user{number}@example.com"
        if kind == "temp":
            return f"/tmp/{number}/{found.rpartition('/')[2]}"
        return f"{match['prefix']}{number}"


_PATTERNS = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"\b(?:(?:sk|pk|ghp|gho|ghu|ghs|github_pat|hf|xox[abp])[-_]|AKIA)(?=[\w-]*\d)[\w-]{16,}", "secret"),
        (r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*", "secret"),
        (r"(?i)(?<![a-z0-9])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![a-z0-9])", "uuid"),
        (r"[\w.+-]+@(?!example\.com)[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b", "email"),
        (r"(?:/home/(?!user\b)|/Users/)[^/\s\"'\\<>:]+|/root(?=/|\b)", "home"),
        (r"(?:/private)?/(?:tmp|var/folders)(?!/\d+/)(?:/[\w.+-]+)+", "temp"),
        (r"\b(?P<prefix>[a-z]{2,12}[_-])(?=[A-Za-z0-9]*\d)[A-Za-z0-9]{14,}(?![A-Za-z0-9])", "id"),
        (r"(?<![A-Za-z0-9])(?=[a-f]*\d)(?!0{8})[0-9a-f]{16,}(?![A-Za-z0-9])", "hex"),
    )
)


def _is_base64(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9+/=_-]+", text)) or text.startswith("data:")
