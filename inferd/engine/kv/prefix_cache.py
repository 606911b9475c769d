"""Prefix cache: the tokens that are in memory, with running sequences, in parked branches, in host RAM.

Accounting only: the KV cache moves memory, and records it here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from inferd.engine.kv.radix_tree import RadixTree
from inferd.engine.runner import NO_SEQ_ID, SequenceState
from inferd.engine.sequence import Sequence

MIN_SHARED_TOKENS = 16
"""Minimum length of a hit: computing less is as fast as finding and copying it."""


@dataclass(slots=True, eq=False)
class Branch:
    """Parked token sequence whose keys and values are kept while no request computes on them. It has either a sequence
    id on the device or a `state` in host RAM.

    Attributes:
        token_ids: exactly the tokens in memory, from position 0 on.
        scope: requests of this scope may reuse it.
        tenant: its share of the cache is charged.
        session: opaque name of a conversation, or None; its newest branch is evicted last.
        last_used: tick of the cache.
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


Owner = Sequence | Branch


@dataclass(frozen=True, slots=True)
class Hit:
    """The first `length` tokens of a prompt are in the memory of `owner`, or will be."""

    owner: Owner
    length: int

    @property
    def is_pending(self) -> bool:
        """Whether the owner, a running sequence, has yet to compute some of the tokens."""
        return self.owner.num_computed_tokens < self.length


class PrefixCache:
    """Radix trees of token sequences, one a scope: a scope can neither use nor detect the tokens of another.

    Args:
        host_budget_bytes: host RAM for branches that are not on the device; 0 disables that tier.
        whole_only: for memory that cannot be cut: a branch is a hit only if all of it is a prefix.
        is_intact: is_intact(owner, length): whether the first `length` tokens in the owner's memory are still valid.
    """

    def __init__(
        self, *, host_budget_bytes: int, whole_only: bool, is_intact: Callable[[Owner, int], bool] = lambda *_: True
    ) -> None:
        self._host_budget_bytes = host_budget_bytes
        self._whole_only = whole_only
        self._is_intact = is_intact
        self._trees: dict[str, RadixTree[Owner]] = {}
        self._branches: dict[Branch, None] = {}
        self._host_bytes_by_tenant: Counter[str] = Counter()
        self._newest_of_session: dict[tuple[str, str], Branch] = {}
        self._tick = 0

    @property
    def host_bytes(self) -> int:
        return self._host_bytes_by_tenant.total()

    def branches(self) -> Iterator[Branch]:
        """Iterate over the parked branches; the cache must not change meanwhile."""
        return iter(self._branches)

    # Running sequences.

    def enter(self, sequence: Sequence) -> None:
        """Add a sequence that runs now: others may share what it has computed, and wait for what it will."""
        self._tree(sequence.request.cache_scope).insert(sequence, sequence.token_ids)

    def leave(self, sequence: Sequence) -> None:
        """Remove a sequence that ran."""
        self._remove(sequence.request.cache_scope, sequence)

    # Look-up.

    def find(self, sequence: Sequence, preferred: Owner | None = None, *, on_device_only: bool = False) -> Hit | None:
        """Return the longest prefix in memory, at least MIN_SHARED_TOKENS. It is never the whole sequence: the last
        token is computed again, for its logits, and so are tokens of a prompt whose log-probabilities are asked for.
        Among equal hits, that of `preferred` wins, else the oldest."""
        best: Hit | None = None
        limit = sequence.num_reusable_tokens
        for depth, owners in self._matches(sequence):
            if best is not None and depth <= best.length:
                break
            first = (preferred,) if preferred is not None and preferred in owners else ()
            for owner in (*first, *owners):
                if on_device_only and owner.seq_id == NO_SEQ_ID:
                    continue
                length = self._usable(owner, depth, limit)
                longer = length >= MIN_SHARED_TOKENS if best is None else length > best.length
                if longer and self._is_intact(owner, length):
                    best = Hit(owner, length)
                    if length == min(depth, limit):
                        break  # no other can have more
        return best

    def find_pending(self, sequence: Sequence, beyond: int) -> Hit | None:
        """Return a hit on a running sequence that is about to compute tokens which `sequence` needs after its first
        `beyond`."""
        if self._whole_only:
            return None
        for depth, owners in self._matches(sequence):
            shared = min(depth, sequence.num_reusable_tokens)
            if shared < beyond + MIN_SHARED_TOKENS:
                return None
            for owner in owners:
                if (
                    isinstance(owner, Sequence)
                    and owner.num_computed_tokens < shared
                    and owner.request.traffic_class <= sequence.request.traffic_class
                ):
                    return Hit(owner, shared)
        return None

    # Parked branches.

    def park(self, branch: Branch) -> bool:
        """Add a branch; return False if another owner has all of it."""
        self._tree(branch.scope).insert(branch, branch.token_ids)
        if self.is_covered(branch):
            self._remove(branch.scope, branch)
            return False
        self._branches[branch] = None
        self.touch(branch)
        if branch.num_bytes:
            self._host_bytes_by_tenant[branch.tenant] += branch.num_bytes
        if branch.session is not None:
            self._newest_of_session[branch.tenant, branch.session] = branch
        return True

    def touch(self, branch: Branch) -> None:
        """Mark a branch as the most recently used one."""
        self._tick += 1
        branch.last_used = self._tick

    def is_covered(self, branch: Branch) -> bool:
        """Return whether another owner has all of it in memory, or will soon: its loss costs nothing."""
        return any(self._covers(owner, branch) for owner in self._trees[branch.scope].beyond(branch))

    def covered_by(self, branch: Branch) -> list[Branch]:
        """Return the parked branches that are a prefix of this one."""
        return [
            owner
            for depth, owners in self._trees[branch.scope].matches(branch.token_ids)
            for owner in owners
            if isinstance(owner, Branch)
            and owner is not branch
            and len(owner.token_ids) == depth
            and self._covers(branch, owner)
        ]

    def move_to_host(self, branch: Branch, state: SequenceState) -> None:
        """Record that the branch has lost its sequence id, and that `state` is a copy of its memory."""
        assert branch.state is None, "it was on the device"
        branch.seq_id = NO_SEQ_ID
        branch.state = state
        self._host_bytes_by_tenant[branch.tenant] += branch.num_bytes

    def shorten(self, branch: Branch, length: int) -> None:
        """Record that the branch has lost the tokens after its first `length`."""
        assert 0 < length < len(branch.token_ids), "a part of it is left, and a part is lost"
        assert branch.state is None, "a state in host RAM cannot be cut"
        self._remove(branch.scope, branch)
        branch.token_ids = branch.token_ids[:length]
        self._tree(branch.scope).insert(branch, branch.token_ids)

    def drop(self, branch: Branch) -> None:
        """Remove a branch; its native memory, if it has any, is the caller's to empty."""
        del self._branches[branch]
        if branch.num_bytes:
            self._host_bytes_by_tenant[branch.tenant] -= branch.num_bytes
            self._host_bytes_by_tenant += Counter()  # tenants with nothing left are dropped
        if branch.session is not None and self._newest_of_session.get((branch.tenant, branch.session)) is branch:
            del self._newest_of_session[branch.tenant, branch.session]
        self._remove(branch.scope, branch)

    def fits_host(self, num_bytes: int) -> bool:
        return num_bytes <= self._host_budget_bytes

    def has_host_room(self, num_bytes: int) -> bool:
        """Return whether it fits host RAM without dropping others."""
        return self.host_bytes + num_bytes <= self._host_budget_bytes

    def shrink_host(self, keep: Owner | None = None) -> None:
        """Drop branches from host RAM until the rest is within the budget, those of least worth first. `keep` is about
        to be read and stays: the caller shrinks again after that."""
        while self.host_bytes > self._host_budget_bytes:
            victims = [branch for branch in self._branches if branch.state is not None and branch is not keep]
            if not victims:
                return
            self.drop(min(victims, key=self.worth))

    def worth(self, branch: Branch) -> tuple[bool, bool, int]:
        """Return the sort key of eviction: first branches of tenants above their fair share of host RAM, last the
        newest of each session; of equal ones the least recently used first."""
        fair_share = self._host_budget_bytes / max(1, len(self._host_bytes_by_tenant))
        within_share = self._host_bytes_by_tenant[branch.tenant] <= fair_share
        return within_share, self.is_newest_of_session(branch), branch.last_used

    def is_newest_of_session(self, branch: Branch) -> bool:
        session = None if branch.session is None else (branch.tenant, branch.session)
        return session is not None and self._newest_of_session.get(session) is branch

    def check_integrity(self) -> None:
        """Assert that trees, branches and byte counts agree."""
        for tree in self._trees.values():
            tree.check_integrity()
        host_bytes: Counter[str] = Counter()
        for branch in self._branches:
            assert branch in self._trees[branch.scope], "a branch is in its scope's tree"
            assert (branch.state is None) != (branch.seq_id == NO_SEQ_ID), "a branch is in one place"
            host_bytes[branch.tenant] += branch.num_bytes
        assert +host_bytes == self._host_bytes_by_tenant, "bytes add up"
        assert self.host_bytes <= self._host_budget_bytes, "the budget holds"
        for (tenant, session), branch in self._newest_of_session.items():
            assert branch in self._branches, "a session's newest branch is parked"
            assert (branch.tenant, branch.session) == (tenant, session), "a branch is its own session's newest"

    def _covers(self, owner: Owner, branch: Branch) -> bool:
        if self._whole_only:
            return isinstance(owner, Branch) and len(owner.token_ids) == len(branch.token_ids)
        return self._is_intact(owner, len(branch.token_ids))

    def _usable(self, owner: Owner, depth: int, limit: int) -> int:
        """Return how many tokens of an owner that agrees for `depth` tokens can be reused."""
        if not self._whole_only:
            return min(depth, owner.num_computed_tokens, limit)
        # A running sequence's state is already past its prompt; a branch's state is at its very end.
        whole = isinstance(owner, Branch) and depth == len(owner.token_ids) <= limit
        return depth if whole else 0

    def _matches(self, sequence: Sequence) -> Iterator[tuple[int, Collection[Owner]]]:
        tree = self._trees.get(sequence.request.cache_scope)
        return iter(()) if tree is None else tree.matches(sequence.token_ids)

    def _tree(self, scope: str) -> RadixTree[Owner]:
        return self._trees.setdefault(scope, RadixTree())

    def _remove(self, scope: str, owner: Owner) -> None:
        tree = self._trees[scope]
        tree.remove(owner)
        if not len(tree):
            del self._trees[scope]
