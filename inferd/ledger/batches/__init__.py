"""Uploaded files and batches: their rows, and the steps of a batch."""

from inferd.ledger.batches.progress import BatchBook, BatchResult, Billed, End, RecordProgress, billed
from inferd.ledger.batches.records import (
    KEPT_MS,
    MOMENTS,
    BatchRecord,
    BatchTotals,
    FileRecord,
    find_batch,
    find_file,
)

__all__ = [
    "KEPT_MS",
    "MOMENTS",
    "BatchBook",
    "BatchRecord",
    "BatchResult",
    "BatchTotals",
    "Billed",
    "End",
    "FileRecord",
    "RecordProgress",
    "billed",
    "find_batch",
    "find_file",
]
