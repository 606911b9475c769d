"""Tests of subjects: one form of a name in Python and in SQL."""

import sqlite3

from inferd import subjects


def test_subjects_of_a_request_begin_with_the_team():
    assert subjects.subjects_of("acme", "web", None, "k1") == ["team:acme", "project:acme/web", "key:k1"]
    assert subjects.subjects_of("acme", "web", "ada", "k1")[3:] == ["user:acme/ada"]


def test_subject_in_sql_equals_subject_in_python():
    conn = sqlite3.connect(":memory:")
    expressions = (
        subjects.TEAM_SUBJECT_SQL,
        subjects.PROJECT_SUBJECT_SQL,
        subjects.KEY_SUBJECT_SQL,
        subjects.USER_SUBJECT_SQL,
    )
    row = "(SELECT 'acme' AS team, 'web' AS project, 'ada' AS user, 'k1' AS key_id)"
    found = conn.execute(f"SELECT {', '.join(expressions)} FROM {row}").fetchone()
    assert list(found) == subjects.subjects_of("acme", "web", "ada", "k1")
