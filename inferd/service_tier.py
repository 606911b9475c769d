"""Service tiers: which traffic goes first, and at what multiple of the price (BILLING R12, R17, R23)."""

from __future__ import annotations

from enum import StrEnum

from inferd.price import PPM

BATCH_MULTIPLIER_PPM = PPM // 2


class ServiceTier(StrEnum):
    """As it is named in requests, responses and usage rows."""

    DEFAULT = "default"
    PRIORITY = "priority"  # before all others, at a premium
    FLEX = "flex"  # answered at once, but computed in what the others leave over; at the price of batch
    BATCH = "batch"  # the lines of /v1/batches
