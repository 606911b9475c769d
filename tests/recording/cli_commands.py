"""Commands on the ledger after the requests, wrong invocations, and the names of all options."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from tests.recording.setting import FAR, Commands

GROUPS = ("model", "day", "project", "user", "key", "team", "service_tier", "request")
CSV = (
    ("usage", "--by", "project", "--csv"),
    ("statements", "list", "--csv"),
    ("statements", "show", "post", "--csv"),
    ("plans", "list", "--csv"),
    ("tiers", "list", "--csv"),
)


def beside_server(commands: Commands, request_id: str, batch_id: str) -> None:
    """Commands while the server runs.

    Args:
        request_id: id of a priced request of team acme.
        batch_id: id of a batch that waits for credit.
    """
    for group in GROUPS:
        commands.json("usage", "--by", group, any_order=group in ("key", "request"))
    commands.json("usage", "--team", "acme", "--since", FAR)
    refund = ("credits", "refund", request_id, "0.000001", "--reason", "bad", "--idempotency-key", "r")
    commands.json(*refund)
    commands.json(*refund)
    commands.json("credits", "refund", request_id, "--reason", "rest")
    commands.json("batches", "list", "poor", "--limit", "5")
    commands.json("batches", "list", "acme")
    commands.json("batches", "show", batch_id)
    commands.json("doctor")
    commands.json("audit")
    wrong(commands, "restore", str(commands.line.data_dir.parent / "none.db"))
    wrong(commands, "serve", "--config", str(commands.line.data_dir.parent / "models.toml"), "--port", "0")
    commands.json("batches", "cancel", batch_id)


def without_server(commands: Commands) -> None:
    config = ("--config", str(commands.line.data_dir.parent / "models.toml"))
    for arguments in (
        ("models", "list", *config),
        ("models", "check", *config),
        ("plans", "list"),
        ("plans", "apply", *config),
        ("tiers", "list"),
        ("teams", "list"),
        ("teams", "show", "acme"),
        ("teams", "show", "pupils"),
        ("teams", "set", "acme", "--overage", "postpaid", "--payment-method", "on"),
        ("teams", "set", "pupils", "--tier", "earned", "--plan", "free"),
        ("teams", "resume", "frozen"),
        ("teams", "resume", "frozen"),
        ("projects", "list", "acme"),
        ("projects", "set", "tight", "inference", "--concurrency", "plan"),
        ("projects", "suspend", "acme", "website", "--reason", "over budget"),
        ("projects", "resume", "acme", "website"),
        ("users", "list", "acme"),
        ("users", "set", "acme", "bob", "--concurrency", "plan"),
        ("users", "suspend", "acme", "bob"),
        ("users", "resume", "acme", "bob"),
        ("keys", "list"),
        ("keys", "list", "--team", "acme"),
        ("keys", "suspend", commands.ids["spent"], "--reason", "leaked"),
        ("keys", "resume", commands.ids["spent"]),
        ("credits", "show", "acme"),
        ("credits", "show", "post"),
        ("credits", "list", "acme"),
        ("credits", "withdraw", "acme", "1", "--reason", "left", "--idempotency-key", "w"),
        ("credits", "void", "4", "--reason", "wrong team"),
        ("budgets", "list", "acme"),
        ("budgets", "remove", "acme", "--project", "capped"),
        ("statements", "list"),
        ("statements", "list", "post"),
        ("statements", "show", "post"),
        ("alerts",),
        ("alerts", "--team", "tight"),
        ("log",),
        ("log", "--team", "acme", "--action", "credits", "--limit", "2"),
        ("doctor", "--no-server", "--accept-clock"),
        ("audit",),
    ):
        commands.json(*arguments)
    for arguments in CSV:
        as_csv(commands, arguments)


def backups(commands: Commands) -> None:
    """Back up, change, restore. Runs last: a restore drops every later change."""
    file = str(commands.line.data_dir.parent / "backup.db")
    commands.json("backup", file)
    commands.json("teams", "create", "late")
    commands.json("credits", "grant", "late", "2")
    commands.json("restore", file)
    commands.json("restore", file, "--yes")
    commands.json("audit")
    wrong(commands, "backup", file)


def as_csv(commands: Commands, arguments: tuple[str, ...]) -> None:
    done = commands.line.run(*arguments)
    rows = [{name: number(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(done.stdout))]
    commands.keep(arguments, {"status": done.status, "rows": commands.shapes.of(rows)})


def number(text: str) -> Any:
    """Return a whole number as an int, any other text as it is."""
    return int(text) if text.isdecimal() and len(text) < 16 else text


def wrong(commands: Commands, *arguments: str) -> None:
    """Record the exit status of a command that fails, and the streams that it wrote to."""
    done = commands.line.run(*arguments)
    assert done.status != 0, f"{arguments} was to fail: {done.stdout}"
    streams = [name for name in ("stdout", "stderr") if getattr(done, name)]
    commands.keep(arguments, {"status": done.status, "writes_to": streams})


def wrong_invocations(commands: Commands) -> None:
    file = commands.line.data_dir.parent / "no-backup.db"
    file.write_text("no ledger")
    for arguments in (
        (),
        ("team",),
        ("teams",),
        ("teams", "create"),
        ("teams", "create", "acme"),
        ("teams", "create", "a b"),
        ("teams", "create", "gamma", "--plan", "gold"),
        ("teams", "show", "gamma"),
        ("teams", "list", "--colour"),
        ("teams", "set", "acme", "--tier", "9"),
        ("teams", "set", "acme", "--until", FAR),
        ("projects", "create", "acme", "website"),
        ("projects", "set", "acme", "website"),
        ("users", "create", "gamma", "eve"),
        ("keys", "create"),
        ("keys", "create", "--team", "acme", "--scope", "root"),
        ("keys", "create", "--team", "acme", "--expires", "2001-01-01"),
        ("keys", "revoke", "nosuchkey123"),
        ("credits", "grant", "acme", "much"),
        ("credits", "grant", "acme", "0"),
        ("credits", "grant", "acme", "1", "--expires", "soon"),
        ("credits", "grant", "acme", "11", "--idempotency-key", "first"),
        ("credits", "refund", "req_1", "--reason", "x"),
        ("credits", "refund", "req_1"),
        ("credits", "withdraw", "acme", "1000000", "--reason", "x"),
        ("credits", "void", "999", "--reason", "x"),
        ("budgets", "set", "acme", "1", "--by", "hour"),
        ("budgets", "set", "acme", "1", "--project", "website", "--user", "bob"),
        ("budgets", "remove", "acme", "--by", "year"),
        ("statements", "pay", "acme"),
        ("statements", "show", "acme", "--month", "13"),
        ("usage", "--by", "colour"),
        ("usage", "--json", "--csv"),
        ("log", "--limit", "0"),
        ("batches", "show", "batch_1"),
        ("models", "check", "--config", "nowhere.toml"),
        ("models", "check", "--strict", "--config", "models.toml"),
        ("doctor",),
        ("restore", str(file), "--yes"),
        ("ledger", "export", "nowhere/books.jsonl"),
        ("audit", "extra"),
    ):
        wrong(commands, *arguments)
    done = commands.line.bare("audit", "--data-dir", str(Path("nowhere")))
    streams = [name for name in ("stdout", "stderr") if getattr(done, name)]
    commands.keep(("audit", "--data-dir", "nowhere"), {"status": done.status, "writes_to": streams})


_OPTION = re.compile(r"^│\s+(?P<required>\*\s+)?(?P<names>-\S+(?:\s+-\S+)*)")
_COMMAND = re.compile(r"^│ (?P<name>[a-z]\S*)\s")


def usage_lines(commands: Commands, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return, for each command, its arguments and the names of its options, as its `--help` has them."""
    done = commands.line.bare(*path, "--help")
    assert done.status == 0, done.stderr
    _, _, usage = next(line for line in done.stdout.splitlines() if "Usage:" in line).partition("Usage: ")
    panels = re.findall(r"^╭─ (.*?) ─+╮$(.*?)^╰", done.stdout, re.MULTILINE | re.DOTALL)
    options: list[str] = []
    below: list[str] = []
    for title, panel in panels:
        for line in panel.splitlines():
            if found := _OPTION.match(line):
                options.append(" ".join(found["names"].split()) + (" (required)" if found["required"] else ""))
            elif title not in ("Options", "Arguments") and (found := _COMMAND.match(line)):
                below.append(found["name"])
    named = {" ".join(usage.split()): sorted(options)}
    for name in sorted(below):
        named |= usage_lines(commands, (*path, name))
    return named
