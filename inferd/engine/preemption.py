"""Which running sequence gives its stream to a waiting one.

The form of the argument is that of Sheng et al., Fairness in Serving Large Language Models (OSDI 2024): a tenant that
waits is within a bounded amount of service of every other. Let n streams be shared by T tenants that have requests.

**A newcomer** waits for no lower class, and 10 s for a higher one. Within its class, a tenant with fewer streams than
its fair number, floor(n / T) >= 1, finds another one with at least two more: if every tenant had at most one more, all
together would have fewer than n. The youngest of that tenant gives way at once, however often it did before. With more
tenants than streams, or than the pool has cells for, a tenant without a stream is within its fair share if it was
served least. FairShare lets a newcomer begin level with the least served, so a tenant that ran since is above it and
gives way after SLICE_NS. So a newcomer gets a stream in the next step or, in that case, SLICE_NS later for every n - 1
newcomers before it, and its first rows within n steps more (`Scheduler._prefill`): in 2 n steps or 1 s, whichever is
later. It waits longer for a prefix that another sequence is computing for it, and while all streams recompute what they
lost because host RAM had no room.

**Progress.** Of the sequences that were preempted and have computed less than PROGRESS_TOKENS since, the oldest that
runs is not preempted. So the oldest of all is preempted at most once for each PROGRESS_TOKENS until it ends; then the
next one is the oldest. Batch has no such promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from inferd.engine.messages import TrafficClass
from inferd.engine.sequence import Sequence

SLICE_NS = 500_000_000
"""How long a sequence computes undisturbed before a newcomer of a tenant without a stream may take its stream."""
TURN_NS = 10_000_000_000
"""How long before a sequence that ran before, or another call of its own tenant, may."""
AGEING_NS = 10_000_000_000
"""A default request that has waited so long goes with the priority ones. Batch never ages."""


class Preemption:
    """Chooses victims among the sequences that run.

    Args:
        served: of a sequence's tenant, see FairShare.
    """

    def __init__(self, running: Iterable[Sequence], served: Callable[[Sequence], int], now_ns: int) -> None:
        self._running = list(running)
        self._served = served
        self._now_ns = now_ns
        self._by_tenant = Counter(s.request.tenant for s in self._running)
        self._by_group = Counter(s.group for s in self._running)
        owed = [s for s in self._running if s.is_owed_progress]
        self._protected = min(owed, key=lambda s: s.arrival, default=None)

    def party(self, sequence: Sequence) -> tuple[object, ...]:
        """Waiting sequences with equal ones have the same victims."""
        request = sequence.request
        # Called for every waiting sequence at every step: a subscript of a Counter takes longer where it finds nothing.
        num_streams = self._by_group.get(sequence.group, 0)
        is_returning, is_old = sequence.num_preemptions > 0, self._is_old(sequence)
        return request.tenant, request.traffic_class, num_streams, sequence.has_run, is_returning, is_old

    def victim(self, sequence: Sequence, spared: Collection[Sequence]) -> Sequence | None:
        """The sequence that gives its stream to a waiting one: of the lowest class, there of the tenant and then of the
        call with the most streams, the youngest. None: it has to wait."""
        able = [
            s for s in self._running if s is not self._protected and s not in spared and self._may_take(sequence, s)
        ]
        return max(able, key=self._dispensability, default=None)

    def _dispensability(self, other: Sequence) -> tuple[int, int, int, int, int]:
        tenant, group = self._by_tenant[other.request.tenant], self._by_group[other.group]
        return other.request.traffic_class, tenant, self._served(other), group, other.arrival

    def _may_take(self, sequence: Sequence, other: Sequence) -> bool:
        """A lower class gives way; but a sequence that was itself preempted waits for a slice. An equal class gives way
        to equal the streams out; a higher one does so to a default request that has waited long."""
        own_class, its_class = sequence.request.traffic_class, other.request.traffic_class
        if its_class is TrafficClass.BATCH is not own_class:
            return True
        if its_class > own_class:
            return sequence.num_preemptions == 0 or self._had(other, SLICE_NS)
        if its_class < own_class:
            may_rise = own_class is TrafficClass.DEFAULT and self._is_old(sequence)
            return may_rise and self._equals_out(sequence, other)
        return self._equals_out(sequence, other)

    def _equals_out(self, sequence: Sequence, other: Sequence) -> bool:
        """True if the other tenant, or call of the same tenant, has two streams more; or if this one has none and the
        other one has had its time."""
        same_tenant = sequence.request.tenant == other.request.tenant
        if same_tenant:
            own, its = self._by_group[sequence.group], self._by_group[other.group]
        else:
            own, its = self._by_tenant[sequence.request.tenant], self._by_tenant[other.request.tenant]
        if its >= own + 2:
            return True
        if own:
            return False
        if same_tenant:  # a batch's lines are in no hurry among themselves
            return sequence.request.traffic_class is not TrafficClass.BATCH and self._had(other, TURN_NS)
        return self._served(other) > self._served(sequence) and self._had(
            other, TURN_NS if sequence.has_run else SLICE_NS
        )

    def _had(self, other: Sequence, slice_ns: int) -> bool:
        """True if it has computed new tokens for so long; and for as long as it had to compute lost ones before."""
        recomputed_ns = other.slice_began_ns - other.stream_began_ns
        return self._now_ns - other.slice_began_ns >= max(slice_ns, recomputed_ns)

    def _is_old(self, sequence: Sequence) -> bool:
        return self._now_ns - sequence.queued_ns >= AGEING_NS
