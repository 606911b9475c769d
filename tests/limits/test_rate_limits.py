"""Tests of requests under way by subject, and of the mean length of completions."""

from __future__ import annotations

import pytest

from inferd.limits.rate_limits import Concurrency, RunningMean


def test_concurrency_limits_each_subject_by_itself():
    """R10: per project and per user."""
    concurrency = Concurrency()
    assert concurrency.enter([("project:a/x", 2), ("user:a/ada", 1)]) is None
    assert concurrency.enter([("project:a/x", 2), ("user:a/ada", 1)]) == 1
    assert concurrency.enter([("project:a/x", 2), ("user:a/bob", 1)]) is None
    assert concurrency.enter([("project:a/x", 2)]) == 0
    assert concurrency.enter([("project:a/y", 2)]) is None


def test_concurrency_refused_request_counts_in_no_subject():
    concurrency = Concurrency()
    assert concurrency.enter([("user:a/ada", 1)]) is None
    assert concurrency.enter([("project:a/x", 9), ("user:a/ada", 1)]) == 1
    assert concurrency.count("project:a/x") == 0


def test_concurrency_subject_without_requests_takes_no_memory():
    concurrency = Concurrency()
    shares = [("project:a/x", None), ("user:a/ada", 1)]
    concurrency.enter(shares)
    concurrency.leave(shares)
    assert len(concurrency) == 0
    assert concurrency.enter(shares) is None


def test_running_mean_is_the_mean_of_the_first_values():
    mean = RunningMean()
    assert mean.mean is None
    for value in (10, 20, 60):
        mean.add(value)
    assert mean.mean == pytest.approx(30)


def test_running_mean_forgets_old_values():
    mean = RunningMean()
    mean.add(1000, times=10_000)
    for _ in range(1_000):
        mean.add(10)
    assert mean.mean == pytest.approx(10, rel=0.01)


def test_running_mean_of_many_values_at_once_equals_one_by_one():
    mean = RunningMean()
    mean.add(10, times=3)
    mean.add(50)
    assert mean.mean == pytest.approx(20)
