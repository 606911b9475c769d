"""A session of the recording (one data folder, one server, the command line) and the files of recorded answers.

`python -m tests.recording` writes the files anew.
"""

from __future__ import annotations

import datetime
import difflib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from tests.recording import admin_requests, batch_requests, cli_commands, inference_requests, refused_requests
from tests.recording.openapi import contract
from tests.recording.processes import CommandLine, Server
from tests.recording.setting import MODELS_TOML, Commands, learn_place, prepare
from tests.recording.shapes import Shapes
from tests.recording.wire import USUAL_HEADERS, Wire

FOLDER = Path(__file__).parent
MAX_LINE = 160
_INDENT = 1
_NUMBER = re.compile(r"(?<=^req_[0-9a-f]{32})-\d+$")
_PAID_REQUEST = "chat"
"""Name of the request that a command refunds."""

Recording = dict[str, Any]


def take() -> dict[str, Recording]:
    """Run a session; return the content of each recorded file, by the file's name."""
    with tempfile.TemporaryDirectory(prefix="inferd-recording-") as name:
        folder, shapes = Path(name), Shapes()
        learn_place(shapes, folder)
        (folder / "models.toml").write_text(MODELS_TOML)
        (folder / "data").mkdir(mode=0o700)
        commands = Commands(CommandLine(folder / "data"), shapes)
        try:
            return _take(folder, shapes, commands)
        finally:
            commands.line.close()


def _take(folder: Path, shapes: Shapes, commands: Commands) -> dict[str, Recording]:
    commands.json("plans", "apply", "--config", str(folder / "models.toml"))
    keys = prepare(commands)
    server = Server(folder / "models.toml", folder / "data")
    try:
        usage_lines = cli_commands.usage_lines(commands)
        wire = Wire(server.until_ready(), shapes, keys)
        request_id = ask(wire)
        waiting = batch_requests.waiting_batch(wire)
        cli_commands.beside_server(commands, request_id, waiting)
        batch_requests.until_ended(wire, waiting, "poor")
        wire.client.close()
    finally:
        status = server.stop()
    assert status == 0, "the server ends well"
    cli_commands.without_server(commands)
    cli_commands.wrong_invocations(commands)
    commands.json("statements", "pay", "post", "0.000001", "--month", _month(), "--note", "n", "--idempotency-key", "1")
    exported = export(commands)
    cli_commands.backups(commands)
    recorded = {"usual_headers": USUAL_HEADERS, "answers": wire.entries}
    return {"wire": recorded, "cli": {"commands": usage_lines, "answers": commands.entries}, "export": exported}


def ask(wire: Wire) -> str:
    """Send all requests; return the id of a priced one."""
    document = wire.send("GET /openapi.json", None)
    wire.entries.append({"name": "openapi", "status": document.status, "contract": contract(document.json)})
    inference_requests.chats(wire)
    inference_requests.structured(wire)
    inference_requests.texts(wire)
    inference_requests.responses(wire)
    inference_requests.messages(wire)
    inference_requests.tokens(wire)
    refused_requests.wrong_fields(wire)
    refused_requests.keys_and_rights(wire)
    refused_requests.money(wire)
    refused_requests.under_way(wire)
    refused_requests.rates(wire)
    refused_requests.http(wire)
    batch_requests.batches(wire)
    batch_requests.failed_batches(wire)
    batch_requests.cancelled_batches(wire)
    admin_requests.admin(wire)
    batch_requests.reports(wire)
    refused_requests.wrong_keys(wire)
    return wire.ids[_PAID_REQUEST]


def export(commands: Commands) -> Recording:
    """Return the ledger's records: of each kind the columns, and the rows in their order."""
    done = commands.line.run("ledger", "export")
    assert done.status == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    found: dict[str, Any] = {}
    for record in records:
        kind = record.pop("record")
        columns = found.setdefault(kind, {"columns": " ".join(record), "rows": []})
        assert columns["columns"] == " ".join(record), f"records of {kind} have the same fields"
        if isinstance(record.get("details"), str):
            record["details"] = json.loads(record["details"])
        shown = commands.shapes.of({name: without_number(value) for name, value in record.items()})
        columns["rows"].append([shown[column] for column in record])
    for each in found.values():
        each["rows"].sort(key=json.dumps)
    return found


def without_number(value: Any) -> Any:
    """Return a request's id without its number in its call: the prompts of one call end in any order."""
    return _NUMBER.sub("", value) if isinstance(value, str) else value


def _month() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m")


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


def text_of(value: Any) -> str:
    """Return a recording as JSON in which each value that fits into a line takes one line."""
    return _text_of(value, 0) + "\n"


def _text_of(value: Any, depth: int) -> str:
    compact = json.dumps(value, ensure_ascii=False)
    is_row = isinstance(value, list) and not any(isinstance(each, dict | list) and each for each in value)
    if not isinstance(value, dict | list) or is_row or len(compact) + depth <= MAX_LINE:
        return compact
    pad = " " * (depth + _INDENT)
    if isinstance(value, dict):
        opening, closing = "{}"
        items = [f"{json.dumps(key)}: {_text_of(each, depth + _INDENT)}" for key, each in value.items()]
    else:
        opening, closing = "[]"
        items = [_text_of(each, depth + _INDENT) for each in value]
    return opening + "\n" + ",\n".join(pad + item for item in items) + "\n" + " " * depth + closing


def difference(name: str, value: Any) -> str:
    """Return the diff between a recorded file and a session; empty if they are equal."""
    path = path_of(name)
    recorded = path.read_text().splitlines() if path.exists() else []
    lines = difflib.unified_diff(recorded, text_of(value).splitlines(), str(path.name), "now", n=6, lineterm="")
    return "\n".join(lines)
