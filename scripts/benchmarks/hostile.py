"""Requests that are made to cost other teams time or memory. `scripts/bench attacks` measures each; the soak
(tests/e2e/test_soak.py) sends all of them for half an hour."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from scripts.benchmarks.client import Reply, connection, exchange, parse_reply, request_bytes
from scripts.benchmarks.prompts import user

MIB = 2**20
CHAT = "/v1/chat/completions"
NUM_BATCH_LINES = 6
UPLOAD_BYTES = 150_000_000
UPLOAD_S = 20.0
BATCH_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the team that calls it.

    Attributes:
        root: `http://HOST:PORT`.
        key: with the scopes `inference` and `manage`.
        model: a deployment with a price.
        free_model: a deployment without one.
    """

    root: str
    team: str
    key: str
    model: str
    free_model: str

    async def post(self, path: str, body: dict[str, Any] | bytes) -> Reply:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await exchange(self.root, request_bytes(self.root, "POST", path, self.key, payload))

    async def get(self, path: str) -> Reply:
        return await exchange(self.root, request_bytes(self.root, "GET", path, self.key))


Attack = Callable[[Target, int], Awaitable[Reply]]
"""Sends one request. The number makes it another one than all before, so that no cache has it."""


_NUMBER = b"<number>"
"""Stands for a request's number in bodies that are made once: the load generator shares the server's cores."""


def _control_texts(num_bytes: int) -> str:
    """Control tokens of SmolLM2 in a row."""
    return ("<|im_start|> ab " * (num_bytes // 16 + 1))[:num_bytes]


@cache
def _tokenize_body(model: str) -> bytes:
    return json.dumps({"model": model, "content": f"<number> {_control_texts(MIB - 32)}"}).encode()


async def tokenize_control_texts(target: Target, number: int) -> Reply:
    """A megabyte for /tokenize."""
    return await target.post("/tokenize", _numbered(_tokenize_body(target.free_model), number))


@cache
def _letters_body(model: str, letter: str) -> bytes:
    text = f"<number> {letter * ((MIB - 32) // len(letter.encode()))}"
    return json.dumps({"model": model, "messages": [user(text)]}, ensure_ascii=False).encode()


async def count_letters(target: Target, number: int) -> Reply:
    """A megabyte without a blank for count_tokens."""
    body = _letters_body(target.free_model, "Zé9漢="[number % 5])
    return await target.post("/v1/messages/count_tokens", _numbered(body, number))


@cache
def _prompts_body(model: str) -> bytes:
    prompts = [f"<number> {index} {_control_texts(150_000)}" for index in range(50)]
    return json.dumps({"model": model, "prompt": prompts, "max_tokens": 1}).encode()


async def complete_control_texts(target: Target, number: int) -> Reply:
    """50 prompts of 150 KB, each longer than the context."""
    return await target.post("/v1/completions", _numbered(_prompts_body(target.model), number))


def _numbered(body: bytes, number: int) -> bytes:
    return body.replace(_NUMBER, str(number).encode())


@cache
def _references_body(model: str, depth: int) -> bytes:
    definitions: dict[str, Any] = {f"d{index}": {"$ref": f"#/$defs/d{index + 1}"} for index in range(depth)}
    definitions[f"d{depth}"] = {"const": "<number>"}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/d0"}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": definitions,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    body = {"model": model, "messages": [user("hi")], "max_tokens": 4, "response_format": form}
    return json.dumps(body).encode()


async def compile_deep_references(target: Target, number: int) -> Reply:
    """A schema whose references are a chain of 3,500, which takes all time that a trial may take."""
    return await target.post(CHAT, _numbered(_references_body(target.model, 3_500), number))


def _hostile_grammars(number: int) -> tuple[str, ...]:
    return (
        f"start: BODY DEAD\nBODY: /(.|\\n){{{100 + number % 100}}}/\nDEAD: /a/ & /b/\n",
        f"start: BODY\nBODY: /(.|\\n)*a(.|\\n){{{200 + number % 1000}}}/\n",
        f"start: A\nA: ~/(.|\\n){{0,{50 + number % 100}}}/\n",
        f"start: /(a|b|ab|ba){{{500 + number % 1000}}}c/\n",
    )


async def decode_behind_grammars(target: Target, number: int) -> Reply:
    """Dead ends and state explosions, which end an answer after text was delivered."""
    grammar = _hostile_grammars(number)[number % 4]
    body = {"model": target.model, "messages": [user("hi")], "max_tokens": 60, "stream": True, "grammar": grammar}
    return await target.post(CHAT, body)


@cache
def _big_bodies() -> tuple[bytes, ...]:
    keys = ",".join(f'"k{index}":1' for index in range(400_000))
    items = ",".join("1" for _ in range(520_000))
    nested = "[" * 100_000 + "]" * 100_000
    return tuple(
        f'{{"model":"m","messages":[],"metadata":{each}}}'.encode() for each in (f"{{{keys}}}", f"[{items}]", nested)
    )


async def post_big_json(target: Target, number: int) -> Reply:
    """Bodies of many keys, many items or many levels."""
    bodies = _big_bodies()
    return await target.post(CHAT, bodies[number % len(bodies)])


async def try_a_wrong_key(target: Target, number: int) -> Reply:
    """A request with a key that does not exist."""
    body = json.dumps({"model": target.model, "messages": [user("hi")]}).encode()
    return await exchange(target.root, request_bytes(target.root, "POST", CHAT, f"sk-wrong-{number}", body))


async def create_a_key(target: Target, number: int) -> Reply:
    """A change by a key with the scope `manage`."""
    return await target.post(f"/admin/teams/{target.team}/keys", {"name": f"flood {number}"})


async def hold_an_upload(target: Target, number: int) -> Reply:
    """A file of 150 MB, a kilobyte a second of it, and a hang-up."""
    form = _form(f"{number}.jsonl", b"")[0]
    fields = {"content-type": "multipart/form-data; boundary=x", "content-length": str(UPLOAD_BYTES)}
    received = b""
    with suppress(ConnectionError):
        async with connection(target.root) as (reader, writer):
            writer.write(request_bytes(target.root, "POST", "/v1/files", target.key, form, fields))
            for _ in range(int(UPLOAD_S)):
                writer.write(b"x" * 1024)
                with suppress(TimeoutError):
                    received = await asyncio.wait_for(reader.read(2**16), 1.0)
                    break
    return parse_reply(received)


def _form(filename: str, content: bytes) -> tuple[bytes, bytes]:
    """The form of an upload, without and with its end."""
    begin = (
        '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--x\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    ).encode() + content
    return begin, begin + b"\r\n--x--\r\n"


def _batch_lines(target: Target, number: int) -> list[dict[str, Any] | bytes]:
    chat = {"model": target.model, "messages": [user(f"line of batch {number}")], "max_tokens": 4}
    bodies: list[dict[str, Any]] = [
        chat,
        json.loads(_numbered(_references_body(target.model, 1_000), number)),
        {**chat, "model": "nobody/nothing"},
        {**chat, "messages": [user("Z" * 200_000)]},
        {**chat, "grammar": _hostile_grammars(number)[0]},
        {**chat, "messages": [user("\ud83d")]},
    ]
    lines: list[dict[str, Any] | bytes] = [b"{", b"[1]", b"\xff\xfe"] if number % 2 else []
    lines += [
        {"custom_id": f"{number}-{index}", "method": "POST", "url": CHAT, "body": body}
        for index, body in enumerate(bodies)
    ]
    return lines


async def run_a_bad_batch(target: Target, number: int) -> Reply:
    """A batch of lines that fail, each in its own way; every second one is no file of JSON lines at all. Ends when the
    batch has ended. The answer is the last one that the server gave."""
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in _batch_lines(target, number)]
    fields = {"content-type": "multipart/form-data; boundary=x"}
    form = _form("batch.jsonl", b"\n".join(lines))[1]
    reply = await exchange(target.root, request_bytes(target.root, "POST", "/v1/files", target.key, form, fields))
    if reply.status == 200:
        batch = {"input_file_id": json.loads(reply.body)["id"], "endpoint": CHAT, "completion_window": "24h"}
        reply = await target.post("/v1/batches", batch)
    while reply.status == 200 and json.loads(reply.body)["status"] not in BATCH_ENDED:
        await asyncio.sleep(1.0)
        reply = await target.get(f"/v1/batches/{json.loads(reply.body)['id']}")
    return reply


def long_stream(model: str, number: int, n: int = 1) -> dict[str, Any]:
    """A body that asks for `n` answers that take minutes."""
    text = f"Tell a very long story about number {number}."
    bias = {"0": -100, "1": -100, "2": -100}  # the tokens that end a turn of SmolLM2
    return {"model": model, "messages": [user(text)], "max_tokens": 1900, "n": n, "stream": True, "logit_bias": bias}


async def ask_for_16_long_choices(target: Target, number: int) -> Reply:
    """One free request for 16 answers."""
    return await target.post(CHAT, long_stream(target.free_model, number, n=16))


async def ask_for_a_long_stream(target: Target, number: int) -> Reply:
    """One long answer."""
    return await target.post(CHAT, long_stream(target.free_model, number))


async def hang_up(target: Target, number: int) -> Reply:
    """A long answer, left at a random moment: amid the body, in the queue, in the prompt, or amid tokens."""
    rng = random.Random(number)
    body = json.dumps(long_stream(target.model, number, n=rng.choice((1, 1, 3)))).encode()
    sent = request_bytes(target.root, "POST", CHAT, target.key, body)
    if rng.random() < 0.2:
        sent = sent[: -rng.randrange(1, len(body))]
    return await exchange(target.root, sent, patience_s=rng.choice((0.0, 0.02, 0.3, 3.0)) * rng.random())


_MALFORMED = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe{}",
    b'{"model": 1}',
    b'{"model": "m", "messages": "hi"}',
    b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    b'{"n": 17, "max_tokens": -5, "messages": [{}]}',
    b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 1e400}',
)


async def post_a_malformed_body(target: Target, number: int) -> Reply:
    """Bodies that are no request."""
    paths = (CHAT, "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/completions", "/tokenize")
    return await target.post(paths[number // len(_MALFORMED) % len(paths)], _MALFORMED[number % len(_MALFORMED)])


async def post_half_a_body(target: Target, number: int) -> Reply:
    """A body whose second half never comes."""
    fields = {"content-length": "2000"}
    sent = request_bytes(target.root, "POST", CHAT, target.key, b'{"model": "m", ' + b" " * (number % 1000), fields)
    return await exchange(target.root, sent, patience_s=1.0)


async def upgrade(target: Target, number: int) -> Reply:
    """A POST that offers HTTP/2, and whose body reads like a second request."""
    fields = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
    smuggled = f"GET /v1/models?number={number} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    sent = request_bytes(target.root, "POST", CHAT, target.key, smuggled, fields)
    return await exchange(target.root, sent, patience_s=1.0)
