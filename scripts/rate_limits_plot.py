"""`python -m scripts.rate_limits_plot`: what adaptive limits do under four kinds of traffic, as docs/rate-limits.svg.

Simulated with inferd's own windows and a clock turned by hand: generated tokens of one team of tier 4 on one model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inferd.limits.allowance import rates_of
from inferd.limits.rate_window import RateWindow
from inferd.plans import SHIPPED_TIERS

MINUTES = 180
REQUEST_TOKENS = 600
TIER = SHIPPED_TIERS[4]
FLOOR = TIER.generated_tpm
Demand = Callable[[float], float]
"""Minute -> tokens a minute that the team asks for."""


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute: tokens asked for and allowed in it, and the limit at its end."""

    asked: int
    allowed: int
    limit: int


def steady(minute: float) -> float:
    return 0.8 * FLOOR


def doubling(minute: float) -> float:
    """Twice as much every hour; then nothing any more."""
    return 0.9 * FLOOR * 2 ** (minute / 60) if minute < 120 else 0.0


def bursty(minute: float) -> float:
    """Twenty seconds of every third minute, at four times the floor: more than the floor allows in any minute."""
    return 4 * FLOOR if minute % 3 < 1 / 3 else 0.0


def abusive(minute: float) -> float:
    return 20.0 * FLOOR


TRAFFIC: dict[str, Demand] = {"steady": steady, "doubling": doubling, "bursty": bursty, "abusive": abusive}


def simulate(demand: Demand, minutes: int = MINUTES) -> list[Minute]:
    """Requests of REQUEST_TOKENS, as many a second as the demand says; what is refused does not come again."""
    _, _, bounds = rates_of(TIER).tokens or ()
    window = RateWindow(bounds, 0)
    owed = 0.0
    found = []
    for minute in range(minutes):
        asked = allowed = 0
        for second in range(60):
            now_ms = (minute * 60 + second) * 1_000
            owed += demand(minute + second / 60) / 60
            while owed >= REQUEST_TOKENS:
                owed -= REQUEST_TOKENS
                asked += REQUEST_TOKENS
                if not window.wait_ms(REQUEST_TOKENS, bounds, 1.0, now_ms):
                    window.add(REQUEST_TOKENS, now_ms)
                    allowed += REQUEST_TOKENS
        window.wait_ms(0, bounds, 1.0, now_ms)
        found.append(Minute(asked, allowed, window.status(1.0, now_ms).limit))
    return found


WIDTH, HEIGHT, LEFT, GAP = 360, 180, 46, 44
LINES = {"asked": ("#cccccc", 3.0), "limit": ("#d62728", 2.5), "allowed": ("#1f77b4", 1.5)}
"""Colour and width; the narrow ones are drawn last, so that equal lines are all seen."""


def svg(runs: dict[str, list[Minute]]) -> str:
    """One panel a run, two a row; thousands of tokens a minute over minutes."""
    total_w, total_h = 2 * (LEFT + WIDTH) + 20, 2 * (HEIGHT + GAP) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_w} {total_h}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{total_w}" height="{total_h}" fill="white"/>',
    ]
    for index, (name, minutes) in enumerate(runs.items()):
        x = LEFT + index % 2 * (WIDTH + LEFT)
        y = 24 + index // 2 * (HEIGHT + GAP)
        parts += _panel(name, minutes, x, y)
    y = total_h - 8
    for index, (series, (colour, width)) in enumerate(LINES.items()):
        x = LEFT + 110 * index
        parts.append(
            f'<line x1="{x}" y1="{y - 4}" x2="{x + 20}" y2="{y - 4}" stroke="{colour}" stroke-width="{width}"/>'
        )
        parts.append(f'<text x="{x + 26}" y="{y}">{series}</text>')
    parts.append(f'<text x="{total_w - 20}" y="{y}" text-anchor="end">up: tokens a minute; right: minutes</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, minutes: list[Minute], x: int, y: int) -> Iterator[str]:
    # What an abusive caller asks for lies far above the panel; its line runs along the top, with a word.
    top = max(max(minute.limit, minute.allowed) for minute in minutes) * 1.15
    step = 10 ** math.floor(math.log10(top))
    yield f'<text x="{x}" y="{y - 6}" font-weight="bold">{name}</text>'
    yield f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888888"/>'
    for value in range(0, int(top) + 1, step if top / step > 2 else step // 2):
        at = y + HEIGHT - value / top * HEIGHT
        yield f'<line x1="{x}" y1="{at:.1f}" x2="{x + WIDTH}" y2="{at:.1f}" stroke="#eeeeee"/>'
        label = f"{value // 1000}k" if value else "0"
        yield f'<text x="{x - 4}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
    for value in range(0, len(minutes) + 1, 30):
        at = x + value / len(minutes) * WIDTH
        yield f'<text x="{at:.1f}" y="{y + HEIGHT + 14}" text-anchor="middle">{value}</text>'
    for series, (colour, width) in LINES.items():
        points = " ".join(
            f"{x + (at + 0.5) / len(minutes) * WIDTH:.1f},"
            f"{y + HEIGHT - min(getattr(minute, series) / top, 1.0) * HEIGHT:.1f}"
            for at, minute in enumerate(minutes)
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
    asked = max(minute.asked for minute in minutes)
    if asked > top:
        note = f"asked: {asked // 1000}k, above the picture"
        yield f'<text x="{x + WIDTH - 6}" y="{y + 18}" text-anchor="end" fill="#666666">{note}</text>'


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "docs" / "rate-limits.svg"
    path.write_text(svg({name: simulate(demand) for name, demand in TRAFFIC.items()}), encoding="utf-8")
    print(f"wrote {path}")
