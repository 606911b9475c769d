"""A grammar's trial: it is compiled first in a process of its own, where it may do what hostile ones do.

llguidance bounds most work, but not all: a chain of 20,000 `$ref`s overflows the stack, which ends the process, and
some regular expressions take minutes and gigabytes. Here that costs a child process, and its sender a refusal.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

TRIAL_TIMEOUT_S = 2.0
"""Processor time of one trial."""
TRIAL_PATIENCE_S = 20.0
"""How long a trial may last on a machine that has no time for it."""
MAX_IDLE = 2
"""Children that are kept while no trial runs."""
START_TIMEOUT_S = 60.0
NICENESS = 10
"""Those who compute go first: two threads that wait for each other are as slow as the slower one."""
MEMORY_BYTES = 2 * 2**30
STACK_BYTES = 1024 * 1024
"""Less than any thread has on which it is compiled again."""
_LOOK_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000, step_lexer_fuel=100_000, max_lexer_states=50_000, verbose_errors=False
)
"""Some masks of a large regular expression take as long as these allow: a second at most."""
logger = logging.getLogger(__name__)

TOO_COMPLEX = "it is too complex to be compiled here; make it smaller"


@dataclass(frozen=True, slots=True)
class GrammarVocabulary:
    """What llguidance needs of a vocabulary, as plain data.

    Attributes:
        tokens: each token's bytes; control tokens begin with 0xFF, which no text has.
        control_ids: of the control tokens.
        end_ids: tokens that end a turn.
    """

    tokens: tuple[bytes, ...]
    control_ids: tuple[int, ...]
    end_ids: tuple[int, ...]


class GrammarTrial:
    """Owner of one child process, which starts with the first trial or `start`, and again after one that it did not
    survive. One thread at a time.

    Attributes:
        cpu_s: processor seconds that the last trial took; seconds of the clock where the system does not tell.
    """

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self.cpu_s = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the process runs and waits for a trial."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process, if it does not run. Raises OSError."""
        if not self.is_alive:
            self.close()
            self._start()

    def run(self, grammar: str) -> str | None:
        """Return why llguidance refuses the grammar, or None if it compiles and has a first token.

        A process that was killed by somebody else is started again, and the trial repeated once.

        Raises:
            OSError: no process can be started, or the system gives it no time, or it was killed twice.
        """
        for _ in range(2):
            self.start()
            try:
                return self._run(grammar)
            except EOFError:
                if not self._was_killed():
                    self.close()
                    return TOO_COMPLEX
            self.close()
        raise OSError("the process for grammars was killed twice")

    def _run(self, grammar: str) -> str | None:
        """Raises EOFError if the process ends meanwhile."""
        connection, began_s, began_cpu_s = self._connection, time.monotonic(), self._used_cpu_s()
        if connection is None:
            raise EOFError
        try:
            connection.send(grammar)
            while not connection.poll(_LOOK_S):
                elapsed_s = time.monotonic() - began_s
                used_s = self._used_cpu_s()
                self.cpu_s = elapsed_s if used_s is None or began_cpu_s is None else used_s - began_cpu_s
                if self.cpu_s >= TRIAL_TIMEOUT_S:
                    self.close()
                    return TOO_COMPLEX
                if elapsed_s >= TRIAL_PATIENCE_S:
                    self.close()
                    raise TimeoutError("the process for grammars gets no time of a processor")
            reason: str = connection.recv()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EOFError from error
        used_s = self._used_cpu_s()
        self.cpu_s = 0.0 if used_s is None or began_cpu_s is None else used_s - began_cpu_s
        return reason or None

    def _was_killed(self) -> bool:
        """Whether the process, which has ended, was ended by a signal that no grammar causes."""
        if self._process is None:
            return True
        self._process.join(START_TIMEOUT_S)
        return self._process.exitcode in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)

    def _used_cpu_s(self) -> float | None:
        """Processor time of the process so far; None where the system does not tell (only Linux does)."""
        try:
            stat = Path(f"/proc/{self._process.pid if self._process else 0}/stat").read_text()
        except OSError:
            return None
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS_PER_S

    def close(self) -> None:
        """End the process, whatever it does."""
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
        process = context.Process(target=_serve, args=(theirs, self._vocabulary), name="inferd-grammars", daemon=True)
        try:
            process.start()
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._process, self._connection = process, ours
        try:
            if ours.poll(START_TIMEOUT_S) and ours.recv() == "ready":
                return
        except (EOFError, OSError):
            pass
        self.close()
        raise OSError("the process for grammars does not start")


class TrialPool:
    """Children for trials that run at the same time. One more than are in use is started ahead, since a start takes a
    second and a hostile grammar costs a child. Thread-safe."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self._vocabulary = vocabulary
        self._idle: list[GrammarTrial] = []
        self._lock = threading.Lock()
        self._starter: threading.Thread | None = None
        self._is_closed = False

    @contextmanager
    def borrowed(self) -> Iterator[GrammarTrial]:
        """A child that no other thread uses until the block ends."""
        with self._lock:
            trial = self._idle.pop() if self._idle else GrammarTrial(self._vocabulary)
        try:
            trial.start()
            self._start_ahead()
            yield trial
        finally:
            self._give_back(trial)

    def close(self) -> None:
        """End all children that are not borrowed, and those that are when they come back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            starter = self._starter
        for trial in idle:
            trial.close()
        if starter is not None:
            starter.join()

    def _give_back(self, trial: GrammarTrial) -> None:
        with self._lock:
            is_kept = trial.is_alive and not self._is_closed and len(self._idle) < MAX_IDLE
            if is_kept:
                self._idle.append(trial)
        if not is_kept:
            trial.close()

    def _start_ahead(self) -> None:
        with self._lock:
            if self._idle or self._starter is not None or self._is_closed:
                return
            self._starter = threading.Thread(target=self._start_one, name="inferd-grammar-start", daemon=True)
            self._starter.start()

    def _start_one(self) -> None:
        trial = GrammarTrial(self._vocabulary)
        try:
            trial.start()
        except OSError as error:
            logger.warning("no process for grammars can be started ahead: %s", error)
        with self._lock:
            self._starter = None
        self._give_back(trial)


class _Tokens(TokenizerWrapper):
    """The vocabulary as llguidance takes it from Python; it tokenises byte by byte, which a trial can live with."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self.eos_token_id = vocabulary.end_ids[0]
        self.bos_token_id = None
        self.tokens = vocabulary.tokens
        self.special_token_ids = vocabulary.control_ids
        self.is_tokenizer_wrapper = True
        self._ids = {token: token_id for token_id, token in enumerate(vocabulary.tokens)}

    def __call__(self, text: str | bytes) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        return [self._ids[data[i : i + 1]] for i in range(len(data)) if data[i : i + 1] in self._ids]


def tokenizer_of(vocabulary: GrammarVocabulary) -> LLTokenizer:
    """A tokenizer without a model."""
    return LLTokenizer(_Tokens(vocabulary), eos_token=list(vocabulary.end_ids))


def first_fault(tokenizer: LLTokenizer, grammar: str) -> str:
    """Compiles a grammar and asks for its first token: llguidance's reason against it, or "" """
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    if matcher.is_error():
        return matcher.get_error() or "it cannot be compiled"
    possible = any(matcher.compute_bitmask())
    return "" if possible and not matcher.is_error() else matcher.get_error() or "no text can match it"


def _serve(connection: Connection, vocabulary: GrammarVocabulary) -> None:
    """The child's life: ends with the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the server's business
    os.nice(NICENESS)
    tokenizer = tokenizer_of(vocabulary)
    _limit_memory()
    threading.stack_size(STACK_BYTES)
    connection.send("ready")

    def serve() -> None:
        while True:
            try:
                grammar: str = connection.recv()
            except EOFError:
                return
            connection.send(first_fault(tokenizer, grammar))

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
