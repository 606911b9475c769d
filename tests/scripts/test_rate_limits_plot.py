"""The four kinds of traffic of docs/rate-limits.md: what is said of them there, and the picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.rate_limits_plot import FLOOR, TRAFFIC, Minute, simulate, svg

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Minute]]:
    return {name: simulate(demand) for name, demand in TRAFFIC.items()}


def refused(minutes):
    return [minute.asked - minute.allowed for minute in minutes]


def test_steady_traffic_below_its_limit_is_never_refused(runs):
    assert not any(refused(runs["steady"]))


def test_traffic_that_doubles_within_an_hour_stays_inside(runs):
    """R15: from nine tenths of the floor, twice in two hours."""
    assert sum(minute.asked for minute in runs["doubling"]) > 0
    assert not any(refused(runs["doubling"]))


@pytest.mark.parametrize("start", [0.2, 0.5, 0.7, 0.95])
def test_whatever_it_starts_from(start):
    """R15: up to four times the start and as far as the ceiling allows; a straight line as well as a curve."""
    assert not any(refused(simulate(lambda minute: start * FLOOR * 2 ** (minute / 60), 150)))
    assert not any(refused(simulate(lambda minute: start * FLOOR * (1 + minute / 60), 60)))


def test_bursts_earn_room_for_themselves(runs):
    """What is refused of the first bursts is not refused of the later ones."""
    bursts = refused(runs["bursty"])
    assert sum(bursts[:15]) > 0
    assert not any(bursts[60:])


def test_whoever_only_hammers_gets_the_floor_and_no_more(runs):
    minutes = runs["abusive"]
    assert max(minute.limit for minute in minutes) < 1.01 * FLOOR
    assert sum(minute.allowed for minute in minutes) <= 1.01 * FLOOR * len(minutes)
    assert sum(minute.allowed for minute in minutes) > 0.95 * FLOOR * len(minutes)


def test_the_picture_in_the_docs_is_what_the_script_draws(runs):
    assert svg(runs) == (ROOT / "docs" / "rate-limits.svg").read_text(encoding="utf-8")
