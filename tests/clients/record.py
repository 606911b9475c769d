"""`scripts/record-client`: the traffic of a client as a fixture without secrets."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.clients.fixtures import FOLDER, Recorded, read, write
from tests.clients.recorder import recording
from tests.clients.redaction import Redaction

_WITH_V1 = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_BASE_URL", "OPENAI_API_BASE_URLS")
_WITHOUT_V1 = ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "OLLAMA_HOST", "RECORDER_URL")

HELP = """\
Record what a client sends to a server, as tests/clients/recorded/NAME.jsonl.

  scripts/record-client llm -- llm -m local/smollm2-135m hello
  scripts/record-client zed --listen 8001 --to http://127.0.0.1:8000

The first form runs a command with a base URL that leads through the recorder: OPENAI_BASE_URL,
OPENAI_API_BASE and the like have /v1 at their end; ANTHROPIC_BASE_URL, OLLAMA_HOST and RECORDER_URL
do not. In the command's arguments RECORDER_URL is replaced, too:

  scripts/record-client curl -- curl RECORDER_URL/v1/models -H "Authorization: Bearer $OPENAI_API_KEY"

The second form waits for requests of a client that you point at the port, until Ctrl-C. Both add to
the file; --new begins it anew. A request that equals an earlier one after redaction is left out."""

EPILOG = """\
What is kept: method, path, the headers that a server acts on (never a key or a cookie), the body, and of
the answer its status, its inferd-ignored header, and the types of its events or values. Texts above 120
characters are cut to 60 and their length. Keys, ids, UUIDs, e-mail addresses, home and temporary folders
become placeholders, equal ones the same. Read the file before you commit it."""


def main(arguments: list[str]) -> int:
    """Record, and return an exit status: that of the command if there is one."""
    parser = argparse.ArgumentParser(
        prog="scripts/record-client",
        usage="scripts/record-client NAME [--to URL] [--listen PORT] [--new] [-- COMMAND...]",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="of the client: letters, digits, dots and hyphens")
    parser.add_argument("--to", metavar="URL", default="http://127.0.0.1:8000", help="server, without /v1; %(default)s")
    parser.add_argument("--listen", metavar="PORT", type=int, default=0, help="port of the recorder; default: any free")
    parser.add_argument("--new", action="store_true", help="forget what the file has")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = parser.parse_args(arguments[:split]), arguments[split + 1 :]
    if not re.fullmatch(r"[\w.-]+", options.name):
        parser.error(f"NAME has letters, digits, dots and hyphens; got '{options.name}'")
    if not command and not options.listen:
        parser.error("give --listen PORT, or a command behind --")
    path = FOLDER / f"{options.name}.jsonl"
    earlier = read(path) if path.exists() and not options.new else []
    with recording(options.to.removesuffix("/").removesuffix("/v1"), options.listen) as recorder:
        status = _run(command, recorder.base_url) if command else _wait(recorder.base_url, options.to)
        exchanges = recorder.exchanges
    redaction = Redaction({str(Path.cwd()): "/home/user/project", str(Path.home()): "/home/user"})
    num_requests = write(path, [*earlier, *(Recorded.of(exchange, redaction) for exchange in exchanges)])
    refused = sum(exchange.status >= 400 for exchange in exchanges)
    print(
        f"{len(exchanges)} requests, {refused} of them refused; {num_requests} different ones in {path}",
        file=sys.stderr,
    )
    return status


def _run(command: list[str], base_url: str) -> int:
    """Run the command and return its exit status."""
    environment = os.environ | dict.fromkeys(_WITHOUT_V1, base_url) | dict.fromkeys(_WITH_V1, f"{base_url}/v1")
    words = [word.replace("RECORDER_URL", base_url) for word in command]
    try:
        return subprocess.run(words, env=environment, check=False).returncode
    except FileNotFoundError:
        print(f"scripts/record-client: there is no command '{command[0]}'", file=sys.stderr)
        return 127


def _wait(base_url: str, to: str) -> int:
    """Wait for Ctrl-C."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    print(f"recording {base_url} -> {to}; Ctrl-C ends it", file=sys.stderr)
    ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
