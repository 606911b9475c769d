"""Teams and their members, which are projects and users (BILLING R1, R9), and the rules for names and texts."""

from __future__ import annotations

import difflib
import re
import sqlite3
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from inferd.errors import ConflictError, InvalidValueError, NotFoundError
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.subjects import project_subject, user_subject

DEFAULT_TEAM = "default"
DEFAULT_PROJECT = "inference"
_MAX_TEXT = 200

# No colon and no slash: a name is a part of account names (`team:NAME:...`) and of `TEAM/PROJECT`.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
MAX_USER_NAME = 254
"""Characters of an e-mail address at most (RFC 5321)."""
_USER_PUNCTUATION = frozenset("._@+-'|=, ")

MemberKind = Literal["project", "user"]


@dataclass(frozen=True, slots=True)
class Team:
    """A team.

    Attributes:
        tier_override: the operator's tier; None: the tier is earned.
        tier_override_until_ms: the end of the override, exclusive; None: no end.
    """

    team: str
    plan: str
    tier_override: int | None
    created_at_ms: int
    created_by: str
    tier_override_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A project of a team, or a user of it, which owns keys."""

    kind: MemberKind
    team: str
    name: str
    created_at_ms: int
    created_by: str

    @property
    def subject(self) -> str:
        """`project:TEAM/NAME` or `user:TEAM/NAME`."""
        return member_subject(self.kind, self.team, self.name)


def member_subject(kind: MemberKind, team: str, name: str) -> str:
    """Return the subject that counters, budgets and suspensions name the member by."""
    return project_subject(team, name) if kind == "project" else user_subject(team, name)


_TEAM = "team, plan, tier_override, created_at_ms, created_by, tier_override_until_ms"


def all_teams(conn: sqlite3.Connection, page: Page = WHOLE) -> list[Team]:
    """Return the teams of a page, in order of name."""
    rows = conn.execute(
        f"SELECT {_TEAM} FROM teams WHERE team > coalesce(?, '') ORDER BY team LIMIT ?", (page.after, page.limit)
    )
    return [Team(*row) for row in rows]


def find_team(conn: sqlite3.Connection, name: str) -> Team:
    """Return the team of a name. Raises NotFoundError."""
    row = conn.execute(f"SELECT {_TEAM} FROM teams WHERE team = ?", (name,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no team {name!r}", noun="team")
    return Team(*row)


def add_team(conn: sqlite3.Connection, team: Team) -> None:
    """Insert a team. Raises ConflictError if the name is taken."""
    try:
        conn.execute(
            "INSERT INTO teams (team, plan, tier_override, created_at_ms, created_by) VALUES (?, ?, ?, ?, ?)",
            (team.team, team.plan, team.tier_override, team.created_at_ms, team.created_by),
        )
    except sqlite3.IntegrityError as error:
        raise ConflictError(f"there is a team {team.team!r} already") from error


def set_tier_override(conn: sqlite3.Connection, team: str, tier: int | None, until_ms: int | None) -> None:
    """Set the operator's tier of an existing team, up to `until_ms` if that is given; `tier` None: earned again."""
    conn.execute(
        "UPDATE teams SET tier_override = ?1, tier_override_until_ms = ?2 WHERE team = ?3 "
        "AND (tier_override IS NOT ?1 OR tier_override_until_ms IS NOT ?2)",
        (tier, until_ms, team),
    )


def members_of(conn: sqlite3.Connection, kind: MemberKind, team: str, page: Page = WHOLE) -> list[Member]:
    """Return a page of the projects or users of a team, in order of name."""
    rows = conn.execute(
        f"SELECT team, {kind}, created_at_ms, created_by FROM {kind}s WHERE team = ? AND {kind} > coalesce(?, '') "
        f"ORDER BY {kind} LIMIT ?",
        (team, page.after, page.limit),
    )
    return [Member(kind, *row) for row in rows]


def require_member(conn: sqlite3.Connection, kind: MemberKind, team: str, name: str) -> None:
    """Raise NotFoundError unless the team exists and has a project or user of the name."""
    find_team(conn, team)
    if conn.execute(f"SELECT 1 FROM {kind}s WHERE team = ? AND {kind} = ?", (team, name)).fetchone() is None:
        raise NotFoundError(f"team {team!r} has no {kind} {name!r}", noun=kind, names=(team, name))


def add_member(conn: sqlite3.Connection, member: Member) -> None:
    """Insert a project or user of an existing team. Raises ConflictError if the team has one of the name."""
    kind = member.kind
    try:
        conn.execute(
            f"INSERT INTO {kind}s (team, {kind}, created_at_ms, created_by) VALUES (?, ?, ?, ?)",
            (member.team, member.name, member.created_at_ms, member.created_by),
        )
    except sqlite3.IntegrityError as error:
        raise ConflictError(f"team {member.team!r} has a {kind} {member.name!r} already") from error


def find_user(conn: sqlite3.Connection, team: str, name: str) -> str | None:
    """Return the user that a header names by a `user_name`; None if there is none.

    An e-mail address is also found as the user whose name differs from the address in the case of ASCII letters: an
    operator may have written the name so.
    """
    row = conn.execute("SELECT user FROM users WHERE team = ? AND user = ?", (team, name)).fetchone()
    if row is None and "@" in name:
        row = conn.execute(
            "SELECT user FROM users WHERE team = ? AND user = ? COLLATE NOCASE ORDER BY user LIMIT 1", (team, name)
        ).fetchone()
    return None if row is None else str(row[0])


def user_name(text: str) -> str:
    """Return the name of the user that a header names: NFC, an e-mail address in lower case.

    Raises:
        InvalidValueError: no user can have the name.
    """
    name = _normal_user(text)
    check_name("user", name)
    return name


def _normal_user(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower() if "@" in text else text)


def check_name(kind: str, name: str) -> None:
    """Raise InvalidValueError unless a `kind` (team, project, user) may have the name.

    A user may have any letters, because a header can name one. A name that is not ASCII is in the form that a header
    leads to, so that two forms of a name are no two users.
    """
    if kind == "user":
        _check_user_name(name)
    elif _NAME.fullmatch(name) is None:
        raise InvalidValueError(
            f"{name!r} cannot be the name of a {kind}: use 1 to 64 ASCII letters, digits and . _ - @ +, "
            "and begin with a letter or a digit"
        )


def _check_user_name(name: str) -> None:
    if not (
        len(name) <= MAX_USER_NAME
        and name[:1].isalnum()
        and name[-1:] != " "
        and all(each in _USER_PUNCTUATION or unicodedata.category(each)[0] in "LMN" for each in name)
    ):
        shown = name if len(name) <= _MAX_TEXT else f"{name[:_MAX_TEXT]}..."
        raise InvalidValueError(
            f"{shown!r} cannot be the name of a user: use 1 to {MAX_USER_NAME} letters, digits, spaces and "
            ". _ - @ + ' | = , and begin with a letter or a digit"
        )
    if not name.isascii() and name != _normal_user(name):
        raise InvalidValueError(f"write {_normal_user(name)!r}, as the name of the user is in headers, not {name!r}")


def check_text(what: str, text: str | None) -> None:
    """Raise InvalidValueError unless the text (a label, note or reason; None: not given) can be stored."""
    if text is not None and not (0 < len(text) <= _MAX_TEXT and text.isprintable()):
        raise InvalidValueError(f"a {what} is 1 to {_MAX_TEXT} printable characters")


def check_choice(what: str, word: str, known: Iterable[str]) -> None:
    """Raise InvalidValueError, with the nearest known word or all of them, unless the word is known."""
    words = list(known)
    if word not in words:
        near = difflib.get_close_matches(word, words, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(words)}"
        raise InvalidValueError(f"there is no {what} {word!r}; {remedy}")
