"""What a team has, holds and owes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from inferd.ledger import counters
from inferd.ledger.accounts import balance_nanousd, receivable_account
from inferd.ledger.clock import expiry_ms
from inferd.ledger.grants import available_nanousd, open_grants
from inferd.money import format_usd


@dataclass(frozen=True, slots=True)
class Credit:
    """A team's credit at one moment.

    Attributes:
        available_nanousd: what a new request can take: unexpired credit less what open holds keep.
        held_nanousd: what open holds keep.
        owed_nanousd: what the team owes beside that.
        overage: what happens at zero.

    `balance_nanousd` is available and held together: unspent credit, without what has expired, but with the expired
    part that still covers a hold (R8).
    """

    team: str
    available_nanousd: int
    held_nanousd: int
    owed_nanousd: int
    overage: str = "block"

    @property
    def balance_nanousd(self) -> int:
        return self.available_nanousd + self.held_nanousd

    def to_json(self) -> dict[str, str]:
        """The fields of `inferd credits show --json`; amounts are decimal strings."""
        return {
            "team": self.team,
            "balance_usd": format_usd(self.balance_nanousd),
            "held_usd": format_usd(self.held_nanousd),
            "available_usd": format_usd(self.available_nanousd),
            "owed_usd": format_usd(self.owed_nanousd),
            "overage": self.overage,
        }


def credit_of(conn: sqlite3.Connection, team: str, now_ms: int) -> Credit:
    """The credit of an existing team; reads only, and counts nothing that has expired by `now_ms`."""
    held_nanousd = counters.held_nanousd(conn, team)
    return Credit(
        team=team,
        available_nanousd=available_nanousd(open_grants(conn, team), held_nanousd, expiry_ms(conn, now_ms)),
        held_nanousd=held_nanousd,
        owed_nanousd=-balance_nanousd(conn, receivable_account(team)),
    )
