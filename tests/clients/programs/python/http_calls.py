"""Requests by the standard library, for callers whose server or program is too large to install."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import runner


class StatusError(Exception):
    """An answer of 400 or above."""


def send(path: str, body: dict[str, Any] | None, key: str = runner.KEY, **headers: str) -> str:
    """Return the text of the answer. Header names have underscores for hyphens. Raises StatusError."""
    request = urllib.request.Request(f"{runner.BASE_URL}{path}", method="GET" if body is None else "POST")
    request.add_header("Authorization", f"Bearer {key}")
    request.add_header("Content-Type", "application/json")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, data) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        raise type(f"Status{error.code}", (StatusError,), {})(error.read().decode()) from None


def streamed(text: str) -> list[dict[str, Any]]:
    """Return the chunks of a streamed chat."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def content_of(chunks: list[dict[str, Any]]) -> str:
    """Return the content of a streamed chat."""
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
