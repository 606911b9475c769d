"""Events: ends of batches and of responses in the background, once each, for the operator's webhooks."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """An end, without any text of a caller.

    Attributes:
        event_id: 1, 2, 3, ...
        type: OpenAI's name of it, such as `batch.completed`.
        object_id: the batch or response.
    """

    event_id: int
    type: str
    team: str
    object_id: str
    at_ms: int

    @property
    def name(self) -> str:
        """The id under which every attempt at its delivery goes out."""
        return f"evt_{self.object_id.partition('_')[2]}"


EVENT_COLUMNS = ", ".join(Event.__dataclass_fields__)


def record_event(conn: sqlite3.Connection, type: str, team: str, object_id: str, *, now_ms: int) -> None:
    """Insert the event of an object that has ended, in the transaction of its end; nothing if it is known."""
    conn.execute(
        f"INSERT INTO events ({EVENT_COLUMNS}) SELECT coalesce(max(event_id), 0) + 1, ?, ?, ?, ? FROM events "
        "WHERE TRUE ON CONFLICT (object_id) DO NOTHING",
        (type, team, object_id, now_ms),
    )
