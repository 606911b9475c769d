"""Router: from the name in a request to the deployment that answers."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping

from inferd.config import Aliases, Config
from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.compute_turn import ComputeTurn
from inferd.errors import ModelNotFoundError
from inferd.wire.ollama.models import DEFAULT_TAG


class Router:
    """All deployments of a configuration, and the replicas behind them.

    Args:
        clock_ms: Unix time, for retired deployments.
        aliases: other names of the deployments.
    """

    def __init__(
        self, deployments: Mapping[str, Deployment], clock_ms: Callable[[], int], aliases: Aliases | None = None
    ) -> None:
        self._deployments = dict(deployments)
        self._clock_ms = clock_ms
        self._aliases = aliases or Aliases()

    @classmethod
    def from_config(cls, config: Config, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> Router:
        """Return a router with one replica for each model that a deployment uses; nothing is loaded yet."""
        used = {deployment.model for deployment in config.deployments.values()}
        # All models share the one device that llama.cpp puts them on.
        turn = ComputeTurn()
        strips = config.server.strip_attribution
        replicas = {
            key: LocalReplica(model, turn, strips_attribution=strips)
            for key, model in config.models.items()
            if key in used
        }
        return cls(
            {
                name: Deployment(
                    name=name,
                    replica=replicas[deployment.model],
                    price=deployment.price,
                    tiers_ppm=deployment.tiers_ppm,
                    max_compute_ms=deployment.max_compute_ms,
                    free_until_ms=deployment.free_until_ms,
                    retirement=deployment.retirement,
                    default_max_tokens=deployment.default_max_tokens,
                    shared_cache=deployment.shared_cache,
                    reasoning_field=deployment.reasoning_field,
                    created_s=int(config.models[deployment.model].source.stat().st_mtime),
                    aliases=config.aliases.of(name),
                )
                for name, deployment in config.deployments.items()
            },
            clock_ms,
            config.aliases,
        )

    @property
    def replicas(self) -> list[LocalReplica]:
        """All replicas, each once."""
        return list({id(d.replica): d.replica for d in self._deployments.values()}.values())

    @property
    def is_ready(self) -> bool:
        """Whether every model is ready except failed ones, and not all have failed."""
        replicas = self.replicas
        served = [replica for replica in replicas if replica.failure is None]
        return bool(served or not replicas) and all(replica.is_ready for replica in served)

    async def look_at_files(self) -> None:
        """Stop each model whose files another process writes to."""
        for replica in self.replicas:
            await replica.look_at_files()

    @property
    def load(self) -> float:
        """Load of the fullest replica, 0 to 1."""
        return max((deployment.replica.load for deployment in self._deployments.values()), default=0.0)

    def deployments(self) -> list[Deployment]:
        """Return the deployments that take requests."""
        now_ms = self._clock_ms()
        return [deployment for deployment in self._deployments.values() if not deployment.is_gone(now_ms)]

    def find(self, name: str, may_use: Callable[[str], bool] = lambda name: True) -> Deployment:
        """Return the deployment of that name or alias; with the tag `:latest`, which clients of Ollama append, that of
        the name before it if there is no other.

        Args:
            may_use: whether the caller may use a deployment, which an error then may name.

        Raises:
            ModelNotFoundError: there is none, or it has been retired.
        """
        deployment = self._named(name) or self._named(name.removesuffix(DEFAULT_TAG))
        if deployment is None:
            raise ModelNotFoundError(
                f"The model `{name}` does not exist or you do not have access to it{self._guess(name, may_use)} "
                "GET /v1/models lists the ones you can use.",
                param="model",
            )
        if deployment.is_gone(self._clock_ms()):
            raise ModelNotFoundError(
                f"The model `{name}` has been retired. GET /v1/models lists the ones you can use.", param="model"
            )
        return deployment

    def _named(self, name: str) -> Deployment | None:
        return self._deployments.get(name) or self._deployments.get(self._aliases.target(name) or "")

    def _guess(self, name: str, may_use: Callable[[str], bool]) -> str:
        """Return a question for the nearest name or alias, or a full stop."""
        usable = [deployment for deployment in self.deployments() if may_use(deployment.name)]
        known = [known for deployment in usable for known in (deployment.name, *deployment.aliases)]
        nearest = difflib.get_close_matches(name, known, n=1)
        return f"; did you mean `{nearest[0]}`?" if nearest else "."
