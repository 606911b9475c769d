from __future__ import annotations

from inferd.limits.concurrency import Concurrency


def test_each_scope_has_a_limit_of_its_own():
    """R10: per project and per user."""
    concurrency = Concurrency()
    assert concurrency.enter([("project:a/x", 2), ("user:a/ada", 1)]) is None
    assert concurrency.enter([("project:a/x", 2), ("user:a/ada", 1)]) == 1
    assert concurrency.enter([("project:a/x", 2), ("user:a/bob", 1)]) is None
    assert concurrency.enter([("project:a/x", 2)]) == 0
    assert concurrency.enter([("project:a/y", 2)]) is None


def test_who_is_refused_counts_in_no_scope():
    concurrency = Concurrency()
    assert concurrency.enter([("user:a/ada", 1)]) is None
    assert concurrency.enter([("project:a/x", 9), ("user:a/ada", 1)]) == 1
    assert concurrency.count("project:a/x") == 0


def test_a_scope_without_requests_takes_no_memory():
    concurrency = Concurrency()
    shares = [("project:a/x", None), ("user:a/ada", 1)]
    concurrency.enter(shares)
    concurrency.leave(shares)
    assert len(concurrency) == 0
    assert concurrency.enter(shares) is None
