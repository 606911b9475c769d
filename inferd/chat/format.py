"""Chat format of one model: its chat template, the traits of that template, and the dialect of its answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from inferd.chat.answer_reader import AnswerReader
from inferd.chat.constraint import answer_constraint
from inferd.chat.conversation import conversation
from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.families import GENERIC, detect_dialect, with_reasoning
from inferd.chat.dialects.spec import ReasoningState
from inferd.chat.reasoning_mode import ReasoningMode
from inferd.chat.schemas.reader import SchemaDetail
from inferd.chat.template import ChatTemplate
from inferd.chat.traits import probe_template
from inferd.chat.turn_rules import arranged
from inferd.constraint import Constraint
from inferd.tokenizer import Segment
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.messages import Message, has_attribution, without_attribution
from inferd.wire.openai.template_kwargs import (
    KWARGS_FIELD,
    effort_variables,
    has_reasoning_switch,
    heard_efforts,
    is_effort_heard,
    template_variables,
    turns_reasoning_off,
)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Rendered request."""

    segments: Sequence[Segment]
    reasoning: ReasoningState

    @property
    def in_reasoning(self) -> bool:
        """True if the prompt ends in the opening of the model's reasoning."""
        return self.reasoning is ReasoningState.OPEN


class ChatFormat:
    """Chat format of one model. Every method may be called from any thread."""

    def __init__(self, template: ChatTemplate, *, strips_attribution: bool = True) -> None:
        """Probe the template. Raises ConfigError: it does not write a user's message, or exceeds its budget.

        Args:
            strips_attribution: leave out a first line of the system prompt that is for the client's own accounting.
        """
        self._template = template
        self._strips_attribution = strips_attribution
        family = detect_dialect(template.source)
        self._traits = probe_template(template, family)
        self.dialect = family if self._traits.writes_calls else with_reasoning(GENERIC, template.source)

    @property
    def template(self) -> str:
        """Jinja text of the chat template."""
        return self._template.source

    @property
    def reasons(self) -> bool:
        """True if answers may hold reasoning that the parser separates from content."""
        return self.dialect.channels or self.dialect.reasoning is not None

    @property
    def source(self) -> str:
        """Jinja text of the template."""
        return self._template.source

    @property
    def has_native_tools(self) -> bool:
        """Whether the template describes tools and writes calls of them; else inferd does."""
        return self._traits.describes_tools and self._traits.writes_calls

    @property
    def reasoning_mode(self) -> ReasoningMode:
        """Whether answers hold reasoning, found by rendering a question with and without it."""
        if not self.reasons:
            return ReasoningMode.NONE
        if not has_reasoning_switch(self._template.variables):
            return ReasoningMode.ALWAYS
        question = ChatRequest(model="", messages=[Message("user", "probe question")])
        off = self.prompt(msgspec.structs.replace(question, reasoning_effort="none"))
        return ReasoningMode.OFF if self.prompt(question).segments == off.segments else ReasoningMode.ON

    @property
    def efforts(self) -> tuple[str, ...]:
        """Values of `reasoning_effort` that the template tells apart, the highest first."""
        return heard_efforts(self._template.variables) if self.reasons else ()

    def notation(self, control_texts: Iterable[str]) -> list[str]:
        """Return the control tokens of calls and reasoning, which must be part of an answer's text."""
        markers = list(self.dialect.markers())
        return [text for text in control_texts if any(text in marker for marker in markers)]

    def prompt(self, request: ChatRequest) -> ChatPrompt:
        """Return the rendered prompt. Raises InvalidRequestError: the template refuses the messages."""
        tools, known = request.tool_set, self._template.variables
        variables = effort_variables(request.effort, known)
        variables |= template_variables(request.chat_template_kwargs, known, variables)
        if tools.functions and self._traits.describes_tools:
            variables["tools"] = tools.template_tools()
        elif self._traits.wants_list:
            variables["tools"] = []
        written = without_attribution(request.messages) if self._strips_attribution else request.messages
        rendered = conversation(written, tools, self.dialect, self._traits)
        messages = arranged(rendered, self._traits.turns)
        if request.continues:
            segments = self._template.continued(messages, **variables)
            return ChatPrompt(segments, self._reasoning_state(segments, otherwise=ReasoningState.CONTINUED))
        opens = request.add_generation_prompt is not False
        segments = self._template.render(messages, add_generation_prompt=opens, **variables)
        effort = request.effort
        is_heard = is_effort_heard(effort, known, reasons=self.reasons)
        is_off = turns_reasoning_off(effort if is_heard else None, variables)
        otherwise = ReasoningState.OFF if is_off else ReasoningState.FREE
        return ChatPrompt(segments, self._reasoning_state(segments, otherwise=otherwise))

    def strips_line(self, request: ChatRequest) -> bool:
        """Return whether the first line of the system prompt is left out."""
        return self._strips_attribution and has_attribution(request.messages)

    def unheard(self, request: ChatRequest) -> list[str]:
        """Return the paths of the request's fields that have no effect with this template."""
        known = self._template.variables
        is_heard = is_effort_heard(request.effort, known, reasons=self.reasons)
        unread = [f"{KWARGS_FIELD}.{name}" for name in request.chat_template_kwargs or () if name not in known]
        path = "reasoning_effort" if request.reasoning_effort else "reasoning.effort"
        return [*unread, *([] if is_heard else [path])]

    def constraint(
        self, request: ChatRequest, reasoning: ReasoningState, detail: SchemaDetail = SchemaDetail.FULL
    ) -> Constraint | None:
        """Return the constraint of the answer, as `answer_constraint` does."""
        return answer_constraint(request, self.dialect, reasoning, detail)

    def reader(self, request: ChatRequest, *, in_reasoning: bool) -> AnswerReader:
        """Return a reader of one answer to `request`."""
        tools = request.tool_set
        parser = answer_parser(
            self.dialect, tools.schemas, in_reasoning=in_reasoning, in_content=request.continues and not in_reasoning
        )
        return AnswerReader(parser, counts_reasoning=self.reasons and not request.stop_strings)

    def _reasoning_state(self, segments: Sequence[Segment], *, otherwise: ReasoningState) -> ReasoningState:
        """Return the state of reasoning after the prompt: `otherwise`, unless the prompt ends in a tag of it."""
        tags = self.dialect.reasoning
        if tags is not None and segments and segments[-1].special:
            words = segments[-1].text.rstrip()
            if words.endswith(tags.begin.rstrip()):
                return ReasoningState.OPEN
            if otherwise is ReasoningState.FREE and words.endswith(tags.end.rstrip()):
                return ReasoningState.OFF
        return otherwise
