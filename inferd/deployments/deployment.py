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
        default_max_tokens: completion limit of a request that names none (BILLING R4).
        created_s: Unix time of its model file, shown by /v1/models.
    """

    name: str
    replica: LocalReplica
    price: Price | None
    default_max_tokens: int
    created_s: int

    @property
    def owner(self) -> str:
        return self.name.split("/", 1)[0]
