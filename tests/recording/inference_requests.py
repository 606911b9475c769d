"""Requests for text, vectors and tokens, in the three APIs."""

from __future__ import annotations

from typing import Any

from tests.recording.setting import FREE, LEAVING, ORIGIN, PRICED, TIMED
from tests.recording.wire import Wire

CHAT, TEXT, VECTORS = "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings"
RESPONSES, MESSAGES = "POST /v1/responses", "POST /v1/messages"
COUNT = "POST /v1/messages/count_tokens"
NO_END = {str(token_id): -100 for token_id in (0, 1, 2)}
"""`logit_bias` that keeps SmolLM2 from ending its turn, so that a limit decides how many tokens an answer has."""
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["ultramarine"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
"""A schema with one value, so that the answer does not depend on the model."""


def chat(content: str, **fields: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "model": PRICED,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 3,
        "logit_bias": NO_END,
    }
    return whole | fields


def paint(**fields: Any) -> dict[str, Any]:
    """A function, as chats name it."""
    return {"type": "function", "function": {"name": "paint", "parameters": COLOUR, "strict": True} | fields}


def chats(wire: Wire) -> None:
    usage = {"stream_options": {"include_usage": True}}
    wire.call("chat", CHAT, "acme", chat("One"))
    wire.call("chat again, from the cache", CHAT, "acme", chat("One"))
    wire.call("chat streamed", CHAT, "acme", chat("Two", stream=True))
    wire.call("chat streamed with usage", CHAT, "acme", chat("Three", stream=True, **usage))
    wire.call("chat default limit", CHAT, "acme", {"model": PRICED, "messages": chat("Four")["messages"]})
    wire.call("chat free", CHAT, "acme", chat("Five", model=FREE))
    wire.call("chat billed by time", CHAT, "acme", chat("Six", model=TIMED, max_tokens=50))
    wire.call("chat deprecated model", CHAT, "acme", chat("Seven", model=LEAVING))
    wire.call("chat logprobs", CHAT, "acme", chat("Eight", logprobs=True, top_logprobs=2))
    wire.call("chat logprobs streamed", CHAT, "acme", chat("Nine", logprobs=True, top_logprobs=1, stream=True))
    wire.call("chat n", CHAT, "acme", chat("Ten", n=2))
    wire.call("chat n streamed", CHAT, "acme", chat("Eleven", n=2, stream=True, **usage), unordered=True)
    wire.call("chat stop", CHAT, "acme", chat("Twelve", stop=["no such end"]))
    wire.call("chat clamped", CHAT, "acme", chat("Thirteen", max_tokens=9999, response_format=json_schema()))
    wire.call("chat priority", CHAT, "acme", chat("Fourteen", service_tier="priority"))
    wire.call("chat flex", CHAT, "acme", chat("Fifteen", service_tier="flex"))
    wire.call("chat perf metrics", CHAT, "acme", chat("Sixteen", perf_metrics_in_response=True))
    wire.call("chat perf metrics streamed", CHAT, "acme", chat("17", perf_metrics_in_response=True, stream=True))
    wire.call("chat of a bound key", CHAT, "bound", chat("Eighteen"))
    wire.call("chat of a project", CHAT, "acme", chat("Nineteen"), headers={"openai-project": "website"})
    wire.call("chat from a web page", CHAT, "acme", chat("Twenty"), headers={"origin": ORIGIN})
    ignored = {"verbosity": "low", "metadata": {"a": "b"}, "no_such_field_anywhere": 1, "prediction": {}}
    wire.call("chat ignored fields", CHAT, "acme", chat("21", **ignored))
    wire.call("chat on postpaid credit", CHAT, "post", chat("22"))
    wire.call("chat on included credit", CHAT, "pupils", chat("23"))


def json_schema(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": COLOUR, "strict": True} | fields}


def structured(wire: Wire) -> None:
    wire.call("schema", CHAT, "acme", chat("1", max_tokens=40, response_format=json_schema()))
    wire.call("schema streamed", CHAT, "acme", chat("2", max_tokens=40, response_format=json_schema(), stream=True))
    wire.call("schema cut off", CHAT, "acme", chat("3", max_tokens=2, response_format=json_schema()))
    wire.call("guided choice", CHAT, "acme", chat("4", max_tokens=9, guided_choice=["ultramarine"]))
    wire.call("grammar", CHAT, "acme", chat("5", max_tokens=9, grammar='root ::= "ultramarine"'))
    calling = {"max_tokens": 60, "tools": [paint()], "tool_choice": "required", "parallel_tool_calls": False}
    wire.call("tools", CHAT, "acme", chat("6", **calling))
    wire.call("tools streamed", CHAT, "acme", chat("7", **calling, stream=True))
    unknown = [paint(), {"type": "web_search"}]
    wire.call("tools of unknown kinds", CHAT, "acme", chat("8", tools=unknown, tool_choice="none"))
    picture = [{"type": "image_url", "image_url": {"url": "https://a.example/a.png"}}]
    wire.call("image to a text model", CHAT, "acme", chat("", messages=[{"role": "user", "content": picture}]))
    call = {"id": "call_1", "type": "function", "function": {"name": "paint", "arguments": '{"colour": "ultramarine"}'}}
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Paint"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    wire.call("tool result", CHAT, "acme", chat("", messages=history, tools=[paint()], tool_choice="none"))


def texts(wire: Wire) -> None:
    whole = {"model": PRICED, "temperature": 0, "max_tokens": 3, "logit_bias": NO_END}
    wire.call("text", TEXT, "acme", whole | {"prompt": "Once upon a time"})
    wire.call("text streamed", TEXT, "acme", whole | {"prompt": "A dog", "stream": True})
    wire.call("text logprobs", TEXT, "acme", whole | {"prompt": "Seven cats", "logprobs": 2})
    wire.call("text echo", TEXT, "acme", whole | {"prompt": [504, 253], "echo": True})
    prompts = whole | {"prompt": ["Mountains", "Under water"]}
    wire.call("text of two prompts", TEXT, "acme", prompts)
    ended = {"stream": True, "stream_options": {"include_usage": True}}
    wire.call("text of two prompts streamed", TEXT, "acme", prompts | {"n": 2} | ended, unordered=True)
    wire.call("vectors", VECTORS, "acme", {"model": PRICED, "input": ["One text", "Two texts"]})
    wire.call("vectors of base64", VECTORS, "acme", {"model": FREE, "input": [1, 2, 3], "encoding_format": "base64"})
    wire.call("vectors cut", VECTORS, "acme", {"model": FREE, "input": "One", "dimensions": 32, "truncate": "END"})
    wire.call("vectors of nothing", VECTORS, "acme", {"model": FREE, "input": []})
    wire.call("vectors billed by time", VECTORS, "acme", {"model": TIMED, "input": "long text " * 40})


def responses(wire: Wire) -> None:
    whole = {"model": PRICED, "temperature": 0, "max_output_tokens": 3, "input": "Say one thing"}
    wire.call("response", RESPONSES, "acme", whole)
    wire.call("response streamed", RESPONSES, "acme", whole | {"stream": True, "instructions": "Be brief"})
    function = {"type": "function", "name": "paint", "parameters": COLOUR, "strict": True}
    calling = {"tools": [function], "tool_choice": "required", "parallel_tool_calls": False}
    calling["max_output_tokens"] = 60
    wire.call("response with a call", RESPONSES, "acme", whole | calling)
    wire.call("response with a call streamed", RESPONSES, "acme", whole | calling | {"stream": True})
    schema = {"format": {"type": "json_schema", "name": "s", "schema": COLOUR, "strict": True}}
    wire.call("response of a schema", RESPONSES, "acme", whole | {"text": schema, "max_output_tokens": 40})
    include = ["message.output_text.logprobs"]
    wire.call("response logprobs", RESPONSES, "acme", whole | {"include": include, "top_logprobs": 1})
    wire.call("response ignored fields", RESPONSES, "acme", whole | {"store": True, "max_tool_calls": 3})
    wire.call("response stored before", RESPONSES, "acme", whole | {"previous_response_id": "resp_1"})
    wire.call("response without input", RESPONSES, "acme", {"model": PRICED})


def messages(wire: Wire) -> None:
    asked = [{"role": "user", "content": "Say one thing"}]
    whole = {"model": PRICED, "max_tokens": 3, "temperature": 0, "messages": asked}
    wire.call("message", MESSAGES, "acme", whole)
    key = wire.keys["acme"]
    wire.call("message with x-api-key", MESSAGES, None, whole | {"system": "Be brief"}, headers={"x-api-key": key})
    wire.call("message streamed", MESSAGES, "acme", whole | {"stream": True})
    tool = {"name": "paint", "input_schema": COLOUR, "strict": True}
    calling = {"tools": [tool], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}, "max_tokens": 60}
    wire.call("message with a call", MESSAGES, "acme", whole | calling)
    wire.call("message with a call streamed", MESSAGES, "acme", whole | calling | {"stream": True})
    wire.call("message ignored fields", MESSAGES, "acme", whole | {"container": "c", "thinking": {"type": "adaptive"}})
    wire.call("message without max_tokens", MESSAGES, "acme", {"model": PRICED, "messages": asked})
    wire.call("message to no model", MESSAGES, "acme", whole | {"model": "no/model"})
    wire.call("message without a key", MESSAGES, None, whole)
    wire.call("message without credit", MESSAGES, "poor", whole)
    wire.call("message of a suspended team", MESSAGES, "frozen", whole)
    wire.call("message by GET", "GET /v1/messages", "acme")
    wire.call("count_tokens", COUNT, "acme", {"model": PRICED, "messages": asked, "tools": [tool]})
    wire.call("count_tokens without messages", COUNT, "acme", {"model": PRICED})


def tokens(wire: Wire) -> None:
    asked = chat("Count")["messages"]
    wire.call("tokenize prompt", "POST /tokenize", "acme", {"model": PRICED, "prompt": "Hello <|im_end|>"})
    pieces = {"content": "Hello é", "with_pieces": True, "parse_special": False}
    wire.call("tokenize pieces", "POST /tokenize", "acme", {"model": PRICED} | pieces)
    wire.call("tokenize messages", "POST /tokenize", "acme", {"model": PRICED, "messages": asked, "tools": [paint()]})
    strings = {"prompt": "Hello", "return_token_strs": True}
    wire.call("tokenize strings", "POST /tokenize", "acme", {"model": FREE} | strings)
    wire.call("tokenize nothing", "POST /tokenize", "acme", {"model": PRICED})
    wire.call("detokenize", "POST /detokenize", "acme", {"model": PRICED, "tokens": [19556, 905]})
    wire.call("detokenize unknown token", "POST /detokenize", "acme", {"model": PRICED, "tokens": [999_999]})
