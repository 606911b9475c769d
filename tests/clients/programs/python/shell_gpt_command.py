"""shell-gpt's command, as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import runner
from runner import HELLO, MODEL

SGPT = str(Path(sys.executable).with_name("sgpt"))


def sgpt(*arguments: str, key: str = runner.KEY) -> subprocess.CompletedProcess[str]:
    settings = {
        "API_BASE_URL": f"{runner.BASE_URL}/v1",
        "OPENAI_API_KEY": key,
        "DEFAULT_MODEL": MODEL,
        "PRETTIFY_MARKDOWN": "false",
        "OPENAI_USE_FUNCTIONS": "false",
        "CACHE_PATH": "cache",
        "CHAT_CACHE_PATH": "chats",
        "SHOW_FUNCTIONS_OUTPUT": "false",
    }
    environment = {**os.environ, **settings}
    return subprocess.run(
        [SGPT, "--no-cache", *arguments], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout.strip()


def error(key: str) -> list[str]:
    """Return the class of the error that the command shows."""
    told = sgpt(HELLO, key=key).stderr
    return [name for name in ("AuthenticationError", "APIStatusError", "RateLimitError") if name in told]


if __name__ == "__main__":
    runner.report(
        stream=said(sgpt(HELLO)),
        usage=[],
        errors={status: error(key) for status, key in runner.WRONG_KEYS.items() if status != "429"},
    )
    runner.vary(
        [
            lambda: sgpt("--temperature", "0.5", "--top-p", "0.9", HELLO),
            lambda: sgpt("--code", "print one"),
            lambda: sgpt("--describe-shell", "ls -la"),
            lambda: sgpt("--chat", "a", HELLO),
            lambda: sgpt("--chat", "a", "And you?"),
            lambda: sgpt("--shell", "--no-interaction", "list files"),
        ]
    )
