"""Tables for people: their width on a terminal, and what they leave out to keep it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from inferd.cli import output
from inferd.cli.output import print_fields, print_table

NAMES = ("Team", "Plan", "Requests made", "Cost", "Note")


@pytest.fixture
def shown(capsys, monkeypatch):
    """`shown(width, ...)` prints a table on a terminal of that width, and returns its lines."""

    def show(width, rows, **options):
        monkeypatch.setattr(output, "_terminal_width", lambda: width)
        print_table(NAMES, rows, right=("Requests made", "Cost"), **options)
        return capsys.readouterr().out.splitlines()

    return show


def test_table_that_fits_has_all_columns_with_a_value(shown):
    rows = [("acme", "free", 1200, "$5.00", None), ("bio", "free", 7, "$0.0000047", None)]
    assert shown(80, rows) == [
        "Team  Plan  Requests made        Cost",
        "────  ────  ─────────────  ──────────",
        "acme  free          1,200       $5.00",
        "bio   free              7  $0.0000047",
    ]


def test_table_without_a_terminal_has_all_columns(shown):
    heading, _, row = shown(None, [("acme", "free", 1, "$5.00", None)])
    assert heading.split("  ")[0] == "Team"
    assert row.split() == ["acme", "free", "1", "$5.00", "-"]


def test_table_too_wide_breaks_headings_then_names_constant_columns_once(shown):
    rows = [("acme", "free", 1200, "$5.00", None), ("bio", "free", 7, "$0.0000047", None)]
    assert shown(32, rows)[:3] == [
        "            Requests",
        "Team  Plan      made        Cost",
        "────  ────  ────────  ──────────",
    ]
    assert shown(28, rows) == [
        "      Requests",
        "Team      made        Cost",
        "────  ────────  ──────────",
        "acme     1,200       $5.00",
        "bio          7  $0.0000047",
        "",
        "In every row: Plan free.",
    ]


def test_table_too_wide_wraps_the_column_that_may_be_wrapped(shown):
    rows = [("acme", "free", 1, "$5.00", "one two three four five"), ("bio", "pro", 2, "$6.00", "six")]
    assert shown(45, rows, wrap=("Note",))[2:] == [
        "────  ────  ────────  ─────  ────────────────",
        "acme  free         1  $5.00  one two three",
        "                             four five",
        "bio   pro          2  $6.00  six",
    ]


def test_table_that_cannot_fit_prints_a_block_for_each_row_and_the_total(shown):
    rows = [("acme", "free", 1, "$5.00", None), ("a-much-longer-name", "pro", 2, "$6.00", "six")]
    assert shown(24, rows, total=("Total", "", 3, "$11.00", "")) == [
        "Team:           acme",
        "Plan:           free",
        "Requests made:  1",
        "Cost:           $5.00",
        "",
        "Team:           a-much-longer-name",
        "Plan:           pro",
        "Requests made:  2",
        "Cost:           $6.00",
        "Note:           six",
        "",
        "Team:           Total",
        "Requests made:  3",
        "Cost:           $11.00",
    ]


def test_fields_wrap_and_wide_characters_count_twice(capsys, monkeypatch):
    monkeypatch.setattr(output, "_terminal_width", lambda: 20)
    print_fields({"Note": "one two three four", "Name": "猫猫猫猫猫猫猫猫"})
    assert capsys.readouterr().out.splitlines() == [
        "Note  one two three",
        "      four",
        "Name  猫猫猫猫猫猫猫",
        "      猫",
    ]


def test_control_characters_are_replaced(shown):
    assert shown(80, [("a\x1b[31m", "p", 1, "$1.00", "x\ny")])[2].split() == [
        "a\ufffd[31m",
        "p",
        "1",
        "$1.00",
        "x\ufffdy",
    ]


LISTS = (
    *("teams list", "teams show acme", "keys list", "budgets list acme", "credits list acme", "credits show acme"),
    *("batches list", "plans list", "tiers list", "statements list", "statements show acme", "log", "alerts"),
    *("models list", "models list -v", "doctor", "projects list acme", "users list acme", "usage"),
    *(f"usage --by {by}" for by in ("day", "project", "user", "key", "team", "service_tier", "request")),
)


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("words", LISTS)
def test_list_commands_fit_80_columns(inferd, monkeypatch, words):
    inferd("teams", "create", "physics-department", "--plan", "academic")
    inferd("users", "create", "acme", "alexandra.longname@physics.example.edu")
    user = ("--user", "alexandra.longname@physics.example.edu")
    inferd("keys", "create", "--team", "acme", *user, "--name", "the laptop", "--model", "local/smollm2-135m")
    inferd("budgets", "set", "acme", "0.000011", "--by", "lifetime")
    inferd("budgets", "set", "acme", "1234.5", *user)
    inferd("budgets", "raise", "acme", "0.000000001", "--until", "2100-01-01", "--reason", "a trade fair " * 9)
    inferd("credits", "grant", "acme", "10", "--expires", "2100-01-01", "--note", "the invoice 2026-117 " * 5)
    inferd("credits", "refund", "req-october", "0.000000001", "--reason", "a bad answer")
    monkeypatch.setattr(output, "_terminal_width", lambda: 80)
    shown = inferd(*words.split())
    assert shown.out
    commands = {line for line in shown.out.splitlines() if "--data-dir" in line or "usage is written to" in line}
    assert {line for line in shown.out.splitlines() if len(line) > 80} <= commands, "only what is to be pasted is wider"


def test_table_in_a_real_terminal_is_as_wide_as_the_terminal(inferd, data_dir):
    inferd("teams", "create", "acme")
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    command = "import sys; from inferd.cli.main import main; sys.exit(main())"
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    running = subprocess.Popen(
        [sys.executable, "-c", command, "teams", "show", "acme", "--data-dir", str(data_dir)],
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        env=environ,
    )
    os.close(its_end)
    parts = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:  # the end of a terminal
        pass
    finally:
        os.close(terminal)
    assert running.wait() == 0
    lines = b"".join(parts).decode().replace("\r\n", "\n").splitlines()
    assert max(len(line) for line in lines if "--data-dir" not in line) <= 60
    assert sum(set(line.replace(" ", "")) == {"─"} for line in lines) >= 2, "limits and credit are tables"
