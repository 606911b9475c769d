"""Constraints on the vocabulary of bytes: what a matcher allows, when it has ended, what is refused and why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event

import pytest

from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar.compiler import MAX_SOURCE_BYTES, MAX_WAITING_OF_ONE, ConstraintCompiler, GrammarError
from inferd.engine.grammar.constraint import CompiledConstraint, Matcher
from inferd.errors import OverloadedError
from tests.fakes import BEGIN, END, N_VOCAB, compiled, constraint_compiler

OBJECT = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}'


@dataclass
class Walk:
    """A matcher fed by hand."""

    matcher: Matcher

    def __post_init__(self) -> None:
        self.workers = ThreadPoolExecutor(1)

    def allowed(self) -> set[int]:
        self.matcher.prepare(self.workers)
        assert self.matcher.is_ready(10.0)
        mask = self.matcher.take_mask()
        assert mask is not None
        assert mask.shape == (N_VOCAB,)
        return {int(token_id) for token_id in mask.nonzero()[0]}

    def feed(self, text: bytes) -> bytes:
        """As much of the text as is allowed."""
        for index, byte in enumerate(text):
            if byte not in self.allowed():
                return text[:index]
            assert self.matcher.accept(byte)
        return text


@pytest.fixture(scope="module")
def compiler() -> Iterator[ConstraintCompiler]:
    with closing(constraint_compiler()) as made:
        yield made


def compile_all(compiler: ConstraintCompiler, *constraints: Constraint) -> list[CompiledConstraint]:
    """All at once, as the event loop does it."""

    async def compiled_all() -> list[CompiledConstraint]:
        return await asyncio.gather(*(compiler.compile(constraint) for constraint in constraints))

    return asyncio.run(compiled_all())


def walk(kind: ConstraintKind, source: str) -> Walk:
    return Walk(compiled(kind, source).matcher())


def test_a_schema_allows_what_validates_and_nothing_else() -> None:
    assert walk(ConstraintKind.JSON_SCHEMA, OBJECT).feed(b'{"a": 12}') == b'{"a": 12}'
    assert walk(ConstraintKind.JSON_SCHEMA, OBJECT).feed(b'{"a": "no"}') == b'{"a": '
    assert walk(ConstraintKind.JSON_SCHEMA, OBJECT).feed(b"sure: {") == b""


def test_a_matcher_has_ended_when_only_an_end_token_can_follow() -> None:
    walked = walk(ConstraintKind.JSON_SCHEMA, OBJECT)
    walked.feed(b'{"a":1')
    assert not walked.matcher.is_finished
    walked.feed(b"}")
    assert walked.matcher.is_finished
    assert walked.allowed() == {END}


def test_an_end_token_is_allowed_only_where_the_text_is_complete() -> None:
    walked = walk(ConstraintKind.REGEX, "ab?")
    assert END not in walked.allowed()
    walked.feed(b"a")
    assert walked.allowed() == {END, ord("b")}


def test_white_space_in_json_has_an_end() -> None:
    walked = walk(ConstraintKind.JSON_SCHEMA, OBJECT)
    assert walked.feed(b"{" + b"\n" * 100) == b"{\n\n"


def test_control_tokens_are_allowed_only_where_a_grammar_names_them() -> None:
    assert BEGIN not in walk(ConstraintKind.REGEX, "(.|\n)*").allowed()
    walked = walk(ConstraintKind.LARK, f'start: <[{BEGIN}]> "x"')
    assert walked.allowed() == {BEGIN}


def test_matchers_of_one_constraint_do_not_disturb_each_other() -> None:
    constraint = compiled(ConstraintKind.REGEX, "ab")
    first, second = Walk(constraint.matcher()), Walk(constraint.matcher())
    first.feed(b"ab")
    assert first.matcher.is_finished
    assert second.allowed() == {ord("a")}


def test_gbnf_is_read_as_well_as_lark() -> None:
    assert walk(ConstraintKind.GRAMMAR, 'root ::= "a" [0-9]+\n').feed(b"a42b") == b"a42"
    assert walk(ConstraintKind.GRAMMAR, 'start: "a" /[0-9]+/').feed(b"a42b") == b"a42"


@pytest.mark.parametrize(
    ("kind", "source", "reason"),
    [
        (ConstraintKind.JSON_SCHEMA, '{"not":{"type":"string"}}', "not"),
        (ConstraintKind.JSON_SCHEMA, '{"type":"array","uniqueItems":true}', "uniqueItems"),
        (ConstraintKind.JSON_SCHEMA, '{"type":"strin"}', "strin"),
        (ConstraintKind.JSON_SCHEMA, '{"$ref":"https://example.com/a.json"}', "example.com"),
        (ConstraintKind.JSON_SCHEMA, '{"type":"string","pattern":"("}', "regex"),
        (
            ConstraintKind.JSON_SCHEMA,
            '{"allOf":[{"type":"string"},{"type":"null"}]}',
            "nsatisfiable",
        ),
        (ConstraintKind.JSON_SCHEMA, '{"$ref":"#"}', "."),
        (ConstraintKind.JSON_SCHEMA, "{", "."),
        (ConstraintKind.REGEX, "a(", "regex"),
        (ConstraintKind.LARK, 'start: "a" (', "Expected"),
        (ConstraintKind.GRAMMAR, "root ::= (", "."),
        (ConstraintKind.LARK, 'start: "' + "a" * MAX_SOURCE_BYTES + '"', "longer than"),
    ],
)
def test_grammar_that_cannot_be_enforced_is_refused_with_the_reason(
    compiler: ConstraintCompiler, kind: ConstraintKind, source: str, reason: str
) -> None:
    with pytest.raises(GrammarError, match=reason):
        compile_all(compiler, Constraint(kind, source))


def test_lenient_schemas_lose_what_cannot_be_enforced() -> None:
    walked = walk(ConstraintKind.JSON_SCHEMA_LENIENT, '{"type":"array","uniqueItems":true}')
    assert walked.feed(b"[1,1]") == b"[1,1]"


def test_a_caller_cannot_make_a_strict_schema_lenient(compiler: ConstraintCompiler) -> None:
    source = '{"type":"array","uniqueItems":true,"x-guidance":{"lenient":true}}'
    with pytest.raises(GrammarError, match="uniqueItems"):
        compile_all(compiler, Constraint(ConstraintKind.JSON_SCHEMA, source))


CHAIN = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(3800)} | {"a3800": {"type": "string"}}
HOSTILE = {
    "a chain of references": Constraint(ConstraintKind.JSON_SCHEMA, json.dumps({"$defs": CHAIN, "$ref": "#/$defs/a0"})),
    "a chain of rules": Constraint(
        ConstraintKind.LARK, "\n".join(["start: a0", *(f"a{i}: a{i + 1}" for i in range(8000))])
    ),
    "regular expressions of all at once": Constraint(
        ConstraintKind.LARK, "start: A\nA: " + " & ".join(f"/(.*a){{{i}}}.*/" for i in range(1, 40))
    ),
    "deep brackets": Constraint(ConstraintKind.LARK, "start: " + "(" * 60_000),
    "deep arrays": Constraint(ConstraintKind.JSON_SCHEMA, '{"allOf":[' * 9000 + "{}" + "]}" * 9000),
    "deep GBNF": Constraint(ConstraintKind.GRAMMAR, "root ::= " + "(" * 2000 + '"a"' + ")" * 2000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_costs_its_sender_a_refusal_and_nobody_else(compiler: ConstraintCompiler, name: str) -> None:
    with pytest.raises(GrammarError):
        compile_all(compiler, HOSTILE[name])
    assert compile_all(compiler, Constraint(ConstraintKind.REGEX, f"({name})"))


def test_a_grammar_that_is_known_needs_no_second_trial(compiler: ConstraintCompiler) -> None:
    constraint = Constraint(ConstraintKind.JSON_SCHEMA, OBJECT)
    assert compile_all(compiler, constraint) == compile_all(compiler, constraint)


def test_new_schemas_of_one_tenant_that_wait_are_not_too_many(compiler: ConstraintCompiler) -> None:
    async def ask(n_tenants: int, n_each: int) -> int:
        """How many of so many new grammars are refused."""
        asked = [
            compiler.compile(Constraint(ConstraintKind.REGEX, f"x{n_tenants}y{tenant}z{i}of{n_each}"), f"team {tenant}")
            for i in range(n_each)
            for tenant in range(n_tenants)
        ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return sum(isinstance(each, OverloadedError) for each in found)

    assert asyncio.run(ask(1, MAX_WAITING_OF_ONE + 2)) == 2
    assert asyncio.run(ask(20, 2)) == 0, "a tenant's share is its own"


def test_nothing_is_compiled_once_it_is_closed() -> None:
    closed = constraint_compiler()
    closed.close()
    with pytest.raises(OverloadedError):
        compile_all(closed, Constraint(ConstraintKind.REGEX, "a"))


def test_waiting_for_a_thread_does_not_count_as_computing_a_mask() -> None:
    matcher = compiled(ConstraintKind.REGEX, "a", mask_timeout_s=0.0).matcher()
    gate = Event()
    with ThreadPoolExecutor(1) as workers:
        workers.submit(gate.wait)
        matcher.prepare(workers)
        assert not matcher.is_ready(0.0)
        assert not matcher.has_timed_out
        gate.set()
        assert matcher.is_ready(10.0)
        assert matcher.has_timed_out


def test_what_the_limits_of_llguidance_stop_within_a_text_is_not_accepted() -> None:
    walked = walk(ConstraintKind.REGEX, "ab")
    walked.feed(b"a")
    assert not walked.matcher.accept(ord("z"))
