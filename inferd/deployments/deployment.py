"""Deployment: one name that callers use, and the replica that answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inferd.config import DeploymentConfig, Retirement
from inferd.deployments.capabilities import Capabilities
from inferd.deployments.local_replica import LocalReplica
from inferd.errors import InvalidRequestError, OverloadedError
from inferd.price import Price, ServiceTier

_LOADING_RETRY_AFTER_S = 5.0
_FAILED_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model under a name, with its price and terms. Several deployments may use one replica and share its batch.

    Attributes:
        name: `owner/name`, the `model` of requests, responses and usage rows.
        price: None for a public and free deployment.
        free_until_ms: the first moment at which `price` applies; None if it always does.
        retirement: its dates; None if none is planned.
        shared_cache: whether teams share cached prefixes.
        reasoning_field: name of the reasoning in answers to chats, "reasoning_content", "reasoning" or "both".
        tiers_ppm: multiplier of `price` for each service tier that it serves.
        max_compute_ms: compute time after which a request ends, if it is billed by time or a budget bounds it.
        default_max_tokens: completion limit of a request that names none (BILLING R4).
        created_s: Unix time of its model file, shown by /v1/models.
        aliases: its other names and patterns of them, as models.toml writes them.
    """

    name: str
    replica: LocalReplica
    price: Price | None
    default_max_tokens: int
    created_s: int
    tiers_ppm: Mapping[ServiceTier, int]
    max_compute_ms: int = DeploymentConfig.max_compute_ms
    free_until_ms: int | None = None
    retirement: Retirement | None = None
    shared_cache: bool = False
    reasoning_field: str = "reasoning_content"
    aliases: tuple[str, ...] = ()

    def capabilities(self, max_output_tokens: int | None = None) -> Capabilities:
        """Return what requests may ask of it.

        Args:
            max_output_tokens: most completion tokens that the caller's tier allows (BILLING R18); None: any.
        """
        replica, facts = self.replica, self.replica.facts
        room = replica.max_context - 1  # one token of the context is the prompt's
        max_output = room if max_output_tokens is None else min(room, max_output_tokens)
        if facts is not None and not facts.makes_text:
            return Capabilities(self.name, self.aliases, facts.max_embedding_tokens, None, facts)
        return Capabilities(self.name, self.aliases, replica.max_context, max_output, facts)

    def price_at(self, moment_ms: int, tier: ServiceTier = ServiceTier.DEFAULT) -> Price | None:
        """Return the price of requests of that tier admitted at that moment; None if they are free (BILLING R13)."""
        is_free = self.free_until_ms is not None and moment_ms < self.free_until_ms
        return None if is_free or self.price is None else self.price.times(self.tiers_ppm[tier])

    def is_gone(self, moment_ms: int) -> bool:
        """Return whether it is retired and takes no more requests; requests under way continue."""
        return self.retirement is not None and moment_ms >= self.retirement.gone_at_ms

    def check_tier(self, tier: ServiceTier) -> None:
        """Raise InvalidRequestError for a tier that it does not serve (BILLING R17)."""
        if tier in self.tiers_ppm:
            return
        served = [tier for tier in self.tiers_ppm if tier is not ServiceTier.BATCH]
        raise InvalidRequestError(
            f"The model `{self.name}` does not offer the service tier '{tier}'; it offers {', '.join(served)}.",
            param="service_tier",
            code="service_tier_unavailable",
        )

    def check_ready(self) -> None:
        """Raise OverloadedError while the model is not loaded."""
        if self.replica.failure is not None:
            raise OverloadedError(
                f"The model `{self.name}` is not available: its operator has to start it again.",
                retry_after_s=_FAILED_RETRY_AFTER_S,
            )
        if not self.replica.is_ready:
            raise OverloadedError(f"The model `{self.name}` is not ready yet.", retry_after_s=_LOADING_RETRY_AFTER_S)

    def check_chats(self) -> None:
        """Raise InvalidRequestError if the model has no chat template."""
        if not self.replica.chats:
            raise self._not_for("chat completions")

    def check_makes_text(self) -> None:
        """Raise InvalidRequestError if the model makes no text."""
        if not self.replica.makes_text:
            raise self._not_for("text completions")

    def check_makes_embeddings(self) -> None:
        """Raise InvalidRequestError if the model makes scores only."""
        if self.replica.head is not None:
            raise self._not_for("embeddings")

    def check_ranks(self) -> None:
        """Raise InvalidRequestError if the model is no reranker."""
        if self.replica.head is None or not self.replica.head.ranks:
            raise self._not_for("relevance scores")

    def check_classifies(self) -> None:
        """Raise InvalidRequestError if the model has no classification head."""
        if self.replica.head is None:
            raise self._not_for("labels")

    def _not_for(self, what: str) -> InvalidRequestError:
        head = self.replica.head
        if head is not None:
            kind, path = ("a reranker", "/v1/rerank") if head.ranks else ("a classifier", "/classify")
        elif self.replica.chats:
            kind, path = "a chat model", "/v1/chat/completions"
        else:
            kind, path = "an embedding model", "/v1/embeddings"
        return InvalidRequestError(
            f"The model `{self.name}` is {kind} and has no {what}; send it to POST {path}.",
            param="model",
            code="model_not_supported",
        )

    def cache_scope(self, team: str, isolation_key: str | None) -> str:
        """Return the scope of cached prefixes: a team, or one of its isolation keys; all teams with `shared_cache`. The
        separator can be part of neither name."""
        if self.shared_cache and isolation_key is None:
            return f"shared\0{self.name}"
        return f"team\0{team}\0{isolation_key or ''}"

    @property
    def owner(self) -> str:
        return self.name.split("/", 1)[0]
