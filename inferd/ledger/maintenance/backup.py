"""`inferd backup`: a copy of the ledger, audited, under its name only once it is complete and synced."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from inferd.errors import OperationError
from inferd.ledger.audit.run import AuditReport, audit
from inferd.ledger.storage.copies import copy, open_file, temporary_file


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made, and the report of its audit."""

    path: Path
    size_bytes: int
    report: AuditReport


def back_up(ledger: Path, target: Path) -> Backup:
    """Copy the ledger's file to `target`, which must not exist, readable by its owner alone.

    Raises:
        OperationError: `target` exists or cannot be written, or the audit of the copy has findings; then nothing is
            left there.
    """
    if target.exists():
        raise OperationError(f"{target}: exists already; a backup never replaces a file")
    with temporary_file(target) as path:
        copy(ledger, path)
        report = audit_file(path)
        if not report.clean:
            raise OperationError(
                f"the ledger does not balance, so no backup was made: {report.findings[0]}; "
                "`inferd audit` shows all findings"
            )
        path.rename(target)
        _sync_folder(target.parent)
    return Backup(target, target.stat().st_size, report)


def audit_file(path: Path) -> AuditReport:
    """Audit a ledger's file at the schema of this code; no process may write it meanwhile."""
    with closing(open_file(path, "ro")) as conn:
        return audit(conn)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder.absolute(), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
