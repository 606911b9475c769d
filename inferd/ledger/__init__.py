"""Money and quotas in one SQLite file: teams, keys, grants, holds, double entry, usage, reports, audit.

Rules: docs/billing.md. This package exports the file: opening, reading, writing, locking it. Other packages of inferd
import it and the facades of its sub-packages (`identity`, `operations`, `requests`, `reports`, ...), not their modules;
`audit` and `maintenance` have no facade, as their modules are tools that load much. A server writes with `LedgerWriter`
and `LedgerClient.change`, the command line with `Store.immediate`. Nothing here knows HTTP or token ids.
"""

from inferd.ledger.storage.client import Connection, LedgerClient
from inferd.ledger.storage.data_dir import (
    FILE_NAME,
    RESERVE_BYTES,
    DataLock,
    free_bytes,
    read_deployments,
    write_deployments,
)
from inferd.ledger.storage.group_commit import Command
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter

__all__ = [
    "FILE_NAME",
    "RESERVE_BYTES",
    "WHOLE",
    "Command",
    "Connection",
    "DataLock",
    "LedgerClient",
    "LedgerWriter",
    "Page",
    "Store",
    "free_bytes",
    "read_deployments",
    "write_deployments",
]
