"""Refused requests, one for each cause that a test can produce, and requests that need no key."""

from __future__ import annotations

from tests.recording.inference_requests import CHAT, TEXT, VECTORS, chat, json_schema
from tests.recording.setting import FREE, ORIGIN, PRICED
from tests.recording.wire import Wire


def wrong_fields(wire: Wire) -> None:
    wrong = {
        "typo": {"max_token": 3},
        "out of range": {"n": 17},
        "wrong type": {"temperature": "hot"},
        "unsupported parameter": {"functions": [{"name": "f"}]},
        "unsupported value": {"modalities": ["audio"]},
        "unknown role": {"messages": [{"role": "wizard", "content": "a"}]},
        "no messages": {"messages": []},
        "content of a wrong kind": {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "call without a result": {
            "messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}]
        },
        "schema that cannot be enforced": {"response_format": json_schema(schema={"not": {"type": "string"}})},
        "grammar that cannot be read": {"grammar": "root ::= ("},
        "two constraints": {"guided_json": {"type": "object"}, "guided_regex": "a"},
        "service tier": {"service_tier": "express"},
        "template variable of the server": {"chat_template_kwargs": {"messages": []}},
        "prompt too long": {"messages": [{"role": "user", "content": "word " * 600}]},
        "unknown model": {"model": "no/model"},
        "empty model": {"model": ""},
    }
    for name, fields in wrong.items():
        wire.call(f"chat refused: {name}", CHAT, "acme", chat("a", **fields))
    for name, body in {"no JSON": b"{", "no object": b"[]", "no body": b"", "no UTF-8": b'{"model": "\xff"}'}.items():
        wire.call(f"chat refused: {name}", CHAT, "acme", content=body)
    wire.call("chat refused: many commas", CHAT, "acme", content=b'{"a": [' + b"," * 600_000)
    wire.call("chat as a form", CHAT, "acme", data={"model": PRICED})
    wire.call("text without a prompt", TEXT, "acme", {"model": PRICED})
    wire.call("text with best_of", TEXT, "acme", {"model": PRICED, "prompt": "a", "best_of": 3})
    wire.call("vectors in too many dimensions", VECTORS, "acme", {"model": PRICED, "input": "a", "dimensions": 99_999})
    wire.call("vectors of too long a text", VECTORS, "acme", {"model": PRICED, "input": ["a", "word " * 600]})


def keys_and_rights(wire: Wire) -> None:
    body = chat("a")
    wire.call("no key", CHAT, None, body)
    wire.call("no such key", CHAT, "sk-inferd-0h3kX9bQz1Lpnosuchkey", body)
    wire.call("key of a wrong form", "GET /v1/models", "password")
    wire.call("revoked key", CHAT, "gone", body)
    wire.call("key without the scope", CHAT, "manage", body)
    wire.call("key without the model", CHAT, "bound", chat("a", model=FREE))
    wire.call("unknown project", CHAT, "acme", body, headers={"openai-project": "nowhere"})
    wire.call("project of another team", CHAT, "acme", body, headers={"openai-project": "tight/side"})
    wire.call("project beside the key's", CHAT, "bound", body, headers={"openai-project": "inference"})
    wire.call("suspended team", CHAT, "frozen", chat("a", model=FREE))
    wire.call("reports without the scope", "GET /v1/organization/costs?start_time=0", "plain")
    wire.call("admin without the scope", "GET /admin/teams", "acme")
    wire.call("admin of another team", "GET /admin/teams/poor", "manage")
    wire.call("admin without a key", "GET /admin/teams", None)


def money(wire: Wire) -> None:
    body = chat("a")
    wire.call("no credit", CHAT, "poor", body)
    wire.call("no credit needed", CHAT, "poor", chat("a", model=FREE))
    wire.call("project budget", CHAT, "acme", body, headers={"openai-project": "capped"})
    wire.call("user budget", CHAT, "bob", body)
    wire.call("key budget", CHAT, "spent", body)
    wire.call("vectors without credit", VECTORS, "poor", {"model": PRICED, "input": "a"})
    wire.call("text without credit", TEXT, "poor", {"model": PRICED, "prompt": "a", "max_tokens": 3})
    wire.call("response without credit", "POST /v1/responses", "poor", {"model": PRICED, "input": "a"})


def under_way(wire: Wire) -> None:
    """Refusals while another request of the team is under way."""
    with wire.streaming(CHAT, "tight", chat("Tell me a story", max_tokens=100, stream=True)):
        side = {"openai-project": "side"}
        wire.call("project concurrency", CHAT, "tight", chat("a"))
        wire.call("credit held", CHAT, "tight", chat("a", max_tokens=100), headers=side)


def rates(wire: Wire) -> None:
    """The rates of tier 0: three requests a minute, one to free models, 40 generated tokens."""
    wire.call("rates: first free", CHAT, "slow", chat("a", model=FREE))
    wire.call("rates: second free", CHAT, "slow", chat("a", model=FREE))
    wire.call("rates: most tokens", CHAT, "slow", chat("a", max_tokens=30))
    wire.call("rates: too many tokens", CHAT, "slow", chat("a", max_tokens=30))
    wire.call("rates: third request", CHAT, "slow", chat("a"))
    wire.call("rates: fourth request", CHAT, "slow", chat("a"))
    wire.call("rates: fourth message", "POST /v1/messages", "slow", {**chat("a"), "logit_bias": None})
    wire.call("rates: key", "GET /v1/key", "slow")


def http(wire: Wire) -> None:
    """The protocol, paths and methods."""
    wire.call("health", "GET /health", None)
    wire.call("health by HEAD", "HEAD /health", None)
    wire.call("health by POST", "POST /health", None)
    wire.call("unknown path", "GET /v1/chat/completion", "acme")
    wire.call("root", "GET /", None)
    wire.call("path with a slash at its end", "GET /v1/models/", "acme")
    wire.call("chat by GET", "GET /v1/chat/completions", "acme")
    wire.call("chat by DELETE", "DELETE /v1/chat/completions", "acme")
    wire.call("models by HEAD", "HEAD /v1/models", "acme")
    wire.call("OPTIONS", "OPTIONS /v1/models", "acme")
    wire.call("OPTIONS of many methods", "OPTIONS /admin/teams/acme/budgets", "admin")
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    wire.call("preflight", "OPTIONS /v1/chat/completions", None, headers={"origin": ORIGIN} | asked)
    wire.call("preflight from elsewhere", "OPTIONS /v1/models", None, headers={"origin": "https://b.example"} | asked)
    wire.call("unknown host", "GET /v1/models", "acme", headers={"host": "evil.example"})
    host = b"\r\nHost: localhost\r\n"
    wire.raw("no HTTP", b"HELLO\r\n\r\n")
    wire.raw("no host", b"GET /v1/models HTTP/1.1\r\n\r\n")
    wire.raw("two hosts", b"GET /v1/models HTTP/1.1" + host + b"Host: localhost\r\n\r\n")
    wire.raw("large head", b"GET /v1/models HTTP/1.1" + host + b"A: " + b"a" * 40_000 + b"\r\n\r\n")
    wire.raw("CONNECT", b"CONNECT localhost:1 HTTP/1.1" + host + b"\r\n")
    post = b"POST /v1/chat/completions HTTP/1.1" + host + b"Authorization: Bearer " + wire.keys["acme"].encode()
    wire.raw("unknown coding", post + b"\r\nTransfer-Encoding: gzip\r\n\r\n")
    wire.raw("large body", post + b"\r\nContent-Length: 9000000\r\n\r\n")
    wire.raw("incomplete body", post + b"\r\nContent-Length: 90\r\n\r\n{")


def wrong_keys(wire: Wire) -> None:
    """Send wrong keys until the server refuses the address. Runs last: the refusal lasts a minute."""
    for _ in range(80):
        if wire.send("GET /v1/models", "wrong").status != 401:
            break
    wire.call("too many wrong keys", "GET /v1/models", "wrong")
    wire.call("a good key from that address", "GET /v1/key", "acme")
