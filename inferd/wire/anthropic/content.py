"""`messages` and `system` of a Messages request, translated from content blocks to messages of a chat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from inferd.wire.errors import invalid
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import required
from inferd.wire.openai.messages import TEXT_ONLY, ContentPart, Message, check_num_parts, omitted
from inferd.wire.openai.tool_calls import CalledFunction, ToolCall

_FIELDS = {
    "text": {"text"},
    "thinking": {"thinking", "signature"},
    "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error"},
}
_ERROR_MARK = "Error: "


class CacheControl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Caching hint; without effect, as every prefix is cached while there is room."""

    type: str = "ephemeral"
    ttl: str | None = None


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content block of any type; blocks of an answer may be sent back unchanged."""

    type: str
    cache_control: CacheControl | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: str | list[Block] | Block | None = None
    is_error: bool | None = None

    # Fields of types that become a short text or are left out.
    citations: Any = None
    data: Any = None
    source: Any = None
    title: Any = None
    tool_name: Any = None


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block] | None = None


class Conversation:
    """Builder of a chat's messages.

    Args:
        ignored: record for fields without effect.
        deferred: names of deferred tools -> definitions, which stand where a block refers to the tool.

    Attributes:
        messages: messages of the chat.
        names: paths of the messages and their parts -> the caller's paths.
        found: names of the deferred tools that a block refers to.
    """

    def __init__(self, ignored: IgnoredFields, deferred: Mapping[str, str]) -> None:
        self._ignored = ignored
        self._deferred = deferred
        self.found: set[str] = set()
        self.messages: list[Message] = []
        self.names: dict[str, str] = {}

    def add_system(self, system: str | Sequence[Block]) -> None:
        if system:
            self._add_text("system", system, "system")

    def add_turns(self, turns: Sequence[Turn]) -> None:
        """Add turns; turns of one role in a row become one message, as at Anthropic. Raises InvalidRequestError.

        System turns before the first of the assistant go to the front. Claude Code writes its surroundings there, 2,300
        tokens behind the user's first words: new sessions would share none of them.
        """
        check_num_parts("messages", _all_parts(turns))
        previous = ""
        for index in _system_first(turns):
            turn, path = turns[index], f"messages[{index}]"
            if turn.role == "assistant":
                self._add_assistant(turn, path)
            elif turn.role == "user":
                self._add_user(turn, path, follows=previous == "user")
            else:
                self._add_text("system", turn.content or "", path)
            previous = turn.role
        if turns and previous == "assistant" and not (self.messages[-1].text() or self.messages[-1].tool_calls):
            self._ignored.add(f"messages[{len(turns) - 1}]", "is the last message, and has no text to continue")
            self.messages.pop()

    def _add_text(
        self, role: Literal["system", "user"], content: str | Sequence[Block], path: str, *, first: int = 0
    ) -> None:
        message = f"messages[{len(self.messages)}]"
        self.names |= {message: path, f"{message}.content": path if path == "system" else f"{path}.content"}
        place = self.names[f"{message}.content"]
        parts = content if isinstance(content, str) else self._parts(content, place, first=first)
        self.messages.append(Message(role=role, content=parts))

    def _add_user(self, turn: Turn, path: str, *, follows: bool) -> None:
        if turn.content is None:
            raise invalid(f"{path}.content", f"'{path}.content' is missing: send a string or an array of blocks.")
        blocks = [Block("text", text=turn.content)] if isinstance(turn.content, str) else turn.content
        num_results = 0
        for number, block in enumerate(blocks):
            if block.type != "tool_result":
                break
            self._add_result(block, f"{path}.content[{number}]")
            num_results += 1
        rest = blocks[num_results:]
        for number, block in enumerate(rest, num_results):
            if block.type == "tool_result":
                place = f"{path}.content[{number}]"
                raise invalid(place, f"'{place}' must come before the text of the message: send tool results first.")
        if not rest and num_results:
            return
        last = self.messages[-1] if self.messages else None
        if follows and num_results == 0 and last is not None and last.role == "user":
            if not isinstance(last.content, list):
                last = self.messages[-1] = Message(role="user", content=[ContentPart("text", last.text())])
            assert isinstance(last.content, list), "a string was replaced by a list of parts"
            last.content.extend(self._parts(rest, f"{path}.content"))  # in place: 100,000 turns may follow
        elif isinstance(turn.content, str):
            self._add_text("user", turn.content, path)
        else:
            self._add_text("user", rest, path, first=num_results)

    def _add_result(self, block: Block, place: str) -> None:
        message = f"messages[{len(self.messages)}]"
        self.names |= {message: place, f"{message}.tool_call_id": f"{place}.tool_use_id"}
        self._note_foreign_fields(block, place)
        content = block.content or ""
        if not isinstance(content, str):
            blocks = content if isinstance(content, list) else [content]
            content = "\n".join(part.text or "" for part in self._parts(blocks, f"{place}.content"))
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
        if turn.content is None or isinstance(turn.content, str):
            self.messages.append(Message(role="assistant", content=turn.content or ""))
            return
        thoughts: list[str] = []
        words: list[ContentPart] = []
        calls: list[ToolCall] = []
        for index, block in enumerate(turn.content):
            place = f"{path}.content[{index}]"
            if block.type == "tool_use":
                call = f"messages[{number}].tool_calls[{len(calls)}]"
                input = f"{place}.input"
                self.names |= {call: place, f"{call}.function": place, f"{call}.function.arguments": input}
                calls.append(_call(block, place))
            elif block.type == "thinking":
                thoughts.append(block.thinking or "")
            elif block.type == "text":
                words.append(_part(block, place))
            else:  # left out without a text in its place, which the model would take for its own words
                self._ignored.add(place, "is left out: it is neither text, thinking nor a call of the caller's tools")
                continue
            self._note_foreign_fields(block, place)
        self.messages.append(
            Message(
                role="assistant",
                content=words or (None if calls else ""),
                reasoning_content="\n\n".join(filter(None, thoughts)) or None,
                tool_calls=calls or None,
            )
        )

    def _parts(self, blocks: Sequence[Block], path: str, *, first: int = 0) -> list[ContentPart]:
        """Return the texts of a user's or the system's blocks; a block that is not text becomes a short text."""
        parts = []
        for index, block in enumerate(blocks, first):
            place = f"{path}[{index}]"
            if block.type == "tool_reference" and block.tool_name in self._deferred:
                self.found.add(block.tool_name)
                parts.append(ContentPart("text", self._deferred[block.tool_name]))
                continue
            if block.type == "text":
                self._note_foreign_fields(block, place)
            else:
                self._ignored.add(place, TEXT_ONLY)
            parts.append(_part(block, place))
        return parts

    def _note_foreign_fields(self, block: Block, place: str) -> None:
        """Record fields that a block of this type does not have."""
        for field in _FOREIGN[block.type]:
            if getattr(block, field) not in (None, []):
                self._ignored.add(f"{place}.{field}")


_FOREIGN = {
    kind: [name for name in Block.__struct_fields__ if name not in own | {"type", "cache_control"}]
    for kind, own in _FIELDS.items()
}


def _system_first(turns: Sequence[Turn]) -> Iterator[int]:
    """Yield the indexes of the turns, those of the system before the first turn of the assistant ahead of others."""
    num_leading = next((index for index, turn in enumerate(turns) if turn.role == "assistant"), len(turns))
    yield from sorted(range(num_leading), key=lambda index: turns[index].role != "system")
    yield from range(num_leading, len(turns))


def _all_parts(turns: Sequence[Turn]) -> Iterator[object]:
    for turn in turns:
        yield turn
        yield turn.content
        if isinstance(turn.content, list):
            yield from (block.content for block in turn.content)


def _part(block: Block, place: str) -> ContentPart:
    """Return the block's text, or a short text that says what was omitted."""
    if block.type == "text":
        return ContentPart("text", required(block.text, f"{place}.text"))
    return ContentPart("text", _text_within(block) or omitted(block.type))


def _text_within(block: Block) -> str:
    """Return the text of a text document or search result, or the name of a referenced tool; else ""."""
    if block.type == "tool_reference":
        return f"[tool: {block.tool_name}]"
    if block.type == "search_result" and isinstance(block.content, list):
        return "\n".join(part.text or "" for part in block.content)
    is_text = block.type == "document" and isinstance(block.source, dict) and block.source.get("type") == "text"
    text = block.source.get("data") if is_text else None
    return text if isinstance(text, str) else ""


def _call(block: Block, place: str) -> ToolCall:
    arguments = block.input if isinstance(block.input, str) else msgspec.json.encode(block.input or {}).decode()
    name = required(block.name, f"{place}.name")
    return ToolCall(id=required(block.id, f"{place}.id"), function=CalledFunction(name, arguments))
