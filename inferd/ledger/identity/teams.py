"""Teams, and their projects and users: names in tables (BILLING R1, R9)."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from inferd.errors import ConflictError, NotFoundError
from inferd.ledger.storage.paging import WHOLE, Page


@dataclass(frozen=True, slots=True)
class Team:
    """A team.

    Attributes:
        tier_override: the operator's tier; None: the tier is earned.
        tier_override_until_ms: the first moment at which that holds no more; None: it stays.
    """

    team: str
    plan: str
    tier_override: int | None
    created_at_ms: int
    created_by: str
    tier_override_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """A project of a team."""

    team: str
    project: str
    created_at_ms: int
    created_by: str


@dataclass(frozen=True, slots=True)
class User:
    """A user of a team: the owner of keys."""

    team: str
    user: str
    created_at_ms: int
    created_by: str


_TEAM = "team, plan, tier_override, created_at_ms, created_by, tier_override_until_ms"


def all_teams(conn: sqlite3.Connection, page: Page = WHOLE) -> list[Team]:
    """In order of name."""
    rows = conn.execute(
        f"SELECT {_TEAM} FROM teams WHERE team > coalesce(?, '') ORDER BY team LIMIT ?", (page.after, page.limit)
    )
    return [Team(*row) for row in rows]


def find_team(conn: sqlite3.Connection, name: str) -> Team:
    """Raises NotFoundError if there is none of that name."""
    row = conn.execute(f"SELECT {_TEAM} FROM teams WHERE team = ?", (name,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no team {name!r}; `inferd teams list` shows those there are")
    return Team(*row)


def add_team(conn: sqlite3.Connection, team: Team) -> None:
    """Raises ConflictError if the name is taken."""
    try:
        conn.execute(
            "INSERT INTO teams (team, plan, tier_override, created_at_ms, created_by) VALUES (?, ?, ?, ?, ?)",
            (team.team, team.plan, team.tier_override, team.created_at_ms, team.created_by),
        )
    except sqlite3.IntegrityError as exc:
        raise ConflictError(f"there is a team {team.team!r} already") from exc


def set_tier_override(conn: sqlite3.Connection, team: str, tier: int | None, until_ms: int | None) -> None:
    """The operator's tier of an existing team, until a moment or (None) until it is changed; `tier` None: earned."""
    conn.execute(
        "UPDATE teams SET tier_override = ?1, tier_override_until_ms = ?2 WHERE team = ?3 "
        "AND (tier_override IS NOT ?1 OR tier_override_until_ms IS NOT ?2)",
        (tier, until_ms, team),
    )


def projects_of(conn: sqlite3.Connection, team: str, page: Page = WHOLE) -> list[Project]:
    """In order of name."""
    rows = conn.execute(
        "SELECT team, project, created_at_ms, created_by FROM projects WHERE team = ? AND project > coalesce(?, '') "
        "ORDER BY project LIMIT ?",
        (team, page.after, page.limit),
    )
    return [Project(*row) for row in rows]


def find_project(conn: sqlite3.Connection, team: str, name: str) -> Project | None:
    """The project of an existing team; None if there is none of that name."""
    row = conn.execute(
        "SELECT team, project, created_at_ms, created_by FROM projects WHERE team = ? AND project = ?", (team, name)
    ).fetchone()
    return None if row is None else Project(*row)


def add_project(conn: sqlite3.Connection, project: Project) -> None:
    """Raises ConflictError if the team has it already."""
    try:
        conn.execute(
            "INSERT INTO projects (team, project, created_at_ms, created_by) VALUES (?, ?, ?, ?)",
            (project.team, project.project, project.created_at_ms, project.created_by),
        )
    except sqlite3.IntegrityError as exc:
        raise ConflictError(f"team {project.team!r} has a project {project.project!r} already") from exc


def users_of(conn: sqlite3.Connection, team: str, page: Page = WHOLE) -> list[User]:
    """In order of name."""
    rows = conn.execute(
        "SELECT team, user, created_at_ms, created_by FROM users WHERE team = ? AND user > coalesce(?, '') "
        "ORDER BY user LIMIT ?",
        (team, page.after, page.limit),
    )
    return [User(*row) for row in rows]


def find_user(conn: sqlite3.Connection, team: str, name: str) -> User | None:
    """The user of an existing team; None if there is none of that name."""
    row = conn.execute(
        "SELECT team, user, created_at_ms, created_by FROM users WHERE team = ? AND user = ?", (team, name)
    ).fetchone()
    return None if row is None else User(*row)


def add_user(conn: sqlite3.Connection, user: User) -> None:
    """Raises ConflictError if the team has it already."""
    try:
        conn.execute(
            "INSERT INTO users (team, user, created_at_ms, created_by) VALUES (?, ?, ?, ?)",
            (user.team, user.user, user.created_at_ms, user.created_by),
        )
    except sqlite3.IntegrityError as exc:
        raise ConflictError(f"team {user.team!r} has a user {user.user!r} already") from exc
