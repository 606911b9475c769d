from __future__ import annotations

import pytest

from inferd.limits.running_mean import RunningMean


def test_it_is_the_mean_of_the_first_values():
    mean = RunningMean()
    assert mean.mean is None
    for value in (10, 20, 60):
        mean.add(value)
    assert mean.mean == pytest.approx(30)


def test_old_values_fade():
    mean = RunningMean()
    mean.add(1000, times=10_000)
    for _ in range(1_000):
        mean.add(10)
    assert mean.mean == pytest.approx(10, rel=0.01)


def test_many_values_at_once_are_as_good_as_one_by_one():
    mean = RunningMean()
    mean.add(10, times=3)
    mean.add(50)
    assert mean.mean == pytest.approx(20)
