"""What a dead server left held is voided when the next one starts."""

from __future__ import annotations

from inferd.ledger.audit.run import audit
from inferd.ledger.requests.epochs import begin_epoch


def test_a_new_epoch_voids_the_holds_of_the_old_ones(served, store):
    """R20, R16"""
    served.grant(100)
    settled = served.hold(10, 20)
    served.settle(settled, 10, 1)
    orphans = [served.hold(10, 20), served.hold(1, 2)]
    assert begin_epoch(store, served.now_ms + 5) == served.epoch + 1
    assert served.credit().held_nanousd == 0
    assert served.credit().balance_nanousd == 89
    rows = served.conn.execute("SELECT request_id, status, cost_nanousd, finished_at_ms FROM usage ORDER BY 1")
    assert rows.fetchall() == [
        (settled, "completed", 11, served.now_ms),
        *((request_id, "failed", 0, served.now_ms + 5) for request_id in orphans),
    ]
    assert audit(served.conn).clean


def test_an_epoch_leaves_its_own_holds_alone(served):
    """R20: no wall-clock expiry of a live hold."""
    served.grant(100)
    request_id = served.hold(10, 20)
    served.now_ms += 10**10
    assert served.credit().held_nanousd == 30
    served.settle(request_id, 1)
