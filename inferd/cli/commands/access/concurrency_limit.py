"""What `inferd projects` and `inferd users` have in common: limits, listed and set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.amounts import budgets_text
from inferd.cli.output import moment_text, print_json, print_table, say
from inferd.errors import InvalidValueError
from inferd.instants import wall_clock_ms

if TYPE_CHECKING:
    from inferd.ledger.terms.limits import TeamLimits

_OF_PLAN = "plan"

Concurrency = Annotated[
    str, typer.Option(metavar="N", show_default=False, help=f"Requests under way at once; or `{_OF_PLAN}`: its number.")
]


def print_members(what: Literal["project", "user"], records: Sequence[Mapping[str, Any]]) -> None:
    """A table of `listings.listed_projects` or `listed_users`."""
    print_table(
        (what.capitalize(), "Status", "Created", "By", "Requests at once", "Budgets"),
        (
            [
                *(record[what], record["status"], moment_text(record["created_at"]), record["created_by"]),
                "unlimited" if record["concurrency"] is None else record["concurrency"],
                budgets_text(record["budgets"]),
            ]
            for record in records
        ),
        right=("Requests at once",),
        wrap=("Budgets", what.capitalize()),
    )


def set_(
    what: Literal["project", "user"],
    team: str,
    name: str,
    operation: Callable[..., TeamLimits],
    concurrency: str,
    json: bool,
    data_dir: Path | None,
) -> None:
    """Perform it, and say what holds then."""
    if concurrency != _OF_PLAN and not (concurrency.isascii() and concurrency.isdecimal() and len(concurrency) < 10):
        raise InvalidValueError(f"a number of requests at once, or {_OF_PLAN}, not {concurrency!r}")
    max_requests = None if concurrency == _OF_PLAN else int(concurrency)
    with open_store(data_dir).immediate() as conn:
        limits = operation(conn, team, name, max_requests, actor=actor(), now_ms=wall_clock_ms())
    is_project = what == "project"
    value = limits.project_concurrency if is_project else limits.user_concurrency
    source = limits.project_source if is_project else limits.user_source
    if json:
        print_json({"team": team, what: name, "concurrency": value, "source": source})
    else:
        number = "any number of" if value is None else str(value)
        say(f"{what.capitalize()} {name} of team {team} may have {number} requests under way at once ({source}).")
