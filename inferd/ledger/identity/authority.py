"""Authorities over a team: the operator, and the team itself by a key with the scope `manage` (BILLING R21).

Suspensions, budgets and `overage` are stored for each authority apart. The stricter one is in effect, so a team cannot
loosen a setting of the operator.
"""

from __future__ import annotations

import sqlite3
from typing import Literal, get_args

Authority = Literal["operator", "team"]
AUTHORITIES: tuple[Authority, ...] = get_args(Authority)

# SQL, given the SQL of an actor and of a team: whether the actor is a key of the team without the scope `admin`.
IS_OF_TEAM = (
    "EXISTS (SELECT 1 FROM keys WHERE 'key:' || key_id = {actor} AND keys.team = {team} "
    "AND instr(' ' || scopes || ' ', ' admin ') = 0)"
)


def authority_of(conn: sqlite3.Connection, team: str | None, actor: str) -> Authority:
    """Return the authority by which an actor (`cli:alice`, `key:ID`, a rule's name) changes a team.

    The scopes of a key never change, so neither does the answer. An unknown actor is the operator, so that a team
    cannot loosen its setting.
    """
    (is_of_team,) = conn.execute(f"SELECT {IS_OF_TEAM.format(actor='?1', team='?2')}", (actor, team)).fetchone()
    return "team" if is_of_team else "operator"
