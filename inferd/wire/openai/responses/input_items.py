"""`input` of a Responses request, translated from items to messages of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec

from inferd.wire.errors import invalid, unsupported_value
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import required
from inferd.wire.openai.messages import TEXT_ONLY, ContentPart, Message, check_num_parts, omitted
from inferd.wire.openai.responses.tools import flat_name
from inferd.wire.openai.tool_calls import CalledFunction, ToolCall

_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "reasoning_text", "summary_text"})
_Role = Literal["user", "assistant", "system", "developer"]
_EVERY = {"type", "id", "status"}
_FIELDS = {
    "message": _EVERY | {"role", "content"},
    "function_call": _EVERY | {"call_id", "name", "namespace", "arguments"},
    "function_call_output": _EVERY | {"call_id", "output"},
    "reasoning": _EVERY | {"content", "summary"},
}


class InputPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Part of a content. A part that is not text becomes a short text that says so."""

    type: str = "input_text"
    text: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    refusal: str | None = None
    image_url: Any = None
    file_id: Any = None
    detail: Any = None
    file_data: Any = None
    file_url: Any = None
    filename: Any = None
    input_audio: Any = None


class InputItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Item of any type; items of an output may be sent back unchanged. `id` and `status` have no effect on the
    answer."""

    type: str = "message"
    id: str | None = None
    status: str | None = None
    role: str | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | dict[str, Any] | None = None
    output: str | list[InputPart] | InputPart | None = None
    summary: list[InputPart] | None = None


class EarlierTurn(msgspec.Struct, frozen=True):
    """A turn of the conversation that was stored: what the model was given, and its answer."""

    input: str | list[InputItem]
    output: list[InputItem]

    def items(self) -> list[InputItem]:
        """Return all items of the turn, in their order."""
        return [*items_of(self.input), *self.output]


def items_of(given: str | list[InputItem]) -> list[InputItem]:
    """Return an input as items. A text is a message of the user."""
    return [InputItem(role="user", content=given)] if isinstance(given, str) else given


_FOREIGN = {kind: [name for name in InputItem.__struct_fields__ if name not in own] for kind, own in _FIELDS.items()}


class Conversation:
    """Builder of a chat's messages.

    Args:
        ignored: record for fields without effect.

    Attributes:
        names: paths of the messages and their parts -> the caller's paths.
    """

    def __init__(self, ignored: IgnoredFields) -> None:
        self._ignored = ignored
        self.names: dict[str, str] = {}
        self._messages: list[Message] = []
        # Items of the model in a row are one message: its reasoning, its text, its calls.
        self._reasoning: list[str] = []
        self._words: list[ContentPart] = []
        self._calls: list[ToolCall] = []

    def add_text(self, role: Literal["system", "user"], text: str, path: str) -> None:
        self.names[f"messages[{len(self._messages)}]"] = path
        self.names[f"messages[{len(self._messages)}].content"] = path
        self._messages.append(Message(role=role, content=text))

    def add_turns(self, turns: Sequence[EarlierTurn]) -> None:
        """Add the messages of stored turns. Their fields without effect were named when the turns were new."""
        items = [item for turn in turns for item in turn.items()]
        ignored, self._ignored = self._ignored, IgnoredFields()
        self._add_all(items, "previous_response_id")
        self._end_turn()
        self._ignored = ignored

    def add_items(self, items: Sequence[InputItem]) -> None:
        """Add the messages of items. Raises InvalidRequestError for an item that cannot be served."""
        self._add_all(items, "input")

    def _add_all(self, items: Sequence[InputItem], field: str) -> None:
        check_num_parts(field, (part for item in items for part in (item, item.content, item.output, item.summary)))
        for index, item in enumerate(items):
            self._add(item, f"{field}[{index}]")

    def messages(self) -> list[Message]:
        self._end_turn()
        return self._messages

    def _add(self, item: InputItem, path: str) -> None:
        if not self._is_served(item, path):
            return
        if item.type == "reasoning":
            self._begin_turn(path, ends_at=bool(self._reasoning or self._words))
            texts = self._parts(item.content, f"{path}.content")
            # Reasoning of other servers may have a summary only.
            texts = texts or self._parts(item.summary, f"{path}.summary")
            self._reasoning += [part.text for part in texts if part.text]
        elif item.type == "function_call":
            self._begin_turn(path, ends_at=False)
            self._add_call(item, path)
        elif item.type == "function_call_output":
            self._end_turn()
            self._name(path, tool_call_id=f"{path}.call_id", content=f"{path}.output")
            output = self._parts(item.output, f"{path}.output")
            call_id = required(item.call_id, f"{path}.call_id")
            self._messages.append(Message(role="tool", content=output or "", tool_call_id=call_id))
        else:
            self._add_message(item, path)

    def _add_message(self, item: InputItem, path: str) -> None:
        role = required(item.role, f"{path}.role")
        if role not in get_args(_Role):
            raise invalid(f"{path}.role", f"'{path}.role' must be one of {', '.join(get_args(_Role))}.")
        content = item.content
        if role == "assistant":
            self._begin_turn(path, ends_at=bool(self._words))
            self._words += self._parts(content, f"{path}.content") or [ContentPart("text", "")]
            return
        required(content, f"{path}.content")
        self._end_turn()
        self._name(path)
        parts = content if isinstance(content, str) else self._parts(content, f"{path}.content")
        self._messages.append(Message(role=role, content=parts))  # type: ignore[arg-type]

    def _add_call(self, item: InputItem, path: str) -> None:
        number = f"messages[{len(self._messages)}].tool_calls[{len(self._calls)}]"
        self.names |= {number: path, f"{number}.function": path, f"{number}.id": f"{path}.call_id"}
        self._calls.append(
            ToolCall(
                id=required(item.call_id, f"{path}.call_id"),
                function=CalledFunction(flat_name(item.namespace, required(item.name, f"{path}.name")), item.arguments),
            )
        )

    def _begin_turn(self, path: str, *, ends_at: bool) -> None:
        """Begin the model's turn; end the open one first if `ends_at`. Calls keep a turn open: only their results may
        follow them."""
        if ends_at and not self._calls:
            self._end_turn()
        if not (self._reasoning or self._words or self._calls):
            self._name(path)

    def _end_turn(self) -> None:
        if not (self._reasoning or self._words or self._calls):
            return
        self._messages.append(
            Message(
                role="assistant",
                content=self._words or ("" if not self._calls else None),
                reasoning_content="\n\n".join(self._reasoning) or None,
                tool_calls=self._calls or None,
            )
        )
        self._reasoning, self._words, self._calls = [], [], []

    def _name(self, path: str, **fields: str) -> None:
        message = f"messages[{len(self._messages)}]"
        self.names[message] = path
        self.names |= {f"{message}.{field}": name for field, name in fields.items()}

    def _is_served(self, item: InputItem, path: str) -> bool:
        """Return whether the item is read and not left out. Raises InvalidRequestError for a reference."""
        if item.type == "item_reference":
            raise unsupported_value(
                path,
                f"'{path}' refers to a stored item, but this server keeps no responses for you: send the item itself.",
            )
        if item.type not in _FIELDS:
            self._ignored.add(path, f"is left out: only items of the types {', '.join(_FIELDS)} are read")
            return False
        for field in _FOREIGN[item.type]:
            if getattr(item, field) is not None:
                self._ignored.add(f"{path}.{field}")
        return True

    def _parts(self, content: str | list[InputPart] | InputPart | None, path: str) -> list[ContentPart]:
        if isinstance(content, str):
            return [ContentPart("text", content)] if content else []
        texts = []
        for index, part in enumerate([content] if isinstance(content, InputPart) else content or ()):
            place = f"{path}[{index}]"
            if part.annotations:
                self._ignored.add(f"{place}.annotations")
            if part.type in _TEXT_PARTS:
                texts.append(ContentPart("text", required(part.text, f"{place}.text")))
            elif part.refusal is not None:
                texts.append(ContentPart("text", part.refusal))
            else:
                self._ignored.add(place, TEXT_ONLY)
                texts.append(ContentPart("text", omitted(part.type)))
        return texts
