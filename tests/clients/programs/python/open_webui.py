"""The requests of Open WebUI's server, by its source: models, a streamed chat, and the tasks that follow each chat."""

from __future__ import annotations

import json

import runner
from http_calls import content_of, send, streamed
from runner import HELLO, MODEL, RESULT, SYSTEM, WEATHER, WEATHER_TOOL

FORWARDED = {
    "X_OpenWebUI_User_Name": "Ann",
    "X_OpenWebUI_User_Id": "7c0f6a52-5d61-4a52-9d8e-0a4b7a1c2d3e",
    "X_OpenWebUI_User_Email": "ann@example.com",
    "X_OpenWebUI_User_Role": "user",
    "X_OpenWebUI_Chat_Id": "1f0b1c9a-9a3e-4c55-8f0e-6f2f9f2b7a10",
}
"""With ENABLE_FORWARD_USER_INFO_HEADERS."""
HISTORY = f"### Chat History:\n<chat_history>\nUSER: {HELLO}\nASSISTANT: Hello!\n</chat_history>"
TASKS = {
    "title": 'Generate a concise, 3-5 word title with an emoji.\n### Output:\nJSON format: { "title": "your title" }\n',
    "tags": 'Generate 1-3 broad tags.\n### Output:\nJSON format: { "tags": ["tag1", "tag2"] }\n',
    "follow-ups": 'Suggest 3-5 follow-up questions.\n### Output:\nJSON format: { "follow_ups": ["Question 1?"] }\n',
    "queries": 'Generate 1-3 search queries.\n### Output:\nJSON format: { "queries": ["query1"] }\n',
    "emoji": "Reflect the speaker's likely facial expression through a fitting emoji.\n",
    "autocomplete": "Continue the text naturally.\n",
}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def chat(key: str = runner.KEY, messages: list[dict] | None = None, **options) -> list[dict]:
    body = {"stream": True, "model": MODEL, "messages": messages or ask(HELLO)}
    body["stream_options"] = {"include_usage": True}
    return streamed(send("/v1/chat/completions", body | options, key, **FORWARDED))


def task(name: str, **options) -> str:
    body = {"model": MODEL, "messages": ask(TASKS[name] + HISTORY), "stream": False}
    return json.loads(send("/v1/chat/completions", body | options, **FORWARDED))["choices"][0]["message"]["content"]


def tools() -> str:
    """Return the answer after a tool's round trip of "native" function calling."""
    deltas = [
        choice["delta"] for chunk in chat(messages=ask(WEATHER), tools=[WEATHER_TOOL]) for choice in chunk["choices"]
    ]
    pieces = [call for delta in deltas for call in delta.get("tool_calls") or []]
    function = {
        "name": pieces[0]["function"]["name"],
        "arguments": "".join(piece["function"].get("arguments") or "" for piece in pieces),
    }
    call = {"id": pieces[0]["id"], "type": "function", "function": function, "index": 0}
    turns = [
        *ask(WEATHER),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": RESULT},
    ]
    return content_of(chat(messages=turns, tools=[WEATHER_TOOL]))


if __name__ == "__main__":
    chunks = chat()
    usage = chunks[-1]["usage"]
    embedded = json.loads(send("/v1/embeddings", {"input": ["a", "b"], "model": MODEL}, **FORWARDED))
    runner.report(
        models=[model["id"] for model in json.loads(send("/v1/models", None, **FORWARDED))["data"]],
        stream=content_of(chunks),
        usage=[[usage["prompt_tokens"], usage["completion_tokens"]]],
        tools=tools(),
        title=task("title", max_completion_tokens=1000),
        embeddings=len(embedded["data"]),
        errors=runner.errors(chat),
    )
    settings = (
        {"temperature": 0.7, "top_p": 0.9, "max_tokens": 30},
        {"top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1, "seed": 42},
        {"frequency_penalty": 0.5, "presence_penalty": 0.2, "stop": ["###"]},
        {"num_ctx": 4096, "num_keep": 24, "mirostat": 0, "mirostat_eta": 0.1, "tfs_z": 1.0, "repeat_last_n": 64},
        {"num_predict": 128},
        {"reasoning_effort": "low", "logit_bias": {"10": -1}},
        {"user": FORWARDED["X_OpenWebUI_User_Email"]},
        {"response_format": {"type": "json_object"}},
        {"think": True, "keep_alive": "5m", "use_mmap": True, "num_thread": 4, "num_gpu": 0, "num_batch": 512},
    )
    system = {"role": "system", "content": SYSTEM}
    turns = [system, *ask("Who?"), {"role": "assistant", "content": "The keeper."}, *ask(HELLO)]
    runner.vary(
        [
            *(lambda each=each: chat(**each) for each in settings),
            *(lambda name=name: task(name) for name in TASKS),
            *(lambda name=name: task(name, max_tokens=50, temperature=0.1) for name in TASKS),
            lambda: chat(messages=turns),
            lambda: chat(messages=[{"role": "user", "content": [{"type": "text", "text": "What?"}, PICTURE]}]),
            lambda: chat(messages=turns, tools=[WEATHER_TOOL], tool_choice="auto"),
        ]
    )
