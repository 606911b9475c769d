"""Trial of a grammar: it is compiled first in a process of its own, which a hostile grammar may end.

llguidance bounds most work, but not all: a chain of 20,000 `$ref`s overflows the stack, which ends the process, and
some regular expressions take minutes and gigabytes. A child process holds the vocabulary and forks for each trial, so
that a hostile grammar costs a fork, some milliseconds, and its sender a refusal.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

TRIAL_CPU_S = 2.0
"""Limit of processor time of one trial."""
QUICK_CPU_S = 0.3
"""Limit of processor time of a quick trial. Most take some milliseconds."""
TRIAL_PATIENCE_S = 20.0
"""Limit of the duration of a trial on a busy machine."""
START_TIMEOUT_S = 60.0
NICENESS = 10
QUICK_NICENESS = 3
"""Lower priority than the threads that compute: two that wait for each other are as slow as the slower one. A quick
trial takes little from them, and a request waits for it."""
MEMORY_BYTES = 2 * 2**30
STACK_BYTES = 1024 * 1024
"""Less than the stack of any thread that compiles the grammar again."""
MAX_MATCH_BYTES = 16
"""Maximum length of a token that forced text is cut into."""
MAX_FORCED_BYTES = 1024
"""Limit of forced text: each mask needs its first token only, and a grammar of 1 KB can force gigabytes."""
_REASON_BYTES = 16 * 1024
_END = b"\0"
_FROM_OUTSIDE = frozenset((signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
"""Signals that no grammar causes: the system reclaims memory, or an operator ends the process."""
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000, step_lexer_fuel=100_000, max_lexer_states=50_000, verbose_errors=False
)
"""Masks of a large regular expression take at most a second with these."""
logger = logging.getLogger(__name__)

UNFINISHED = "its trial takes longer than a quick one may"
TOO_COMPLEX = "it is too complex to be compiled here; make it smaller"


@dataclass(frozen=True, slots=True)
class GrammarVocabulary:
    """A vocabulary as llguidance needs it, as plain data.

    Attributes:
        tokens: each token's bytes; control tokens begin with 0xFF, which no text has.
        control_ids: ids of the control tokens.
        end_ids: tokens that end a turn.
    """

    tokens: tuple[bytes, ...]
    control_ids: tuple[int, ...]
    end_ids: tuple[int, ...]


class Outcome(Enum):
    """End of a trial."""

    JUDGED = "judged"  # llguidance accepted or refused the grammar
    FATAL = "fatal"  # the grammar ended the process
    LATE = "late"  # it used up its processor time
    KILLED = "killed"  # the process was ended from outside, or could not be made: no verdict on the grammar


@dataclass(frozen=True, slots=True)
class Verdict:
    """Report of a child on a trial. `reason`: llguidance's against the grammar, or ""; `cpu_s`: processor time."""

    outcome: Outcome
    reason: str = ""
    cpu_s: float = 0.0


class GrammarTrial:
    """Owner of one child process, which starts with the first trial or `start`. One thread at a time.

    Attributes:
        cpu_s: processor seconds that the last trial took.
    """

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self.cpu_s = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the child, if it does not run. Raises OSError."""
        if not self.is_alive:
            self.close()
            self._start()

    def run(self, grammar: str, *, is_quick: bool = False) -> str | None:
        """Return why llguidance refuses the grammar, or None if it compiles and has a first token.

        A trial whose process was killed from outside is repeated once.

        Args:
            is_quick: after QUICK_CPU_S return UNFINISHED, which is no verdict on the grammar.

        Raises:
            OSError: no process can be started, or it was killed twice.
        """
        for _ in range(2):
            self.start()
            verdict = self._judge(grammar, QUICK_CPU_S if is_quick else TRIAL_CPU_S)
            self.cpu_s = verdict.cpu_s
            if is_quick and verdict.outcome is Outcome.LATE:
                return UNFINISHED
            if verdict.outcome in (Outcome.FATAL, Outcome.LATE):
                return TOO_COMPLEX
            if verdict.outcome is Outcome.JUDGED:
                return verdict.reason or None
        raise OSError("the process for grammars was killed twice")

    def _judge(self, grammar: str, limit_s: float) -> Verdict:
        connection = self._connection
        try:
            if connection is not None:
                connection.send((grammar, limit_s))
                if connection.poll(2 * TRIAL_PATIENCE_S):
                    verdict: Verdict = connection.recv()
                    return verdict
        except (EOFError, OSError):
            pass
        self.close()
        return Verdict(Outcome.KILLED)

    def close(self) -> None:
        """End the child at once."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        self._process = self._connection = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), name="inferd-grammars", daemon=True)
        try:
            process.start()
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._process, self._connection = process, ours
        try:
            # Not as an argument: multiprocessing waits for ever for a child that ends before it has read its arguments.
            ours.send(self._vocabulary)
            if ours.poll(START_TIMEOUT_S) and ours.recv() == "ready":
                return
        except (EOFError, OSError):
            pass
        self.close()
        raise OSError("the process for grammars does not start")


class TrialPool:
    """Children for trials that run at the same time. All of them are started with the first trial, since a start takes
    a second. Thread-safe."""

    def __init__(self, vocabulary: GrammarVocabulary, n_children: int) -> None:
        self._idle = [GrammarTrial(vocabulary) for _ in range(n_children)]
        self._changed = threading.Condition()
        self._starter: threading.Thread | None = None
        self._is_closed = False

    @contextmanager
    def borrowed(self) -> Iterator[GrammarTrial]:
        """Lend a child that no other thread uses until the block ends. Raise OSError if it cannot be started."""
        trial = self._take()
        try:
            trial.start()
            self._start_another()
            yield trial
        finally:
            self._give_back(trial)

    def close(self) -> None:
        """End all children, the borrowed ones when they are returned."""
        with self._changed:
            self._is_closed = True
            idle, starter = list(self._idle), self._starter
        for trial in idle:
            trial.close()
        if starter is not None:
            starter.join()

    def _take(self) -> GrammarTrial:
        """Take an idle child, a running one if possible."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle)
            trial = next((trial for trial in self._idle if trial.is_alive), self._idle[0])
            self._idle.remove(trial)
            return trial

    def _give_back(self, trial: GrammarTrial) -> None:
        with self._changed:
            if self._is_closed:
                trial.close()
            self._idle.append(trial)
            self._changed.notify()

    def _start_another(self) -> None:
        with self._changed:
            stopped = next((trial for trial in self._idle if not trial.is_alive), None)
            if stopped is None or self._starter is not None or self._is_closed:
                return
            self._idle.remove(stopped)
            self._starter = threading.Thread(target=self._start, args=(stopped,), name="inferd-grammar-start")
            self._starter.start()

    def _start(self, trial: GrammarTrial) -> None:
        try:
            trial.start()
        except OSError as error:
            logger.warning("a process for grammars cannot be started: %s", error)
        with self._changed:
            self._starter = None
        self._give_back(trial)


class LongestMatch(TokenizerWrapper):
    """Vocabulary for llguidance that tokenises by the longest matching token."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self.eos_token_id = vocabulary.end_ids[0]
        self.bos_token_id = None
        self.tokens = vocabulary.tokens
        self.special_token_ids = vocabulary.control_ids
        self.is_tokenizer_wrapper = True
        control = set(vocabulary.control_ids)
        self._ids = {token: id_ for id_, token in enumerate(vocabulary.tokens) if token and id_ not in control}

    def __call__(self, text: str | bytes) -> list[int]:
        """Return tokens of the beginning of a text that a grammar forces, up to a byte that no token begins with."""
        data = (text.encode() if isinstance(text, str) else text)[:MAX_FORCED_BYTES]
        token_ids: list[int] = []
        start = 0
        while start < len(data):
            ends = range(min(start + MAX_MATCH_BYTES, len(data)), start, -1)
            end = next((end for end in ends if data[start:end] in self._ids), None)
            if end is None:
                break
            token_ids.append(self._ids[data[start:end]])
            start = end
        return token_ids


def tokenizer_of(vocabulary: GrammarVocabulary, tokens: LongestMatch | None = None) -> LLTokenizer:
    """Return llguidance's tokenizer, which takes some 0.4 s for 49,000 tokens; forced text is cut into `tokens`."""
    return LLTokenizer(tokens or LongestMatch(vocabulary), eos_token=list(vocabulary.end_ids))


def first_fault(tokenizer: LLTokenizer, grammar: str) -> str:
    """Compile a grammar and ask for its first token; return llguidance's reason against it, or ""."""
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    if matcher.is_error():
        return matcher.get_error() or "it cannot be compiled"
    possible = any(matcher.compute_bitmask())
    return "" if possible and not matcher.is_error() else matcher.get_error() or "no text can match it"


def _serve(connection: Connection) -> None:
    """Serve trials until the pipe closes. The child has one thread, so that it may fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server handles the terminal's Ctrl-C
    try:
        tokenizer = tokenizer_of(connection.recv())
    except EOFError:
        return
    gc.collect()
    gc.freeze()  # so that a fork copies no page only to count references
    _limit_memory()
    threading.stack_size(STACK_BYTES)
    connection.send("ready")
    while True:
        try:
            grammar, limit_s = connection.recv()
        except EOFError:
            return
        try:
            connection.send(_forked_trial(tokenizer, grammar, limit_s))
        except OSError:  # no process, no pipe
            connection.send(Verdict(Outcome.KILLED))


def _forked_trial(tokenizer: LLTokenizer, grammar: str, limit_s: float) -> Verdict:
    """Compile a grammar in a copy of this process. The system ends it after `limit_s` of a processor."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.nice(NICENESS if limit_s > QUICK_CPU_S else QUICK_NICENESS)
            signal.setitimer(signal.ITIMER_PROF, limit_s)
            thread = threading.Thread(target=_report_fault, args=(tokenizer, grammar, writer))
            thread.start()
            thread.join()
        finally:
            os._exit(0)
    os.close(writer)
    data, deadline_s = b"", time.monotonic() + TRIAL_PATIENCE_S
    while select.select([reader], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
        more = os.read(reader, 65536)
        if not more:
            break
        data += more
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(reader)
    _, status, used = os.wait4(pid, 0)
    cpu_s = used.ru_utime + used.ru_stime
    if data.endswith(_END):
        return Verdict(Outcome.JUDGED, data.removesuffix(_END).decode("utf-8", "replace"), cpu_s)
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    outcome = Outcome.KILLED if ended_by in _FROM_OUTSIDE else Outcome.FATAL
    return Verdict(Outcome.LATE if ended_by == signal.SIGPROF else outcome, cpu_s=cpu_s)


def _report_fault(tokenizer: LLTokenizer, grammar: str, writer: int) -> None:
    """Write the fault of a grammar to the pipe; called on a thread with a small stack."""
    os.write(writer, first_fault(tokenizer, grammar).encode()[:_REASON_BYTES] + _END)


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
