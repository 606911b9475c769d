"""docs/cli.md says of every command what its `--help` says; `python tests/cli/test_cli_md.py` writes that part anew."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from inferd.cli.main import CONFIG_STATUS, OPERATION_STATUS, app, main
from inferd.cli.output import BROKEN_PIPE_STATUS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
MARK = "<!-- What follows is written by `python tests/cli/test_cli_md.py` from the program. -->\n"


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(`inferd keys create`, its command) of this command and all below it, a group before its commands."""
    yield path, command
    below = getattr(command, "commands", {})
    for name, each in below.items():
        yield from commands(each, f"{path} {name}")


COMMANDS = dict(commands(get_command(app), "inferd"))


def section(path: str, command: Any) -> str:
    """A heading, the usage line, the help text, and a table of arguments and options."""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    words = [argument.metavar if argument.required else f"[{argument.metavar}]" for argument in arguments]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *words])
    is_group = hasattr(command, "commands")
    parts = [f"{'##' if is_group else '###'} {path}", inspect.cleandoc(command.help)]
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
    """As a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def generated() -> str:
    return "\n".join(section(path, command) for path, command in COMMANDS.items())


def test_the_page_says_what_the_program_says():
    _, _, rest = PAGE.read_text().partition(MARK)
    assert rest == "\n" + generated(), "run `python tests/cli/test_cli_md.py`, and read what it changes"


@pytest.mark.parametrize("path", COMMANDS)
def test_the_help_of_every_command_says_what_it_does(path, capsys, monkeypatch):
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


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_every_command_takes_a_data_folder_has_an_example_and_prints_json(path):
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert "--data-dir" in options
    assert f"{path}" in COMMANDS[path].help, "an example teaches"
    # The one serves, the other prints JSON Lines always.
    assert "--json" in options or path in {"inferd serve", "inferd ledger export"}


def test_the_page_has_every_exit_status():
    for status in (0, OPERATION_STATUS, CONFIG_STATUS, 130, BROKEN_PIPE_STATUS):
        assert f"| {status} |" in PAGE.read_text()


@pytest.mark.usefixtures("used")
def test_the_page_names_every_field_of_json(inferd):
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
