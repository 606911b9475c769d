"""A token sequence whose keys and values are kept although nobody computes on them now."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.engine.runner import SequenceState

NO_SEQ_ID = -1


@dataclass(slots=True, eq=False)
class Branch:
    """Parked: either in a device stream (`seq_id`) or in host RAM (`state`), never in both, never in neither.

    Attributes:
        token_ids: exactly the tokens in memory, from position 0 on.
        scope: who may reuse it.
        tenant: whose share of the cache it counts against.
        session: opaque name of a conversation, or None; its newest branch is evicted last.
        last_used: the cache's own tick count.
    """

    token_ids: tuple[int, ...]
    scope: str
    tenant: str
    session: str | None
    last_used: int
    seq_id: int = NO_SEQ_ID
    state: SequenceState | None = None

    @property
    def num_computed_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_bytes(self) -> int:
        """Host RAM that it takes."""
        return 0 if self.state is None else len(self.state)
