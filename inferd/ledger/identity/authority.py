"""Authorities: the operator, and a team over itself by a key with the scope `manage` (BILLING R21).

Suspensions, budgets and `overage` are kept for each authority apart, and the stricter one is in effect: so a team
loosens nothing that the operator set.
"""

from __future__ import annotations

import sqlite3
from typing import Literal, get_args

Authority = Literal["operator", "team"]
AUTHORITIES: tuple[Authority, ...] = get_args(Authority)

IS_OF_TEAM = (
    "EXISTS (SELECT 1 FROM keys WHERE 'key:' || key_id = {actor} AND keys.team = {team} "
    "AND instr(' ' || scopes || ' ', ' admin ') = 0)"
)
"""SQL, given the SQL of an actor and of a team: whether the actor is a key of the team without the scope `admin`."""


def authority_of(conn: sqlite3.Connection, team: str | None, actor: str) -> Authority:
    """The authority with which an actor (`cli:alice`, `key:ID`, a rule's name) changes a team.

    The scopes of a key never change, so neither does the answer. An unknown actor is the operator: a team does not
    loosen what it set.
    """
    (is_of_team,) = conn.execute(f"SELECT {IS_OF_TEAM.format(actor='?1', team='?2')}", (actor, team)).fetchone()
    return "team" if is_of_team else "operator"
