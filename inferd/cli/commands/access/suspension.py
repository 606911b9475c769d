"""What `suspend` and `resume` of teams, projects, users and keys have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.output import command_line, moment_text, print_json, say, say_next
from inferd.instants import wall_clock_ms

if TYPE_CHECKING:
    from inferd.ledger.identity.suspensions import Suspension

Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", show_default=False, help="Why, for the books; callers do not see it."),
]


def suspend(
    noun: str,
    names: tuple[str, ...],
    operation: Callable[..., Suspension],
    reason: str | None,
    json: bool,
    data: Path | None,
) -> None:
    """Suspend the `noun` (`teams`, ...) of these names and say so."""
    moment_ms = wall_clock_ms()
    with open_store(data).immediate() as conn:
        suspension = operation(conn, *names, reason=reason, actor=actor(), now_ms=moment_ms)
    if json:
        print_json(suspension.to_json())
        return
    kind, _, name = suspension.subject.partition(":")
    if suspension.suspended_at_ms < moment_ms:
        say(f"The {kind} {name} was suspended before: {moment_text(suspension.suspended_at_ms)} UTC.")
    else:
        say(f"Suspended {kind} {name}. From the next request on it gets a 403; requests under way finish.")
    say_next("Take it back", command_line(data, noun, "resume", *names))


def resume(
    noun: str, names: tuple[str, ...], operation: Callable[..., Suspension | None], json: bool, data: Path | None
) -> None:
    """End a suspension and say so."""
    from inferd.ledger.identity.suspensions import resumed_record

    with open_store(data).immediate() as conn:
        ended = operation(conn, *names, actor=actor(), now_ms=wall_clock_ms())
        record = resumed_record(conn, ended)
    kind = noun.removesuffix("s")
    if json:
        print_json(record)
    elif ended is None:
        say(f"The {kind} {'/'.join(names)} is not suspended.")
    elif not record["resumed"]:
        say(f"Ended the operator's suspension of {kind} {'/'.join(names)}. Its team has suspended it as well.")
        say_next("End that suspension too", command_line(data, noun, "resume", *names))
    else:
        say(f"Resumed {kind} {'/'.join(names)}: its next request is answered.")
