"""docs/operating.md can be followed: every command in it is run, in its order, on one ledger and a running server.

A line after a command is what its output has. `curl` goes to the server of the tests, whose model computes nothing.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import httpx

from tests.serving import provider as provider_module
from tests.serving.provider import running_provider

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operating.md"
STOP = "## Restore"


def steps(text: str) -> list[tuple[str, list[str]]]:
    """(command, lines of its output that the page shows)."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line:
                found[-1][1].append(line)
    return found


class Reader:
    """Somebody who follows the page."""

    def __init__(self, inferd):
        self.inferd = inferd
        self.environment: dict[str, str] = {}
        self.output = ""

    def words(self, command: str) -> list[str]:
        """As a shell would split it; `...` stands for what was seen before."""
        expanded = re.sub(r"\$(\w+)", lambda name: self.environment[name[1]], command)
        return shlex.split(expanded)

    def seen(self, text: str) -> str:
        """`sk-inferd-...` -> the last such thing that a command printed."""
        found = re.findall(re.escape(text.removesuffix("...")) + r"[\w-]+", self.output)
        assert found, f"nothing like {text} was printed"
        return found[-1]

    async def run(self, command: str, client: httpx.AsyncClient | None) -> str:
        program, *words = self.words(command)
        if program == "export":
            name, _, value = words[0].partition("=")
            self.environment[name] = self.seen(value)
            return ""
        if program == "curl":
            assert client is not None, "the server runs"
            url, *options, _, body = words
            headers = dict(header.split(": ") for header in options[1::2])
            response = await client.post(url.removeprefix("http://127.0.0.1:8000"), content=body, headers=headers)
            error = response.json().get("error", {})
            return f"HTTP {response.status_code} {error.get('code', '')}"
        assert program == "inferd", f"the page has a command that nobody can run: {command}"
        done = self.inferd(*words)
        assert done.status == 0, f"{command}: {done.err}"
        self.output += done.out
        return done.out

    async def follow(self, text: str, client: httpx.AsyncClient | None) -> int:
        taken = steps(text)
        for command, expected in taken:
            output = await self.run(command, client)
            for line in expected:
                assert line in output, f"{command}: {output}"
        return len(taken)


def test_operating_page_runs_as_written(inferd, tmp_path, monkeypatch):
    for name, value in {
        "PRICED": "local/smollm2-135m",
        "INPUT_NANOUSD": 100,
        "OUTPUT_NANOUSD": 400,
    }.items():
        monkeypatch.setattr(provider_module, name, value)
    monkeypatch.chdir(tmp_path)
    served, _, stopped = PAGE.read_text(encoding="utf-8").partition(STOP)
    reader = Reader(inferd)

    async def run() -> int:
        async with running_provider(tmp_path, monkeypatch) as provider:
            count = await reader.follow(served, provider.client)
        return count + await reader.follow(stopped, None)

    assert asyncio.run(run()) > 25
