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
        shared_cache: teams share cached prefixes here.
        default_max_tokens: completion limit of a request that names none (BILLING R4).
        created_s: Unix time of its model file, shown by /v1/models.
    """

    name: str
    replica: LocalReplica
    price: Price | None
    default_max_tokens: int
    shared_cache: bool
    created_s: int

    def cache_scope(self, team: str, isolation_key: str | None) -> str:
        """Who shares prefixes with whom: a team with itself, and less than that with an isolation key of its own.
        The separator can be part of neither name."""
        if self.shared_cache and isolation_key is None:
            return f"shared\0{self.name}"
        return f"team\0{team}\0{isolation_key or ''}"

    @property
    def owner(self) -> str:
        return self.name.split("/", 1)[0]
