"""Admission: the order of the waiting sequences, and which running sequence a waiting one preempts.

The form of the argument is that of Sheng et al., Fairness in Serving Large Language Models (OSDI 2024): the service of
a waiting tenant is within a bounded amount of that of every other tenant. Let n be the number of sequences that can
run, shared by T tenants that have requests.

**A newcomer** waits for no lower class, and 10 s for a higher one. Within its class, if its tenant has fewer running
sequences than its fair number, floor(n / T) >= 1, another tenant has at least two more: if every tenant had at most one
more, all together would have fewer than n. The newest sequence of that tenant is preempted at once, regardless of
earlier preemptions. With more tenants than n, or than the pool has cells for, a tenant without a running sequence is
within its fair share if it was served least. FairShare lets a newcomer begin level with the least served, so a tenant
that ran since is above it, and its sequence can be preempted after SLICE_NS. So a newcomer is admitted in the next step
or, in that case, SLICE_NS later for every n - 1 newcomers before it, and gets its first rows within n steps more
(`Scheduler._plan_prefill`): in 2 n steps or 1 s, whichever is later. It waits longer for a prefix that another sequence
is computing for it, and while all running sequences recompute what they lost because host RAM had no room.

**Progress.** Of the sequences that were preempted and have computed less than PROGRESS_TOKENS since, the oldest running
one is not preempted. So the oldest of all is preempted at most once for each PROGRESS_TOKENS until it ends; then the
next one is the oldest. Batch has no such promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from inferd.engine.messages import TrafficClass
from inferd.engine.sequence import Sequence

SLICE_NS = 500_000_000
"""How long a sequence computes before a newcomer of a tenant without a running sequence may preempt it."""
TURN_NS = 10_000_000_000
"""How long before a sequence that ran before, or another call of its own tenant, may."""
AGEING_NS = 10_000_000_000
"""Waiting time after which a default request counts as a priority one. Batch never ages."""

Party = tuple[object, ...]
"""Key of waiting sequences that can preempt the same running ones."""


def claims(
    running: Collection[Sequence], served: Callable[[Sequence], int], now_ns: int
) -> Callable[[Sequence], tuple[int, bool, int, bool, int]]:
    """Return the sort key of admission. A default request counts as a priority one once it is old, or if its tenant has
    nothing that runs. Within a tenant, a call without a running sequence comes first."""
    running_tenants = {(s.request.tenant, s.is_batch) for s in running}
    running_calls = {s.group for s in running}

    def claim(sequence: Sequence) -> tuple[int, bool, int, bool, int]:
        traffic_class = sequence.request.traffic_class
        tenant_runs = (sequence.request.tenant, sequence.is_batch) in running_tenants
        is_old = now_ns - sequence.arrived_ns >= AGEING_NS
        if traffic_class is TrafficClass.DEFAULT and (is_old or not tenant_runs):
            traffic_class = TrafficClass.PRIORITY
        return traffic_class, tenant_runs, served(sequence), sequence.group in running_calls, sequence.turn

    return claim


def may_pass(sequence: Sequence, running: Collection[Sequence]) -> bool:
    """Return whether a waiting sequence may take cells that an earlier one waits for.

    Only a newcomer of a tenant without a running sequence may, because the earlier one has the same right to the
    newcomer's cells later. If all could, a sequence that needs many cells would never get them.
    """
    return not sequence.has_run and all(s.request.tenant != sequence.request.tenant for s in running)


class Preemption:
    """Choice of a victim among the running sequences.

    Args:
        served: service of a sequence's tenant, see FairShare.
    """

    def __init__(self, running: Iterable[Sequence], served: Callable[[Sequence], int], now_ns: int) -> None:
        self._running = list(running)
        self._served = served
        self._now_ns = now_ns
        self._by_tenant = Counter(s.request.tenant for s in self._running)
        self._by_group = Counter(s.group for s in self._running)
        owed = [s for s in self._running if s.is_owed_progress]
        self._protected = min(owed, key=lambda s: s.arrival, default=None)

    def party(self, sequence: Sequence) -> Party:
        """Return a key that is equal for waiting sequences with the same possible victims."""
        request = sequence.request
        # Called for every waiting sequence at every step: a subscript of a Counter takes longer where it finds nothing.
        num_running = self._by_group.get(sequence.group, 0)
        is_returning, is_old = sequence.num_preemptions > 0, self._is_old(sequence)
        return request.tenant, request.traffic_class, num_running, sequence.has_run, is_returning, is_old

    def victim(self, sequence: Sequence, spared: Collection[Sequence]) -> Sequence | None:
        """Choose a running sequence to preempt for `sequence`, or None.

        Prefer the lowest traffic class; within it the tenant, and then the call, with the most running sequences; of
        these the newest. Never one of `spared` (those admitted in this step).
        """
        able = [
            s for s in self._running if s is not self._protected and s not in spared and self._may_take(sequence, s)
        ]
        return max(able, key=self._dispensability, default=None)

    def _dispensability(self, other: Sequence) -> tuple[int, int, int, int, int]:
        tenant, group = self._by_tenant[other.request.tenant], self._by_group[other.group]
        return other.request.traffic_class, tenant, self._served(other), group, other.arrival

    def _may_take(self, sequence: Sequence, other: Sequence) -> bool:
        """Return whether `sequence` may preempt `other`: one of a lower class (but if it was preempted itself, only
        after a slice), one of an equal class to even out the running sequences, and one of a higher class to even them
        out for a default request that has waited long."""
        own_class, other_class = sequence.request.traffic_class, other.request.traffic_class
        if other_class is TrafficClass.BATCH is not own_class:
            return True
        if other_class > own_class:
            return sequence.num_preemptions == 0 or self._has_had(other, SLICE_NS)
        if other_class < own_class:
            may_rise = own_class is TrafficClass.DEFAULT and self._is_old(sequence)
            return may_rise and self._evens_out(sequence, other)
        return self._evens_out(sequence, other)

    def _evens_out(self, sequence: Sequence, other: Sequence) -> bool:
        """Return True if the other tenant, or call of the same tenant, has two running sequences more; or if this one
        has none and the other one has had its time."""
        is_same_tenant = sequence.request.tenant == other.request.tenant
        if is_same_tenant:
            own, others = self._by_group[sequence.group], self._by_group[other.group]
        else:
            own, others = self._by_tenant[sequence.request.tenant], self._by_tenant[other.request.tenant]
        if others >= own + 2:
            return True
        if own:
            return False
        if is_same_tenant:  # the lines of a batch do not compete with each other
            return not sequence.is_batch and self._has_had(other, TURN_NS)
        return self._served(other) > self._served(sequence) and self._has_had(
            other, TURN_NS if sequence.has_run else SLICE_NS
        )

    def _has_had(self, other: Sequence, slice_ns: int) -> bool:
        """Return whether it has computed new tokens for `slice_ns`, and for as long as it recomputed lost ones."""
        recomputed_ns = other.slice_began_ns - other.admitted_ns
        return self._now_ns - other.slice_began_ns >= max(slice_ns, recomputed_ns)

    def _is_old(self, sequence: Sequence) -> bool:
        return self._now_ns - sequence.queued_ns >= AGEING_NS
