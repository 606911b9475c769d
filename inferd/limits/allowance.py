"""Allowance of a caller: the numbers of its tier as bounds of rates, and its shares of concurrency."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from inferd.limits.adaptive_rate import Bounds
from inferd.plans import Tier
from inferd.subjects import project_subject, user_subject

Share = tuple[str, int | None]
"""A subject, such as `project:acme/inference`, and the most requests of it under way; None: no limit."""


@dataclass(frozen=True, slots=True)
class TeamRates:
    """Bounds of a team's rates a minute; None: no limit. `tokens`: total prompt, uncached prompt, generated, each per
    model."""

    requests: Bounds | None
    free_requests: Bounds | None
    tokens: tuple[Bounds, Bounds, Bounds] | None


@lru_cache(maxsize=64)
def rates_of(tier: Tier) -> TeamRates:
    """Return the rates of a tier (BILLING R11, R15). RPM with a least value adapts, and shrinks with
    the server's load."""
    ceiling = tier.token_rate_ceiling
    tokens = None
    if ceiling is not None:
        prompt, uncached, generated = (
            Bounds(least, least * ceiling) for least in (tier.prompt_tpm, tier.uncached_prompt_tpm, tier.generated_tpm)
        )
        tokens = (prompt, uncached, generated)
    return TeamRates(_rpm(tier.rpm, tier.rpm_min), _rpm(tier.free_rpm, tier.free_rpm_min), tokens)


def _rpm(most: int | None, least: int | None) -> Bounds | None:
    if most is None:
        return None
    return Bounds(most, most) if least is None else Bounds(least, most, sheds=True)


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of one caller at one moment.

    Attributes:
        project_concurrency, user_concurrency: the most requests under way; None: no limit.
        max_output_tokens: the most completion tokens of a request (BILLING R18); None: no limit.
    """

    team: str
    project: str
    user: str | None
    rates: TeamRates
    project_concurrency: int | None
    user_concurrency: int | None
    max_output_tokens: int | None = None

    @property
    def shares(self) -> tuple[Share, ...]:
        """The subjects whose requests under way are counted, each with its limit."""
        project = (project_subject(self.team, self.project), self.project_concurrency)
        if self.user is None:
            return (project,)
        return (project, (user_subject(self.team, self.user), self.user_concurrency))


UNLIMITED = Allowance("", "", None, TeamRates(None, None, None), None, None)
