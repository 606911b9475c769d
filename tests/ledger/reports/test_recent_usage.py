from __future__ import annotations

from inferd.ledger.reports.usage import RecentUsage, recent_usage
from inferd.usage import Usage


def test_requests_are_summed_by_second_team_and_deployment(books):
    books.grant(10**6)
    begin_ms = books.now_ms = books.now_ms // 1000 * 1000
    books.settle(books.hold(5, 5), 5, 2)
    books.now_ms += 999
    books.settle(books.hold(3, 5), 3, 4)
    books.now_ms += 1
    books.settle(books.hold(1, 1), 1, 1)
    first, second = recent_usage(books.conn, begin_ms)
    assert first == RecentUsage(begin_ms, "acme", first.deployment, False, 2, Usage(8, 0, 6))
    assert (second.at_ms, second.num_requests, second.usage.total_tokens) == (begin_ms + 1000, 1, 2)
    assert list(recent_usage(books.conn, begin_ms + 1000)) == [second]
