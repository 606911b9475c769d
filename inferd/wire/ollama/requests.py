"""`POST /api/chat` and `/api/generate`: the bodies, and their translation to a chat request.

As in a chat, each field is honoured, ignored and named in a header of the answer, or refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from inferd.wire.errors import invalid, unsupported_field, unsupported_value
from inferd.wire.field_names import FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.ollama.messages import History, OllamaMessage
from inferd.wire.ollama.options import OPTION_NAMES, Options, sampling_fields
from inferd.wire.openai import tools as chat_tools
from inferd.wire.openai.chat_request import ChatRequest, check_chat_request
from inferd.wire.openai.messages import Message, ends_in_answer
from inferd.wire.openai.request_fields import check_model
from inferd.wire.openai.response_format import ResponseFormat

UNSUPPORTED = ("suffix", "template")
_NAMES = {
    **OPTION_NAMES,
    "reasoning_effort": "think",
    "response_format": "format",
    "response_format.schema": "format",
}
_NO_TIME = (0, 0.0, "0", "0s", "0m", "0h")
"""Values of `keep_alive` that ask to unload the model."""
_T = TypeVar("_T", bound="OllamaFields")


class OllamaTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tool; its type may be left out."""

    function: chat_tools.Function | None = None
    type: str | None = None
    items: Any = None


class OllamaFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of both bodies as they came. `stream` is true unless it is false."""

    model: str
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    options: Options | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    # Known, but without effect: models stay loaded, and a prompt that is too long is refused.
    keep_alive: Any = None
    shift: bool | None = None
    truncate: bool | None = None


class OllamaChatRequest(OllamaFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/chat`. Without messages it asks for the model to be loaded."""

    messages: list[OllamaMessage] | None = None
    tools: list[OllamaTool] | None = None


class OllamaGenerateRequest(OllamaFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/generate`. Without a prompt it asks for the model to be loaded."""

    prompt: str | None = None
    system: str | None = None
    images: list[Any] | None = None
    context: list[int] | None = None
    raw: bool | None = None

    # Known, so that they are refused and not ignored: the caller would get another text than it asked for.
    suffix: str | None = None
    template: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaAsk:
    """One request of Ollama's API, translated.

    Attributes:
        chat: the equivalent chat request.
        names: map from its fields to those of the body.
        is_load: whether the request asks only for the model to be loaded or unloaded; the chat is not to be served.
        is_unload: whether it asks for the model to be unloaded.
        raw: the whole prompt, if no template is to be used; None: the chat is rendered.
        context: token ids before the prompt.
    """

    chat: ChatRequest
    names: FieldNames
    is_load: bool = False
    is_unload: bool = False
    raw: str | None = None
    context: tuple[int, ...] = ()


_CHAT_DECODER = msgspec.json.Decoder(OllamaChatRequest)
_GENERATE_DECODER = msgspec.json.Decoder(OllamaGenerateRequest)


def parse_ollama_chat(body: bytes, ignored: IgnoredFields | None = None) -> OllamaAsk:
    """Decode and check the body of a chat.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field of the body.
    """
    ignored = ignored or IgnoredFields()
    asked = decode(body, _CHAT_DECODER, ignored)
    history = History(ignored)
    history.add_all(asked.messages or ())
    return _ask(asked, history, ignored, is_load=not asked.messages, tools=asked.tools)


def parse_ollama_generate(body: bytes, ignored: IgnoredFields | None = None) -> OllamaAsk:
    """Decode and check the body of a completion, as `parse_ollama_chat` does."""
    ignored = ignored or IgnoredFields()
    asked = decode(body, _GENERATE_DECODER, ignored)
    _check_generate(asked)
    history = History(ignored)
    images = asked.images or []
    if asked.raw:
        for index in range(len(images)):
            ignored.add(f"images[{index}]", "is left out: this model reads text only")
        images = []
        if asked.think is not None:
            ignored.add("think", "has no effect on a raw prompt")
    elif asked.system:
        history.add_text("system", asked.system, "system")
    history.add_text("user", asked.prompt or "", "prompt", images, beside="images")
    ask = _ask(asked, history, ignored, is_load=not asked.prompt)
    return OllamaAsk(
        chat=ask.chat,
        names=FieldNames({**_NAMES, **history.names, "messages": "prompt"}),
        is_load=ask.is_load,
        is_unload=ask.is_unload,
        raw=asked.prompt if asked.raw else None,
        context=tuple(asked.context or ()),
    )


def _check_generate(asked: OllamaGenerateRequest) -> None:
    if asked.template:
        raise unsupported_field(
            "template",
            "'template' is not supported: the prompt is rendered by the model's own chat template. Leave it out, or "
            "send the whole prompt with 'raw' true.",
        )
    if asked.suffix:
        raise unsupported_value("suffix", f"\"{asked.model}\" does not support insert: leave out 'suffix'.")
    for field in ("system", "context"):
        if asked.raw and getattr(asked, field):
            raise invalid(field, f"raw mode does not support template, system, or context: leave out '{field}'.")


def _ask(
    asked: OllamaFields,
    history: History,
    ignored: IgnoredFields,
    *,
    is_load: bool,
    tools: Sequence[OllamaTool] | None = None,
) -> OllamaAsk:
    """Return the request, checked unless it asks for nothing but the model."""
    for field in ("keep_alive", "shift", "truncate"):
        if getattr(asked, field) is not None:
            ignored.add(field)
    # The chat that is not served has a message all the same, as a chat without one is refused.
    messages = history.messages or [Message(role="user", content="")]
    chat = ChatRequest(
        model=asked.model,
        messages=messages,
        stream=asked.stream is not False,
        tools=[_chat_tool(tool, f"tools[{index}]", ignored) for index, tool in enumerate(tools or ())] or None,
        reasoning_effort=_effort(asked.think),
        response_format=_response_format(asked.format),
        logprobs=asked.logprobs,
        top_logprobs=asked.top_logprobs,
        continue_final_message=ends_in_answer(messages) or None,
        **sampling_fields(asked.options, ignored),
    )
    names = FieldNames({**_NAMES, **history.names})
    if is_load:
        check_model(asked.model)
    else:
        with names.restored():
            check_chat_request(chat, ignored.renamed(names.of))
    is_unload = is_load and asked.keep_alive in _NO_TIME and asked.keep_alive is not False
    return OllamaAsk(chat=chat, names=names, is_load=is_load, is_unload=is_unload)


def _chat_tool(tool: OllamaTool, path: str, ignored: IgnoredFields) -> chat_tools.Tool:
    if tool.items is not None:
        ignored.add(f"{path}.items")
    return chat_tools.Tool(tool.type or chat_tools.FUNCTION, tool.function)


def _effort(think: bool | str | None) -> str | None:
    """Return the reasoning effort; a model that is told only to think does so with Ollama's default, medium."""
    if isinstance(think, bool):
        return "medium" if think else "none"
    return think or None


def _response_format(format: str | dict[str, Any] | None) -> ResponseFormat | None:
    """Return the response format; a schema is enforced as far as it can be, as in Ollama. Raises
    InvalidRequestError."""
    if not format:
        return None
    if isinstance(format, dict):
        return ResponseFormat("json_object", schema=msgspec.Raw(msgspec.json.encode(format)))
    if format != "json":
        raise invalid("format", "'format' must be \"json\" or a JSON schema: an object.")
    return ResponseFormat("json_object")
