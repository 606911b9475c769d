"""One name that callers use, opening onto a replica."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.deployments.local_replica import LocalReplica
from inferd.price import Price


@dataclass(frozen=True, slots=True)
class Deployment:
    """A door: several may open onto one replica and share its batch.

    Attributes:
        name: `owner/name`, the `model` of requests, responses and usage rows.
        price: None means public and free.
        free_until_ms: the first moment at which `price` holds; None: it always does.
        shared_cache: teams share cached prefixes here.
        default_max_tokens: completion limit of a request that names none (BILLING R4).
        created_s: Unix time of its model file, shown by /v1/models.
    """

    name: str
    replica: LocalReplica
    price: Price | None
    default_max_tokens: int
    created_s: int
    free_until_ms: int | None = None
    shared_cache: bool = False

    def price_at(self, moment_ms: int) -> Price | None:
        """The price of requests admitted at that moment; None: free (BILLING R13)."""
        is_free = self.free_until_ms is not None and moment_ms < self.free_until_ms
        return None if is_free else self.price

    def cache_scope(self, team: str, isolation_key: str | None) -> str:
        """Who shares prefixes with whom: a team with itself, and less than that with an isolation key of its own.
        The separator can be part of neither name."""
        if self.shared_cache and isolation_key is None:
            return f"shared\0{self.name}"
        return f"team\0{team}\0{isolation_key or ''}"

    @property
    def owner(self) -> str:
        return self.name.split("/", 1)[0]
