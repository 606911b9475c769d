"""A small ledger for tests, and its commands."""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import replace
from typing import Any

import msgspec

from inferd.attribution import Attribution
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.requests.holds import OpenHold
from inferd.ledger.requests.settlement import SettleHold, VoidHold, next_epoch
from inferd.ledger.storage.schema import migrate
from inferd.ledger.terms.catalog import catalog_in_force
from inferd.plans import AlertPolicy
from inferd.price import Price
from inferd.usage import Usage

# 2026-11-20 12:00:00 UTC
NOW_MS = 1_795_176_000_000
# One nano-USD a token, whatever the token, so that amounts can be read off.
NANO_A_TOKEN = Price(input_picousd=1_000, cached_input_picousd=1_000, output_picousd=1_000)


class Books:
    """A ledger with team `acme` (no credit), one key and an epoch, and commands that are applied one by one."""

    now_ms = NOW_MS
    price = NANO_A_TOKEN

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.conn = conn
        self.ids = itertools.count()
        self.epoch = next_epoch(conn, 1, NOW_MS)
        operations.create_team(conn, "acme", "academic", by=operations.Author("test", NOW_MS))
        self.key = operations.create_key(conn, "acme", by=operations.Author("test", NOW_MS))

    def grant(
        self,
        nanousd: int,
        kind: Any = "paid",
        *,
        actor: str = "test",
        now_ms: int | None = None,
        idempotency_key: str | None = None,
        **terms: Any,
    ) -> Any:
        return operations.grant_credit(
            self.conn,
            "acme",
            operations.NewGrant(nanousd, kind, **terms),
            idempotency_key=idempotency_key,
            by=operations.Author(actor, self.now_ms if now_ms is None else now_ms),
        )

    def open_hold(self, prompt: int = 1, completion: int = 0, **changes: Any) -> OpenHold:
        """`changes`: fields of the hold or of its attribution."""
        attribution = Attribution("acme", "inference", None, self.key.id, "local/tiny", "default")
        whose = {name: changes.pop(name) for name in Attribution.__struct_fields__ if name in changes}
        command = OpenHold(
            request_id=f"req-{next(self.ids)}",
            attribution=msgspec.structs.replace(attribution, **whose),
            price=self.price,
            prompt_tokens=prompt,
            max_completion_tokens=completion,
            epoch=self.epoch,
            admitted_at_ms=self.now_ms,
        )
        return msgspec.structs.replace(command, **changes)

    def settlement(self, request_id: str, prompt: int = 0, completion: int = 0, **changes: Any) -> SettleHold:
        command = SettleHold(request_id, Usage(prompt, 0, completion, 7), "completed", self.now_ms, "stop")
        return msgspec.structs.replace(command, **changes)

    def void(self, request_id: str, status: Any = "failed") -> VoidHold:
        return VoidHold(request_id, status, self.now_ms)

    def apply(self, command: Any) -> Any:
        """As the writer does it: in a savepoint, which an error undoes."""
        self.conn.execute("SAVEPOINT command")
        try:
            return command.apply(self.conn)
        except BaseException:
            self.conn.execute("ROLLBACK TO command")
            raise
        finally:
            self.conn.execute("RELEASE command")

    def hold(self, prompt: int = 1, completion: int = 0, **changes: Any) -> str:
        return self.apply(self.open_hold(prompt, completion, **changes)).request_id

    def settle(self, request_id: str, prompt: int = 0, completion: int = 0, **changes: Any) -> int:
        return self.apply(self.settlement(request_id, prompt, completion, **changes)).cost_nanousd

    def credit(self) -> Any:
        return operations.show_credit(self.conn, "acme", now_ms=self.now_ms)

    def one(self, sql: str, *parameters: Any) -> Any:
        """The only column of the only row."""
        ((value,),) = self.conn.execute(sql, parameters).fetchall()
        return value

    def usage_row(self, request_id: str) -> dict[str, Any]:
        cursor = self.conn.execute("SELECT * FROM usage WHERE request_id = ?", (request_id,))
        (row,) = cursor.fetchall()
        return dict(zip((column[0] for column in cursor.description), row, strict=True))

    def alert(self, *policy: Any) -> None:
        """From now on by this AlertPolicy."""
        catalog = replace(catalog_in_force(self.conn), alerts=AlertPolicy(*policy))
        operations.apply_plans(self.conn, catalog, by=operations.Author("test", self.now_ms))

    def remaining(self) -> dict[int, int]:
        return dict(self.conn.execute("SELECT grant_id, remaining_nanousd FROM grants").fetchall())

    def dump(self) -> list[str]:
        """Everything, to show that nothing changed."""
        return list(self.conn.iterdump())

    def assert_clean(self) -> None:
        assert [str(finding) for finding in audit(self.conn).findings] == []


def memory_books() -> Books:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn)
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute("PRAGMA recursive_triggers = ON")
    return Books(conn)
