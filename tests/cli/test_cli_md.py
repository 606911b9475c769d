"""docs/cli.md has the help of every command; `python tests/cli/test_cli_md.py` generates that part."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from inferd.cli.main import CONFIG_STATUS, OPERATION_STATUS, app, main
from inferd.cli.output import BROKEN_PIPE_STATUS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
# Of 80 columns, the list of commands leaves 64 for the first line of each, and a code block 76.
MAX_FIRST_LINE = 64
MAX_EXAMPLE = 76
MARK = "<!-- What follows is written by `python tests/cli/test_cli_md.py` from the program. -->\n"


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (`inferd keys create`, its command) for this command and all below it, groups first."""
    yield path, command
    below = getattr(command, "commands", {})
    for name, each in below.items():
        yield from commands(each, f"{path} {name}")


COMMANDS = dict(commands(get_command(app), "inferd"))


def section(path: str, command: Any) -> str:
    """Return a heading, the usage line, the help text, and a table of arguments and options."""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    words = [argument.metavar if argument.required else f"[{argument.metavar}]" for argument in arguments]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *words])
    is_group = hasattr(command, "commands")
    paragraphs = inspect.cleandoc(command.help).split("\n\n")
    help_text = "\n\n".join(each if each.startswith("```") else textwrap.fill(each, 120) for each in paragraphs)
    parts = [f"{'##' if is_group else '###'} {path}", help_text]
    if not is_group:
        parts.insert(1, f"    {usage}")
    if command.params:
        rows = [f"| `{escaped(title(each))}` | {escaped(description(each))} |" for each in (*arguments, *options)]
        parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def title(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    value = "" if is_flag(parameter) else f" {parameter.metavar or parameter.name.upper()}"
    return ", ".join(parameter.opts) + value


def description(parameter: Any) -> str:
    default = None if is_flag(parameter) or parameter.default is None else f"Default: {parameter.default}."
    required = "Required." if parameter.required and parameter.param_type_name == "option" else None
    return " ".join(filter(None, (parameter.help, default, required)))


def is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def escaped(text: str) -> str:
    """Return the text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def generated() -> str:
    return "\n".join(section(path, command) for path, command in COMMANDS.items())


def test_page_equals_help_of_all_commands():
    _, _, rest = PAGE.read_text().partition(MARK)
    assert rest == "\n" + generated(), "run `python tests/cli/test_cli_md.py`, and read what it changes"


@pytest.mark.parametrize("path", COMMANDS)
def test_help_of_command_explains_every_parameter(path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as end:
        main([*path.split()[1:], "--help"])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    first_sentence = COMMANDS[path].help.split("\n\n")[0]
    assert " ".join(first_sentence.replace("`", "").split()) in shown
    for parameter in COMMANDS[path].params:
        assert parameter.help, f"{path} does not explain {title(parameter)}"
        assert title(parameter).split()[0].rstrip(",") in shown


@pytest.mark.parametrize("path", COMMANDS)
def test_help_of_command_fits_80_columns(path):
    first_line, *_ = COMMANDS[path].help.split("\n\n")
    assert len(first_line) <= MAX_FIRST_LINE, first_line
    assert "\n" not in first_line
    examples = [line for line in inspect.cleandoc(COMMANDS[path].help).splitlines() if line.startswith("$ ")]
    assert [line for line in examples if len(line) > MAX_EXAMPLE] == []


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_command_has_data_dir_example_and_json(path):
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert "--data-dir" in options
    assert f"{path}" in COMMANDS[path].help, "an example teaches"
    # `serve` prints no result, and `ledger export` always prints JSON Lines.
    assert "--json" in options or path in {"inferd serve", "inferd ledger export"}


def test_page_has_every_exit_status():
    for status in (0, OPERATION_STATUS, CONFIG_STATUS, 130, BROKEN_PIPE_STATUS):
        assert f"| {status} |" in PAGE.read_text()


@pytest.mark.usefixtures("used")
def test_page_has_every_field_of_json(inferd):
    page = PAGE.read_text()
    printed = [
        inferd(*words.split(), "--json").json
        for words in (
            *("teams create beta", "teams show acme", "projects create acme p", "users create acme u"),
            *("keys create --team acme", "credits grant acme 1", "credits show acme", "usage --by request", "audit"),
            *("teams set acme --tier 2", "budgets set acme 9", "budgets list acme", "budgets remove acme"),
            *("budgets raise acme 1 --until 2100-01-01 --reason x", "credits list acme", "statements show acme"),
            *("credits refund req-october 0.000001 --reason x", "credits withdraw acme 1 --reason x"),
            *("credits void 1 --reason x", "statements list"),
            *("models list", "plans list", "plans apply", "tiers list", "projects set acme p --concurrency 9"),
        )
    ]
    missing = {name for value in printed for name in field_names(value) if f"`{name}`" not in page}
    # The tables of the ledger are documented in docs/billing.md.
    assert missing - set(inferd("audit", "--json").json["rows"]) == set()


def field_names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(field_names, value.values()))
    return set().union(*map(field_names, value)) if isinstance(value, list) else set()


if __name__ == "__main__":
    head, _, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(f"{head}{MARK}\n{generated()}")
