"""Compiler of constraints for one vocabulary: equal ones once, new ones in fair turns of the tenants."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum

from llguidance import LLMatcher, LLTokenizer

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar.constraint import CompiledConstraint, grammar_of, json_grammar
from inferd.engine.grammar.trial import LIMITS, TOO_COMPLEX, UNFINISHED, GrammarVocabulary, TrialPool
from inferd.errors import OverloadedError, RateLimitError

MAX_SOURCE_BYTES = 128 * 1024
MAX_COMPILED = 64
"""Limit of cached grammars of all tenants; clients send the same schema with every request."""
MAX_IDLE_S = 300.0
"""Idle time after which a grammar is dropped: it keeps the states of its answers, 5 MiB for a hostile one."""
MAX_WAITING = 512
"""Limit of waiting new grammars of all tenants. A tenant without one may always add one."""
MAX_WAITING_OF_ONE = 32
RETRY_AFTER_S = 5.0
WINDOW_S = 60.0
MAX_FATAL = 3
"""Limit of grammars of one tenant that end the trial's process within WINDOW_S."""
HEAVY_S = 1.0
"""Processor time of trials within WINDOW_S above which a tenant leaves the first lane to others."""

logger = logging.getLogger(__name__)

_Key = tuple[ConstraintKind, str]


class Lane(IntEnum):
    """Queue of trials; one trial at a time runs in each lane."""

    FIRST = 0  # live requests of tenants with quick trials; a slow trial continues in the second lane
    SECOND = 1  # all trials: also slow ones, those of slow tenants, and batches once no live request waits


class GrammarError(Exception):
    """A grammar that cannot be enforced.

    Attributes:
        reason: llguidance's reason, or a limit of this compiler.
        path: path of the schema at fault among the constraint's `schemas`, if one alone is.
    """

    def __init__(self, reason: str, path: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


@dataclass(frozen=True, slots=True)
class Refusal:
    """Result of a trial that a grammar failed; see GrammarError."""

    reason: str
    path: str | None = None


@dataclass(slots=True)
class _Job:
    """A new grammar under way. Every request that waits for it awaits `done`.

    Attributes:
        is_slow: whether a quick trial was too short for it.
    """

    key: _Key
    constraint: Constraint
    tenant: str
    is_batch: bool
    done: asyncio.Future[CompiledConstraint | Refusal]
    is_running: bool = False
    is_slow: bool = False


@dataclass(slots=True)
class _Record:
    """Results of one tenant's trials within the last WINDOW_S.

    Attributes:
        trials: (end time, processor seconds) of each trial.
        fatal: times at which a grammar ended the trial's process.
    """

    trials: deque[tuple[float, float]] = field(default_factory=deque)
    fatal: deque[float] = field(default_factory=deque)

    def forget_before(self, then_s: float) -> None:
        while self.trials and self.trials[0][0] <= then_s:
            self.trials.popleft()
        while self.fatal and self.fatal[0] <= then_s:
            self.fatal.popleft()

    @property
    def is_heavy(self) -> bool:
        return bool(self.fatal) or sum(cpu_s for _, cpu_s in self.trials) > HEAVY_S


class ConstraintCache:
    """LRU cache of grammars, refused ones included. Over its size, the tenant with the most entries loses its oldest,
    so no tenant can evict those of another that has fewer. Entries that were not used for MAX_IDLE_S go as well.

    Args:
        clock_s: monotonic.
    """

    def __init__(self, max_entries: int = MAX_COMPILED, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._clock_s = clock_s
        self._entries: dict[_Key, CompiledConstraint | Refusal] = {}
        self._keys: dict[str, OrderedDict[_Key, float]] = {}
        self._num_owners: Counter[_Key] = Counter()

    def get(self, key: _Key, tenant: str) -> CompiledConstraint | Refusal | None:
        """Return the entry, and mark it as used by the tenant."""
        entry = self._entries.get(key)
        if entry is not None:
            self.put(key, tenant, entry)
        return entry

    def put(self, key: _Key, tenant: str, entry: CompiledConstraint | Refusal) -> None:
        """Add an entry, as the most recently used one of the tenant."""
        self._entries[key] = entry
        keys = self._keys.setdefault(tenant, OrderedDict())
        if key not in keys:
            self._num_owners[key] += 1
        keys[key] = self._clock_s()
        keys.move_to_end(key)
        for other, used in list(self._keys.items()):
            while used and next(iter(used.values())) <= self._clock_s() - MAX_IDLE_S:
                self._drop_oldest(other)
        while self._num_owners.total() > self._max_entries:
            self._drop_oldest(max(self._keys, key=lambda tenant: len(self._keys[tenant])))

    def _drop_oldest(self, tenant: str) -> None:
        keys = self._keys[tenant]
        key, _ = keys.popitem(last=False)
        if not keys:
            del self._keys[tenant]
        self._num_owners[key] -= 1
        if not self._num_owners[key]:
            del self._num_owners[key], self._entries[key]


class ConstraintCompiler:
    """Compiles constraints for one vocabulary, on two threads of its own, each new one after a trial in another
    process. Belongs to one event loop.

    Equal new grammars are compiled once. For different ones, the tenants take turns, live requests before batches. A
    tenant with slow trials uses the second lane only, so it delays only others of its kind; a tenant whose grammars end
    the trial's process MAX_FATAL times within WINDOW_S has to wait.

    Args:
        tokenizer: of the model that generates; not used after that is closed.
        vocabulary: the same as plain data, for trials.
        clock_s: monotonic.
    """

    def __init__(
        self, tokenizer: LLTokenizer, vocabulary: GrammarVocabulary, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._tokenizer = tokenizer
        self._trials = TrialPool(vocabulary, len(Lane))
        self._workers = ThreadPoolExecutor(len(Lane), thread_name_prefix="inferd-grammar")
        self._clock_s = clock_s
        self._cache = ConstraintCache(clock_s=clock_s)
        self._jobs: dict[_Key, _Job] = {}
        self._queue: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._num_waiting: Counter[str] = Counter()
        self._records: dict[str, _Record] = {}
        self._free_lanes = set(Lane)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def compile(self, constraint: Constraint, tenant: str = "", *, is_batch: bool = False) -> CompiledConstraint:
        """Return the compiled grammar: at once if it is cached, else after a trial (milliseconds, at most seconds).

        Raises:
            GrammarError: the grammar cannot be enforced.
            OverloadedError: too many grammars wait, of all tenants or of this one, or the model is being unloaded.
            RateLimitError: grammars of this tenant ended the trial's process too often.
        """
        if len(constraint.source.encode()) > MAX_SOURCE_BYTES:
            raise GrammarError(f"it is longer than {MAX_SOURCE_BYTES} bytes")
        key = (constraint.kind, constraint.source)
        found = self._cache.get(key, tenant)
        if found is None:
            found = await self._compile_new(key, constraint, tenant, is_batch=is_batch)
        if isinstance(found, Refusal):
            raise GrammarError(found.reason, found.path)
        return found

    def close(self) -> None:
        """Wait for compilations under way and end the trials' processes, before the model closes. On any thread."""
        self._is_closed = True
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._trials.close()

    async def _compile_new(
        self, key: _Key, constraint: Constraint, tenant: str, *, is_batch: bool
    ) -> CompiledConstraint | Refusal:
        job = self._jobs.get(key)
        if job is None or (job.is_batch and not is_batch and not job.is_running):
            self._check_turn(tenant, is_batch=is_batch)
            job = self._enqueue(key, constraint, tenant, is_batch=is_batch)
        self._num_waiting[tenant] += 1
        try:
            self._dispatch()
            found = await asyncio.shield(job.done)
        finally:
            self._num_waiting[tenant] -= 1
            self._num_waiting += Counter()  # tenants with none are dropped
        self._cache.put(key, tenant, found)
        return found

    def _check_turn(self, tenant: str, *, is_batch: bool) -> None:
        """Raise OverloadedError or RateLimitError if the tenant may not add a new grammar now."""
        n_own = self._num_waiting[tenant]
        is_full = n_own >= MAX_WAITING_OF_ONE or (n_own > 0 and self._num_waiting.total() >= MAX_WAITING)
        if self._is_closed or is_full:
            raise OverloadedError("Too many new schemas at once, please try again later", retry_after_s=RETRY_AFTER_S)
        wait_s = self._wait_s(tenant)
        if wait_s > 0.0:
            raise _too_fatal(wait_s, is_batch=is_batch)

    def _enqueue(self, key: _Key, constraint: Constraint, tenant: str, *, is_batch: bool) -> _Job:
        """Queue a new job. A live request takes over an equal job of a batch, with all requests that wait for it."""
        taken_over = self._jobs.get(key)
        if taken_over is not None:
            self._dequeue(taken_over)
        done = asyncio.get_running_loop().create_future() if taken_over is None else taken_over.done
        job = self._jobs[key] = _Job(key, constraint, tenant, is_batch, done)
        self._queue.setdefault(tenant, deque()).append(job)
        return job

    def _wait_s(self, tenant: str) -> float:
        """Seconds until the tenant may try a new grammar again."""
        self._forget_old()
        record = self._records.get(tenant)
        if record is None or len(record.fatal) < MAX_FATAL:
            return 0.0
        return record.fatal[-MAX_FATAL] + WINDOW_S - self._clock_s()

    def _forget_old(self) -> None:
        """Drop records older than WINDOW_S."""
        then_s = self._clock_s() - WINDOW_S
        for tenant, record in list(self._records.items()):
            record.forget_before(then_s)
            if not record.trials and not record.fatal:
                del self._records[tenant]

    def _dispatch(self) -> None:
        """Start a job in each free lane that has one."""
        for lane in sorted(self._free_lanes):
            job = self._next_job(lane)
            if job is not None:
                self._free_lanes.discard(lane)
                job.is_running = True
                task = asyncio.get_running_loop().create_task(self._run(job, lane), name="compile a grammar")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _next_job(self, lane: Lane) -> _Job | None:
        """Remove the next job from the queue and return it; its tenant goes to the end of the order."""
        self._forget_old()
        best: tuple[tuple[bool, bool], _Job] | None = None
        for tenant, jobs in self._queue.items():
            is_heavy = tenant in self._records and self._records[tenant].is_heavy
            quick = (job for job in jobs if not job.is_batch and not job.is_slow)
            live = (job for job in jobs if not job.is_batch)
            job = next(quick, None) or next(live, jobs[0])
            if lane is Lane.FIRST and (is_heavy or job.is_batch or job.is_slow):
                continue
            rank = (job.is_batch, is_heavy)
            if best is None or rank < best[0]:
                best = (rank, job)
        if best is None:
            return None
        self._queue.move_to_end(best[1].tenant)
        self._dequeue(best[1])
        return best[1]

    def _dequeue(self, job: _Job) -> None:
        jobs = self._queue[job.tenant]
        jobs.remove(job)
        if not jobs:
            del self._queue[job.tenant]

    async def _run(self, job: _Job, lane: Lane) -> None:
        """Run the trial of one job, then the lane's next job."""
        try:
            wait_s = self._wait_s(job.tenant)  # the tenant may have reached the limit while the job waited
            if wait_s > 0.0:
                raise _too_fatal(wait_s, is_batch=job.is_batch)
            loop, is_quick = asyncio.get_running_loop(), lane is Lane.FIRST
            found, cpu_s = await loop.run_in_executor(self._workers, self._try_and_compile, job.constraint, is_quick)
            self._note(job.tenant, cpu_s, is_fatal=isinstance(found, Refusal) and found.reason == TOO_COMPLEX)
            if isinstance(found, Refusal) and found.reason == UNFINISHED:
                job.is_running, job.is_slow = False, True
                self._queue.setdefault(job.tenant, deque()).append(job)
            else:
                job.done.set_result(found)
        except OSError as error:
            logger.error("no new schema can be tried: %s", error)
            job.done.set_exception(_unavailable())
        except Exception as error:  # noqa: BLE001 - raised in the requests that wait
            job.done.set_exception(_unavailable() if self._is_closed else error)
        finally:
            if job.is_running:
                self._end(job)
            self._free_lanes.add(lane)
            self._dispatch()

    def _end(self, job: _Job) -> None:
        del self._jobs[job.key]
        if not job.done.done():  # the loop is closing
            job.done.cancel()
        elif not job.done.cancelled():
            job.done.exception()  # retrieved, in case every waiting request is gone

    def _note(self, tenant: str, cpu_s: float, *, is_fatal: bool) -> None:
        now_s = self._clock_s()
        record = self._records.setdefault(tenant, _Record())
        record.trials.append((now_s, cpu_s))
        if is_fatal:
            record.fatal.append(now_s)

    def _try_and_compile(self, constraint: Constraint, is_quick: bool) -> tuple[CompiledConstraint | Refusal, float]:
        """Try and compile a grammar on a worker thread; return the result, and the processor seconds of the trial."""
        try:
            grammar = grammar_of(constraint)
        except ValueError as error:
            return Refusal(str(error)), 0.0
        with self._trials.borrowed() as trial:
            reason = trial.run(grammar, is_quick=is_quick)
            cpu_s = trial.cpu_s
            if reason in (TOO_COMPLEX, UNFINISHED):
                return Refusal(reason), cpu_s
            if reason is not None:
                return self._at_fault(constraint, trial.run) or Refusal(reason), cpu_s
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LIMITS)
        if matcher.is_error():
            return Refusal(matcher.get_error()), cpu_s
        return CompiledConstraint(matcher, self._tokenizer.vocab_size), cpu_s

    @staticmethod
    def _at_fault(constraint: Constraint, try_grammar: Callable[[str], str | None]) -> Refusal | None:
        """Return the refusal of the first of the constraint's schemas that is refused by itself too."""
        for path, schema in constraint.schemas if not constraint.faults else ():
            try:
                reason = try_grammar(json_grammar(schema, lenient=False))
            except ValueError as error:
                reason = str(error)
            if reason is not None:
                return Refusal(reason, path)
        return None


def _too_fatal(wait_s: float, *, is_batch: bool) -> RateLimitError | OverloadedError:
    """Return the error for a tenant over MAX_FATAL. A batch's line waits on a 503; a 429 would be its result."""
    message = (
        f"{MAX_FATAL} schemas or grammars of yours were too complex within {WINDOW_S:.0f} seconds; new ones are taken "
        f"again in {math.ceil(wait_s)} seconds. Schemas compiled before keep working."
    )
    if is_batch:
        return OverloadedError(message, retry_after_s=wait_s)
    return RateLimitError(message, code="too_many_failed_schemas", retry_after_s=wait_s)


def _unavailable() -> OverloadedError:
    return OverloadedError(
        "New schemas cannot be checked just now, please try again later", retry_after_s=RETRY_AFTER_S
    )
