"""Grammar for the answers of a dialect, in llguidance's Lark: calls can be parsed and fit their schemas; reasoning and
plain text are free.

Text before a marker is a lazy lexeme that ends with the marker, so a call must follow every marker.
https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inferd.chat.dialects.arguments_grammar import ArgumentsGrammar
from inferd.chat.dialects.lark import LarkRules, literal, regex_of
from inferd.chat.dialects.spec import CallFormat, Dialect, ReasoningState


@dataclass(frozen=True, slots=True)
class CallableTool:
    """Tool that an answer may call. With `strict`, each keyword of the schema is enforced or the request is refused;
    without it, keywords that cannot be enforced are left out."""

    name: str
    schema: dict[str, Any]
    strict: bool


def answer_grammar(
    dialect: Dialect,
    tools: Sequence[CallableTool],
    *,
    reasoning: ReasoningState = ReasoningState.FREE,
    required: bool = False,
    parallel: bool = True,
    content: str | None = None,
) -> str:
    """Return a Lark grammar for whole answers.

    Args:
        reasoning: whether the answer may begin with reasoning, or continues a text.
        required: whether the answer must be a call, with only reasoning before it.
        parallel: whether several calls are allowed; a dialect with one call a message allows one.
        content: Lark expression for an answer without calls; None for any text.

    Raises:
        InvalidRequestError: the dialect's notation of arguments cannot express a schema.
    """
    rules = LarkRules()
    rules.add("TEXT", r"/(.|\n)*/")
    build = _ChannelGrammar if dialect.channels else _RegionGrammar
    start = build(rules, dialect, tools).answer(
        reasoning, required=required, parallel=parallel and not dialect.one_call, content=content
    )
    rules.add("start", start)
    return rules.text()


class _RegionGrammar:
    """Grammar of reasoning between tags, then text and calls."""

    def __init__(self, rules: LarkRules, dialect: Dialect, tools: Sequence[CallableTool]) -> None:
        self._rules = rules
        self._dialect = dialect
        self._tools = tools

    def answer(self, state: ReasoningState, *, required: bool, parallel: bool, content: str | None) -> str:
        """Return the body of the rule `start`."""
        self._rules.add("ANSWER", self._answer_text())
        if not self._tools:
            body = content or "ANSWER"
        elif required:
            body = self._calls(self._dialect.formats[0], parallel=parallel)
        else:
            body = self._free(parallel=parallel, content=content)
        reasoning = self._dialect.reasoning
        if reasoning is None or state in (ReasoningState.OFF, ReasoningState.CONTINUED):
            return body
        self._rules.add("thought", f"TEXT {literal(reasoning.end)}", lazy=True)
        self._rules.add("SPACE", r"/\s{0,4}/")
        gap = "SPACE" if required or content else ""
        if state is ReasoningState.OPEN:
            return f"thought {gap} ({body})"
        return f"({literal(reasoning.begin.rstrip())} thought {gap})? ({body})"

    def _answer_text(self) -> str:
        """Return an expression for text that the parser reads as content."""
        text = "TEXT"
        if self._dialect.reasoning is not None:
            text += rf" & ~/\s*{regex_of(self._dialect.reasoning.begin.rstrip())}(.|\n)*/"
        if self._dialect.is_bare and self._tools:
            text += r' & ~/\s*\{\s*"name"(.|\n)*/'
        return text

    def _free(self, *, parallel: bool, content: str | None) -> str:
        """Return an expression for text and calls in any order; with `content`, for calls or content of that form."""
        if content is not None:
            return f"({self._calls(self._dialect.formats[0], parallel=parallel)}) | {content}"
        heads = []
        for number, trigger in enumerate(self._dialect.triggers):
            format = self._format_of(trigger)
            self._rules.add(f"head_{number}", f"ANSWER {literal(trigger)}", lazy=True)
            heads.append(f"head_{number} {self._calls(format, after=trigger, parallel=parallel)}")
        if self._dialect.is_bare:
            heads.append(self._calls(self._dialect.formats[0], parallel=parallel))
        calls = f"({' | '.join(heads)})"
        return f"{calls}* ANSWER" if parallel else f"{calls} | ANSWER"

    def _format_of(self, trigger: str) -> CallFormat:
        """Return the first format that begins with the trigger and has a grammar."""
        return next(
            format
            for format in self._dialect.formats
            if (format.section_begin + format.begin).startswith(trigger) and format.notation != "python"
        )

    def _calls(self, format: CallFormat, *, parallel: bool, after: str = "") -> str:
        """Return an expression for a section of calls; `after`: the part of its beginning that was written."""
        opening = (format.section_begin + format.begin).removeprefix(after)
        call = self._call(format)
        more = f"({literal(format.separator + format.begin)} {call})*" if parallel else ""
        if after and not format.section_begin and not format.separator.strip():
            more = ""  # the next call has its own marker, after any text
        return " ".join(filter(None, [literal(opening), call, more, literal(format.section_end)]))

    def _call(self, format: CallFormat) -> str:
        """Return the rule for a call of any tool, from after the beginning of the format."""
        key = f"call_{self._dialect.formats.index(format)}"
        if not self._rules.has(key):
            bodies = [self._body(format, tool, f"{key}_{number}") for number, tool in enumerate(self._tools)]
            self._rules.add(key, f"({' | '.join(bodies)}) {literal(format.end)}".rstrip())
        return key

    def _body(self, format: CallFormat, tool: CallableTool, prefix: str) -> str:
        arguments = ArgumentsGrammar(self._rules, format, prefix, strict=tool.strict).rule(tool.schema)
        if format.name_end is None:
            head = f'{{"name": {json.dumps(tool.name)}, "{format.arguments_key}": '
            return f"{literal(head)} {arguments} {literal('}')}"
        call_id = f"{literal(format.name_end)} /{format.id_pattern}/" if format.id_pattern else ""
        head = tool.name if call_id else tool.name + format.name_end + format.arguments_begin
        tail = literal(format.arguments_begin) if call_id else ""
        return " ".join(filter(None, [literal(head), call_id, tail, arguments]))


class _ChannelGrammar:
    """Grammar of messages on channels, which gpt-oss writes."""

    def __init__(self, rules: LarkRules, dialect: Dialect, tools: Sequence[CallableTool]) -> None:
        self._rules = rules
        self._tools = tools

    def answer(self, state: ReasoningState, *, required: bool, parallel: bool, content: str | None) -> str:
        """Return the body of the rule `start`."""
        assert state is not ReasoningState.OPEN, "a prompt ends before the channel"
        assert not parallel, "one call ends the answer"
        self._rules.add("body", f"TEXT {literal('<|end|>')}", lazy=True)
        restart = literal("<|start|>assistant")
        is_off = state is ReasoningState.OFF
        before = "" if is_off else f"({literal('<|channel|>analysis<|message|>')} body {restart})*"
        if self._tools and not required:
            before += f" ({literal('<|channel|>commentary<|message|>')} body {restart})?"
        call = f"({' | '.join(self._call(tool, number) for number, tool in enumerate(self._tools))})"
        if state is ReasoningState.CONTINUED:
            return f"TEXT | body {restart} {call}"
        final = f"{literal('<|channel|>final<|message|>')} {content or 'TEXT'}"
        if required:
            return f"{before} {call}"
        return f"{before} ({call} | {final})" if self._tools else f"{before} {final}"

    def _call(self, tool: CallableTool, number: int) -> str:
        """Return an expression for a call. Models write the recipient after the channel, their template before it."""
        arguments = ArgumentsGrammar(self._rules, CallFormat(), f"call_{number}", strict=tool.strict).rule(tool.schema)
        written = f"<|channel|>commentary to=functions.{tool.name} <|constrain|>json<|message|>"
        rendered = f" to=functions.{tool.name}<|channel|>commentary json<|message|>"
        return f"({literal(written)} | {literal(rendered)}) {arguments}"
