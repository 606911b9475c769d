"""Catalog: the plans, tiers and alert policy in force, which a server read last from its models.toml.

The ledger has them, so that the command line uses the same numbers as the server, in any folder and with any
models.toml. Each change is a new row of `catalogs`; before the first one, the shipped catalog is in force.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache

import msgspec

from inferd.errors import ConfigError, InvalidValueError
from inferd.ledger.storage.rows import insert
from inferd.plans import SHIPPED, Catalog, Plan

IN_FORCE = "(SELECT catalog FROM catalogs ORDER BY seq DESC LIMIT 1)"
"""SQL of the text of the catalog in force, for queries that need it beside other columns; NULL: the shipped one."""


@lru_cache(maxsize=8)
def catalog_of(text: str | None) -> Catalog:
    """Return the catalog of a row's text; None: the shipped one. Cached by the text, so it cannot be out of date."""
    return SHIPPED if text is None else msgspec.json.decode(text, type=Catalog)


def catalog_in_force(conn: sqlite3.Connection) -> Catalog:
    return catalog_of(_text(conn))


def find_plan(conn: sqlite3.Connection, name: str) -> Plan:
    """Return the plan of that name. Raise InvalidValueError if there is none."""
    plans = catalog_in_force(conn).plans
    if name not in plans:
        raise InvalidValueError(
            f"there is no plan {name!r}; choose one of {', '.join(plans)}. Plans of a changed models.toml are in force "
            "once `inferd plans apply` or `inferd serve` has read it"
        )
    return plans[name]


def put_catalog(conn: sqlite3.Connection, catalog: Catalog, *, actor: str, now_ms: int) -> bool:
    """Put plans and tiers in force; return False if they are already.

    Raises:
        ConfigError: a team is on a plan that the catalog lacks.
    """
    if catalog == catalog_in_force(conn):
        return False
    for team, plan in conn.execute("SELECT team, plan FROM teams ORDER BY team"):
        if plan not in catalog.plans:
            raise ConfigError(
                f"[plans.{plan}] is missing from models.toml, and team {team!r} is on it: put it back, or give the "
                f"team another with `inferd teams set {team} --plan PLAN` first"
            )
    seq: int = conn.execute("SELECT coalesce(max(seq), 0) + 1 FROM catalogs").fetchone()[0]
    text = msgspec.json.encode(catalog).decode()
    insert(conn, "catalogs", {"seq": seq, "catalog": text, "actor": actor, "at_ms": now_ms})
    return True


def _text(conn: sqlite3.Connection) -> str | None:
    text: str | None = conn.execute(f"SELECT {IN_FORCE}").fetchone()[0]
    return text
