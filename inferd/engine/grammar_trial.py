"""A grammar's trial: it is compiled first in a process of its own, where it may do what hostile ones do.

llguidance bounds most work, but not all: a chain of 20,000 `$ref`s overflows the stack, which ends the process, and
some regular expressions take minutes and gigabytes. Here that costs a child process, and its sender a refusal.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

TRIAL_TIMEOUT_S = 2.0
START_TIMEOUT_S = 60.0
NICENESS = 10
"""Those who compute go first: two threads that wait for each other are as slow as the slower one."""
MEMORY_BYTES = 2 * 2**30
STACK_BYTES = 1024 * 1024
"""Less than any thread has on which it is compiled again."""
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000, step_lexer_fuel=100_000, max_lexer_states=50_000, verbose_errors=False
)
"""Some masks of a large regular expression take as long as these allow: a second at most."""
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
    """Owns the child process: it starts with the first trial, and again after one that it did not survive. One thread
    at a time."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def run(self, grammar: str) -> str | None:
        """Why llguidance refuses the grammar, or None if it compiles and has a first token. Raises OSError if no
        process can be started."""
        connection = self._connection or self._start()
        try:
            connection.send(grammar)
            if connection.poll(TRIAL_TIMEOUT_S):
                reason: str = connection.recv()
                return reason or None
        except (EOFError, OSError):  # it did not survive
            pass
        self.close()
        return TOO_COMPLEX

    def close(self) -> None:
        """Ends the process, whatever it does."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        self._process = self._connection = None

    def _start(self) -> Connection:
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
                return ours
        except (EOFError, OSError):
            pass
        self.close()
        raise OSError("the process for grammars does not start")


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
