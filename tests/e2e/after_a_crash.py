"""What must hold after a restart, whenever and however the server died."""

from __future__ import annotations

import json
import time
from pathlib import Path

from inferd.ledger.audit.run import audit
from inferd.ledger.reports.export import export_lines
from inferd.ledger.storage.store import Store
from tests.e2e.load import Seen
from tests.e2e.refold import Export, nanousd
from tests.e2e.server_process import ServerProcess


def read_books(server: ServerProcess) -> Export:
    """As `inferd ledger export` and `inferd audit` do it, without their start-up time."""
    with Store(server.data_dir).reading() as conn:
        findings = [str(finding) for finding in audit(conn).findings]
        assert findings == []
        return Export(export_lines(conn, now_ms=time.time_ns() // 1_000_000))


def assert_books_are_right(server: ServerProcess, seen: Seen) -> Export:
    """No hold is left, nothing unsettled is billed, and every answer that was seen complete is in the books."""
    export = read_books(server)
    assert export.held() == []
    assert export.faults() == []
    for request_id, usage in seen.complete.items():
        row = export.usage[request_id]
        assert row["status"] == "completed"
        assert row["prompt_tokens"] == usage["prompt_tokens"]
        assert row["completion_tokens"] == usage["completion_tokens"]
        assert row["cost_nanousd"] == nanousd(usage["cost"])
    for request_id, hold in export.holds.items():
        if hold["state"] == "voided":
            assert export.usage[request_id]["cost_nanousd"] == 0
            assert request_id not in seen.complete
    return export


def assert_commit_was_whole(report: Path, moment: str, export: Export) -> None:
    """All of the group in whose commit it died is in the books if it died after it, and nothing of it if before."""
    committed = moment == "after"
    group = json.loads(report.read_text())
    assert group, "it died in the commit of something"
    for command, request_id in group:
        hold, row = export.holds.get(request_id), export.usage.get(request_id)
        if command == "OpenHold":
            assert (hold is not None) == committed
            assert hold is None or (hold["state"], row["status"], row["cost_nanousd"]) == ("voided", "failed", 0)
        elif command == "SettleHold":
            assert hold["state"] == ("settled" if committed else "voided")
            assert (row["status"] == "failed") != committed
            assert (row["cost_nanousd"] > 0) == committed
        elif command == "VoidHold":
            assert (hold["state"], row["cost_nanousd"]) == ("voided", 0)
        else:
            assert (row is not None) == committed, command
