"""Messages of a chat request: their structs and checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from inferd.errors import InvalidRequestError
from inferd.wire.errors import invalid, missing, shorten, unsupported_field, unsupported_value
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.tool_calls import ToolCall, read_arguments
from inferd.wire.openai.tools import check_name

MAX_PARTS = 16_384
"""Messages of a conversation, parts of their content and calls together. Each takes some ten microseconds."""
MAX_CALL_ID_CHARACTERS = 128
_ATTRIBUTION = "x-anthropic-billing-header:"
"""Claude Code's first line of the system prompt. It differs in each session, so no prefix would be shared."""
TEXT_ONLY = "is left out: this model reads text only"
_TEXT_PARTS = ("text", "input_text", "output_text")
_MEDIA = {
    "audio_url": "audio",
    "image_url": "image",
    "input_audio": "audio",
    "input_file": "file",
    "input_image": "image",
    "input_video": "video",
    "video_url": "video",
}


class ContentPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part of a message's content. A part that is not text becomes a short text that says so."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    prompt_cache_breakpoint: Any = None

    @property
    def is_text(self) -> bool:
        return self.type in _TEXT_PARTS or self.refusal is not None

    def as_text(self) -> str:
        return (self.text or self.refusal or "") if self.is_text else omitted(self.type)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message. The message of an answer may be sent back unchanged, with null in the fields that it lacks. Null
    content is empty content, in any role; only the assistant's and a tool's content may be left out."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | msgspec.UnsetType | None = msgspec.UNSET
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None

    # Other servers' names of `reasoning_content`.
    reasoning: Any = None
    thinking: Any = None

    def text(self) -> str:
        """Return the content as one string; parts are joined by line breaks, as in llama-server and vLLM."""
        if isinstance(self.content, str):
            return self.content or self.refusal or ""
        return "\n".join(part.as_text() for part in self.content or ()) or self.refusal or ""

    def reasoning_text(self) -> str:
        """Return the assistant's reasoning before its answer, or ""."""
        if self.role != "assistant":
            return ""
        told = (self.reasoning_content, self.reasoning, self.thinking)
        return next((text for text in told if isinstance(text, str) and text), "")


def omitted(kind: str) -> str:
    """Return the text that replaces a part of this type."""
    return f"[{_MEDIA.get(kind, shorten(kind))} omitted: this model reads text only]"


def without_attribution(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages without a first line of the system prompt that is for the client's own accounting, and
    without that message if it has no other line."""
    if not has_attribution(messages):
        return messages
    rest = messages[0].text().partition("\n")[2].lstrip("\n")
    first = [msgspec.structs.replace(messages[0], content=rest)] if rest or len(messages) == 1 else []
    return [*first, *messages[1:]]


def has_attribution(messages: Sequence[Message]) -> bool:
    """Return whether the system prompt begins with a line that is for the client's own accounting."""
    return messages[0].role in ("system", "developer") and messages[0].text().startswith(_ATTRIBUTION)


def ends_in_answer(messages: Sequence[Message]) -> bool:
    """Return whether the last message is the assistant's, with text and without calls: a text that can go on."""
    last = messages[-1] if messages else None
    return last is not None and last.role == "assistant" and not last.tool_calls and bool(last.text())


def check_messages(messages: Sequence[Message], ignored: IgnoredFields) -> None:
    """Record fields without effect. Raises InvalidRequestError for messages that cannot be served."""
    check_num_parts(
        "messages", (part for message in messages for part in (message, message.content or None, message.tool_calls))
    )
    if not messages:
        raise invalid("messages", "'messages' is empty: send at least one message.")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]", ignored)
    _check_call_history(messages, ignored)


def check_num_parts(field: str, contents: Iterable[object]) -> None:
    """Raise InvalidRequestError if a conversation has more than MAX_PARTS parts. A list in `contents` counts by its
    length, text and None count as 0, anything else as 1."""
    num_parts = 0
    for content in contents:
        num_parts += len(content) if isinstance(content, list) else content is not None and not isinstance(content, str)
        if num_parts > MAX_PARTS:
            raise invalid(
                field,
                f"'{field}' has too many parts: at most {MAX_PARTS} messages, parts of their content and calls "
                "together are allowed. Send a shorter conversation.",
            )


def _check_message(message: Message, path: str, ignored: IgnoredFields) -> None:
    if message.role == "function":
        raise unsupported_field(f"{path}.role", f"'{path}.role' must not be 'function': use tools and role 'tool'.")
    if message.function_call is not None:
        raise unsupported_field(f"{path}.function_call", f"'{path}.function_call' is not supported: use 'tool_calls'.")
    if message.content is msgspec.UNSET and message.role not in ("assistant", "tool"):
        raise InvalidRequestError(
            f"'{path}.content' is missing: send a string or an array of text parts.",
            param=f"{path}.content",
            code="missing_required_parameter",
        )
    for field in ("reasoning_content", "reasoning", "thinking"):
        value = getattr(message, field)
        if value and value != message.reasoning_text():
            ignored.add(f"{path}.{field}", "must be a text, of an assistant's message")
    for field in ("audio", "annotations"):
        if getattr(message, field) not in (None, []):
            ignored.add(f"{path}.{field}")
    if isinstance(message.content, list):
        for index, part in enumerate(message.content):
            _check_part(part, f"{path}.content[{index}]", ignored)


def _check_part(part: ContentPart, path: str, ignored: IgnoredFields) -> None:
    if not part.is_text:
        ignored.add(path, TEXT_ONLY)
    elif part.text is None and part.refusal is None:
        raise missing(f"{path}.text")


def _check_call_history(messages: Sequence[Message], ignored: IgnoredFields) -> None:
    """Raise InvalidRequestError unless every call has one result, right after it, and every result a call. Record
    arguments that are not a JSON object."""
    open_ids: dict[str, str] = {}
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.role == "tool":
            _check_result(message, path, open_ids)
            continue
        _check_answered(open_ids)
        if message.tool_call_id is not None:
            raise invalid(f"{path}.tool_call_id", f"'{path}.tool_call_id' belongs to messages of the role 'tool'.")
        if message.tool_calls is None:
            continue
        if message.role != "assistant":
            raise invalid(f"{path}.tool_calls", f"'{path}.tool_calls' belongs to messages of the role 'assistant'.")
        for number, call in enumerate(message.tool_calls):
            _check_call(call, f"{path}.tool_calls[{number}]", ignored)
            if call.id in open_ids:
                raise invalid(
                    f"{path}.tool_calls[{number}].id", f"Two calls have the id '{shorten(call.id)}': give each its own."
                )
            open_ids[call.id] = f"{path}.tool_calls[{number}]"
    _check_answered(open_ids)


def _check_call(call: ToolCall, path: str, ignored: IgnoredFields) -> None:
    if call.type not in (None, "function"):
        raise unsupported_value(
            f"{path}.type",
            f"'{path}.type' must be 'function', got '{shorten(call.type)}': no other calls are supported.",
        )
    if not 0 < len(call.id) <= MAX_CALL_ID_CHARACTERS:
        raise invalid(f"{path}.id", f"'{path}.id' must have 1 to {MAX_CALL_ID_CHARACTERS} characters.")
    check_name(call.function.name, f"{path}.function.name")
    if read_arguments(call.function.arguments) is None:
        ignored.add(f"{path}.function.arguments", "must be the text of a JSON object")


def _check_result(message: Message, path: str, open_ids: dict[str, str]) -> None:
    if message.tool_call_id is None:
        raise missing(f"{path}.tool_call_id")
    if message.tool_calls:
        raise invalid(f"{path}.tool_calls", f"'{path}.tool_calls' belongs to messages of the role 'assistant'.")
    if open_ids.pop(message.tool_call_id, None) is None:
        raise invalid(
            f"{path}.tool_call_id",
            f"'{path}' answers the tool call '{shorten(message.tool_call_id)}', which the assistant's message before "
            "it does not have, or which was answered before.",
        )


def _check_answered(open_ids: dict[str, str]) -> None:
    for call_id, path in open_ids.items():
        raise invalid(
            path,
            f"The tool call '{shorten(call_id)}' has no result: send the results of all calls right after them.",
        )
