"""Subjects: the team, project, user and key of a request, as the strings that the ledger and the limits count by.

The columns `scope` of counters, budgets and concurrency and `subject` of suspensions hold them. A name has no slash.
"""

from __future__ import annotations

# The same strings in SQL, from the columns `team`, `project`, `user` and `key_id` of a row.
TEAM_SUBJECT_SQL = "'team:' || team"
PROJECT_SUBJECT_SQL = "'project:' || team || '/' || project"
USER_SUBJECT_SQL = "'user:' || team || '/' || user"
KEY_SUBJECT_SQL = "'key:' || key_id"


def team_subject(team: str) -> str:
    """Return `team:TEAM`."""
    return f"team:{team}"


def project_subject(team: str, project: str) -> str:
    """Return `project:TEAM/PROJECT`."""
    return f"project:{team}/{project}"


def user_subject(team: str, user: str) -> str:
    """Return `user:TEAM/USER`."""
    return f"user:{team}/{user}"


def key_subject(key_id: str) -> str:
    """Return `key:KEY_ID`."""
    return f"key:{key_id}"


def subjects_of(team: str, project: str, user: str | None, key_id: str) -> list[str]:
    """Return the subjects of a request, the team first."""
    subjects = [team_subject(team), project_subject(team, project), key_subject(key_id)]
    return subjects if user is None else [*subjects, user_subject(team, user)]
