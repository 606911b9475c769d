"""`messages` and `system`: content blocks -> messages of a chat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from inferd.errors import InvalidRequestError
from inferd.openai.call_history import CalledFunction, ToolCall
from inferd.openai.decoding import required
from inferd.openai.field_names import foreign_type
from inferd.openai.messages import ContentPart, Message, check_num_parts
from inferd.openai.sampling_fields import invalid

_EVERY = {"type", "cache_control"}
_FIELDS = {
    "text": _EVERY | {"text"},
    "thinking": {"type", "thinking", "signature"},
    "tool_use": _EVERY | {"id", "name", "input"},
    "tool_result": _EVERY | {"tool_use_id", "content", "is_error"},
}
_TYPES_OF_ROLE = {
    "system": frozenset({"text"}),
    "user": frozenset({"text", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "tool_use"}),
}
_TEXT = frozenset({"text"})
_ERROR_MARK = "Error: "


class CacheControl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hint that is always taken: every prefix is cached here, for as long as there is room."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A content block of any type; a block of an answer can come back as it went out."""

    type: str
    cache_control: CacheControl | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None
    is_error: bool | None = None

    # Known, so that they are refused by name.
    citations: Any = None
    data: Any = None
    source: Any = None
    title: Any = None
    context: Any = None
    caller: Any = None
    toolset_name: Any = None


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Conversation:
    """The chat's messages, as they are made.

    Attributes:
        messages: of the chat.
        names: of each message and its parts, what the caller called it.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.names: dict[str, str] = {}

    def add_system(self, system: str | Sequence[Block]) -> None:
        if system:
            self._add_text("system", system, "system")

    def add_turns(self, turns: Sequence[Turn]) -> None:
        """Turns of one role in a row are one turn, as they are for Anthropic. Raises InvalidRequestError."""
        check_num_parts("messages", _all_parts(turns))
        if turns and turns[-1].role == "assistant":
            path = f"messages[{len(turns) - 1}]"
            raise InvalidRequestError(
                f"'{path}' is the assistant's: an answer cannot be begun for the model here; end with the user's.",
                param=path,
                code="unsupported_value",
            )
        for index, turn in enumerate(turns):
            path = f"messages[{index}]"
            if turn.role == "assistant":
                self._add_assistant(turn, path)
            elif turn.role == "user":
                self._add_user(turn, path, follows=index > 0 and turns[index - 1].role == "user")
            else:
                self._add_text("system", turn.content, path)

    def _add_text(
        self, role: Literal["system", "user"], content: str | Sequence[Block], path: str, *, first: int = 0
    ) -> None:
        self.names[f"messages[{len(self.messages)}]"] = path
        if isinstance(content, str):
            self.messages.append(Message(role=role, content=content))
        else:
            blocks = list(_checked(content, f"{path}.content" if path != "system" else path, role, first=first))
            self.messages.append(Message(role=role, content=[_part(block, place) for block, place in blocks]))

    def _add_user(self, turn: Turn, path: str, *, follows: bool) -> None:
        blocks = [Block("text", text=turn.content)] if isinstance(turn.content, str) else turn.content
        if not blocks:
            raise invalid(f"{path}.content", f"'{path}.content' is an empty array: send at least one block.")
        n_results = 0
        for block, place in _checked(blocks, f"{path}.content", "user"):
            if block.type != "tool_result":
                break
            self._add_result(block, place)
            n_results += 1
        rest = blocks[n_results:]
        for number, block in enumerate(rest, n_results):
            if block.type == "tool_result":
                place = f"{path}.content[{number}]"
                raise invalid(place, f"'{place}' must come before the turn's text: results of tools come first.")
        if not rest:
            return
        last = self.messages[-1] if self.messages else None
        if follows and n_results == 0 and last is not None and last.role == "user":
            parts = [_part(block, place) for block, place in _checked(rest, f"{path}.content", "user")]
            if not isinstance(last.content, list):
                last = self.messages[-1] = Message(role="user", content=[ContentPart("text", last.content)])
            assert isinstance(last.content, list), "it was just made one"
            last.content.extend(parts)  # in place: there may be a hundred thousand of them
        elif isinstance(turn.content, str):
            self._add_text("user", turn.content, path)
        else:
            self._add_text("user", rest, path, first=n_results)

    def _add_result(self, block: Block, place: str) -> None:
        message = f"messages[{len(self.messages)}]"
        self.names |= {message: place, f"{message}.tool_call_id": f"{place}.tool_use_id"}
        content = block.content or ""
        if not isinstance(content, str):
            parts = _checked(content, f"{place}.content", "user", types=_TEXT)
            content = "\n".join(_part(part, name).text or "" for part, name in parts)
        self.messages.append(
            Message(
                role="tool",
                content=_ERROR_MARK + content if block.is_error else content,
                tool_call_id=required(block.tool_use_id, f"{place}.tool_use_id"),
            )
        )

    def _add_assistant(self, turn: Turn, path: str) -> None:
        number = len(self.messages)
        self.names[f"messages[{number}]"] = path
        if isinstance(turn.content, str):
            self.messages.append(Message(role="assistant", content=turn.content))
            return
        thoughts: list[str] = []
        words: list[ContentPart] = []
        calls: list[ToolCall] = []
        for block, place in _checked(turn.content, f"{path}.content", "assistant"):
            if block.type == "thinking":
                thoughts.append(required(block.thinking, f"{place}.thinking"))
            elif block.type == "text":
                words.append(_part(block, place))
            else:
                call = f"messages[{number}].tool_calls[{len(calls)}]"
                self.names |= {call: place, f"{call}.function": place}
                calls.append(_call(block, place))
        self.messages.append(
            Message(
                role="assistant",
                content=words or (None if calls else ""),
                reasoning_content="\n\n".join(filter(None, thoughts)) or None,
                tool_calls=calls or None,
            )
        )


def _all_parts(turns: Sequence[Turn]) -> Iterator[object]:
    for turn in turns:
        yield turn
        yield turn.content
        if not isinstance(turn.content, str):
            yield from (block.content for block in turn.content)


def _checked(
    blocks: Sequence[Block], path: str, role: str, *, first: int = 0, types: frozenset[str] | None = None
) -> Iterable[tuple[Block, str]]:
    """Each with its path, once it is of a type that may stand there and has only fields of it."""
    allowed = types or _TYPES_OF_ROLE[role]
    for index, block in enumerate(blocks, first):
        place = f"{path}[{index}]"
        if block.type not in allowed:
            raise foreign_type(place, block.type, allowed)
        for field in block.__struct_fields__:
            if field not in _FIELDS[block.type] and getattr(block, field) not in (None, []):
                raise InvalidRequestError(
                    f"'{place}.{field}' is not supported in a block of type '{block.type}'.",
                    param=f"{place}.{field}",
                    code="unsupported_parameter",
                )
        yield block, place


def _part(block: Block, place: str) -> ContentPart:
    return ContentPart("text", required(block.text, f"{place}.text"))


def _call(block: Block, place: str) -> ToolCall:
    arguments = msgspec.json.encode(required(block.input, f"{place}.input")).decode()
    name = required(block.name, f"{place}.name")
    return ToolCall(id=required(block.id, f"{place}.id"), function=CalledFunction(name, arguments))
