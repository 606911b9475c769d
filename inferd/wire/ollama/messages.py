"""Messages of Ollama's chats, translated to messages of a chat request.

Ollama's clients are looser than OpenAI's: calls may have no id, results name the tool or nothing, and a history may be
cut anywhere. Ollama renders whatever comes, so such a history is mended, and the header of the answer names the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import msgspec

from inferd.wire.errors import invalid, shorten
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.messages import ContentPart, Message
from inferd.wire.openai.tool_calls import CalledFunction, ToolCall

_Role = Literal["system", "developer", "user", "assistant", "tool"]


class OllamaCalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: dict[str, Any] | str | None = None
    index: int | None = None


class OllamaToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Call of an assistant's message; ollama-python leaves out its id."""

    function: OllamaCalledFunction
    id: str | None = None
    type: str | None = None


class OllamaMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Message; the message of an answer may be sent back unchanged. `name` is the older name of `tool_name`."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


class History:
    """Builder of a chat's messages.

    Args:
        ignored: record for fields without effect.

    Attributes:
        messages: messages of the chat.
        names: paths of the messages -> the caller's paths.
    """

    def __init__(self, ignored: IgnoredFields) -> None:
        self._ignored = ignored
        self._open: dict[str, tuple[str, str]] = {}
        self.messages: list[Message] = []
        self.names: dict[str, str] = {}

    def add_all(self, messages: Sequence[OllamaMessage]) -> None:
        """Add messages. Raises InvalidRequestError for an unknown role."""
        for index, message in enumerate(messages):
            path = f"messages[{index}]"
            role = message.role.lower()
            if role not in get_args(_Role):
                raise invalid(
                    f"{path}.role",
                    f"'{path}.role' must be system, user, assistant or tool, got '{shorten(message.role)}'.",
                )
            if role == "tool":
                self._add_result(message, path)
            else:
                self._close_calls()
                self._add(message, cast(_Role, role), path)
        self._close_calls()

    def add_text(
        self, role: Literal["system", "user"], text: str, path: str, images: Sequence[object] = (), *, beside: str = ""
    ) -> None:
        """Add a message with a text and, after it, short texts that stand for images.

        Args:
            path: the caller's path of the text.
            beside: the caller's path of the images.
        """
        place = f"messages[{len(self.messages)}]"
        self.names |= {place: path, f"{place}.content": path}
        self.messages.append(Message(role=role, content=self._content(text, images, place, beside)))

    def _content(self, text: str, images: Sequence[object], place: str, beside: str) -> str | list[ContentPart]:
        if not images:
            return text
        parts = [ContentPart("text", text)] if text else []
        for number in range(len(images)):
            self.names[f"{place}.content[{len(parts)}]"] = f"{beside}[{number}]"
            parts.append(ContentPart("image_url"))
        return parts

    def _add(self, message: OllamaMessage, role: _Role, path: str) -> None:
        place = f"messages[{len(self.messages)}]"
        self.names[place] = path
        calls = [
            self._call(call, f"{path}.tool_calls[{number}]") for number, call in enumerate(message.tool_calls or ())
        ]
        if role != "assistant":
            calls = []
            for field in ("tool_calls", "thinking"):
                if getattr(message, field):
                    self._ignored.add(f"{path}.{field}", "belongs to messages of the role 'assistant'")
        for field in ("tool_name", "tool_call_id"):
            if getattr(message, field):
                self._ignored.add(f"{path}.{field}", "belongs to messages of the role 'tool'")
        self._open = {call.id: (call.function.name, f"{path}.tool_calls[{n}]") for n, call in enumerate(calls)}
        self.messages.append(
            Message(
                role=role,
                content=self._content(message.content or "", message.images or (), place, f"{path}.images"),
                name=message.name,
                thinking=message.thinking if role == "assistant" else None,
                tool_calls=calls or None,
            )
        )

    def _call(self, call: OllamaToolCall, path: str) -> ToolCall:
        if call.type not in (None, "", "function"):
            self._ignored.add(f"{path}.type", "must be 'function'")
        # The history's own numbers: equal requests render equal prompts, which share a prefix in the cache.
        number = path.removeprefix("messages[").replace("].tool_calls[", "_").removesuffix("]")
        return ToolCall(
            id=call.id or f"call_{number}", function=CalledFunction(call.function.name, call.function.arguments)
        )

    def _add_result(self, message: OllamaMessage, path: str) -> None:
        """Add the result of an open call: of the call of that id, else of the first call of that tool, else of the
        first call. Without an open call the result becomes a user's text."""
        for field in ("thinking", "tool_calls"):
            if getattr(message, field):
                self._ignored.add(f"{path}.{field}", "belongs to messages of the role 'assistant'")
        call_id = self._answered(message)
        place = f"messages[{len(self.messages)}]"
        self.names[place] = path
        content = self._content(message.content or "", message.images or (), place, f"{path}.images")
        if call_id is None:
            self._ignored.add(path, "answers no call of the assistant's message before it, and is read as the user's")
            self.messages.append(Message(role="user", content=content))
            return
        self._open.pop(call_id)
        self.messages.append(Message(role="tool", content=content, tool_call_id=call_id))

    def _answered(self, message: OllamaMessage) -> str | None:
        if message.tool_call_id in self._open:
            return message.tool_call_id
        tool = message.tool_name or message.name
        of_tool = (call_id for call_id, (name, _) in self._open.items() if name == tool)
        return next(of_tool, next(iter(self._open), None))

    def _close_calls(self) -> None:
        """Give each call without a result an empty one: a chat template renders calls and results in pairs."""
        for call_id, (_, path) in self._open.items():
            self._ignored.add(path, "has no result, and gets an empty one")
            self.names[f"messages[{len(self.messages)}]"] = path
            self.messages.append(Message(role="tool", content="", tool_call_id=call_id))
        self._open = {}
