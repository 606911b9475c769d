"""A workload of clients that only hold what they have: idle connections, and streams that nobody reads."""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import socket
import statistics
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

from scripts.benchmarks.load import Figures, Load
from scripts.benchmarks.machine import num_open_files, resident_mib
from scripts.benchmarks.prompts import user, words
from scripts.benchmarks.servers import Server

N_IDLE = 2000
N_READERS = 50
READER_TOKENS = 64
N_CYCLES = 3
N_ASKS = 16
ASK_TOKENS = 4
_READER_FIELDS: dict[str, object] = {"logprobs": True, "top_logprobs": 20}  # some 2 kB a token: buffers are to fill
_numbers = itertools.count()


async def held_connections(load: Load) -> Figures:
    """A user asks one short question after the other: alone; beside 2,000 idle connections and 50 streams of another
    team that are never read, while these are computed and once they are; beside 50 of the same streams that are read.
    A stream's computing is paid for and costs the same whoever reads it, so each is compared to its own kind."""
    pid = load.server.pid
    assert pid is not None, "it is a process of this machine"
    _allow_many_files()
    alone: list[float] = []
    held: list[float] = []
    beside_unread: list[float] = []
    beside_read: list[float] = []
    await _read(load)  # so that the prefix cache is as full from the beginning as later
    before_mib = resident_mib(pid)
    sizes_mib, n_files, reopened = [], [], 0
    for _ in range(N_CYCLES):
        alone += await _ask(load, N_ASKS)
        async with _idle_connections(load.server) as idle:
            with _unread_streams(load) as n_bytes_asked:
                assert n_bytes_asked > 0, "they have asked"
                beside_unread += await _ask_while_computing(load)
                held += await _ask(load, N_ASKS)
                sizes_mib.append(resident_mib(pid))
                n_files.append(num_open_files(pid))
            reopened += idle.n_reopened
        beside_read += await _read(load)
    p50 = {name: statistics.median(times) * 1e3 for name, times in (("alone", alone), ("held", held))}
    unread_ms, read_ms = (statistics.median(times) * 1e3 for times in (beside_unread, beside_read))
    return {
        "alone_ttft_p50_ms": p50["alone"],
        "held_ttft_p50_ms": p50["held"],
        "held_times": p50["held"] / p50["alone"],
        "alone_ttft_p90_ms": statistics.quantiles(alone, n=10)[-1] * 1e3,
        "held_ttft_p90_ms": statistics.quantiles(held, n=10)[-1] * 1e3,
        "beside_read_ttft_p50_ms": read_ms,
        "beside_unread_ttft_p50_ms": unread_ms,
        "unread_times": unread_ms / read_ms,
        "before_mib": before_mib,
        "held_mib": max(sizes_mib),
        "after_mib": resident_mib(pid),
        "open_files": float(min(n_files)),
        "reopened": float(reopened),
    }


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _ask(load: Load, n: int) -> list[float]:
    """Seconds to the first token of each, but the first: it may find what was parked meanwhile."""
    await _ask_once(load)
    return [await _ask_once(load) for _ in range(n)]


async def _ask_once(load: Load) -> float:
    answer = await load.ask([user(f"What is {words(3, 40_000 + next(_numbers))}?")], ASK_TOKENS)
    return answer.ttft_s


async def _ask_while_computing(load: Load) -> list[float]:
    """Until nothing of the other team is under way."""
    times = [await _ask_once(load)]
    while await asyncio.to_thread(_is_computing, load.server):
        times.append(await _ask_once(load))
    return times


def _is_computing(server: Server) -> bool:
    """Whether the other team has a hold."""
    request = urllib.request.Request(f"{server.base_url}/key", headers={"Authorization": f"Bearer {server.other_key}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return float(json.load(response)["credit"]["held_usd"]) > 0.0


class _Idle:
    """Connections that are opened again whenever the server closes them: half of them never send anything, half have
    got an answer."""

    def __init__(self, server: Server) -> None:
        url = urlsplit(server.base_url)
        self._address = (url.hostname, url.port)
        self._request = (
            f"GET {url.path}/models HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {server.other_key}\r\n\r\n"
        ).encode()
        self.n_open = 0
        self.n_reopened = 0

    async def hold(self, *, asks: bool) -> None:
        while True:
            reader, writer = await asyncio.open_connection(*self._address)
            try:
                if asks:
                    writer.write(self._request)
                    await reader.readuntil(b"\r\n\r\n")
                self.n_open += 1
                while await reader.read(65536):
                    pass
            finally:
                writer.close()
            self.n_open -= 1
            self.n_reopened += 1


@asynccontextmanager
async def _idle_connections(server: Server) -> AsyncIterator[_Idle]:
    idle = _Idle(server)
    tasks = []
    try:
        for number in range(N_IDLE):
            tasks.append(asyncio.create_task(idle.hold(asks=number % 2 == 0)))
            if number % 50 == 49:
                await asyncio.sleep(0.02)
        while idle.n_open < N_IDLE:
            await asyncio.sleep(0.05)
        yield idle
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _story(number: int) -> list[dict[str, str]]:
    return [user(f"Tell a story about {words(3, 50_000 + number)}.")]


async def _read(load: Load) -> list[float]:
    """Seconds to the first token of each question beside streams that are read."""
    stories = (_story(number) for number in range(N_READERS))
    streams = [load.start(story, READER_TOKENS, as_other=True, **_READER_FIELDS) for story in stories]
    times = await _ask_while_computing(load)
    await asyncio.gather(*(stream.task for stream in streams))
    return times


@contextmanager
def _unread_streams(load: Load) -> Iterator[int]:
    """Segments and buffers as small as they get, as far from the server as a loopback can be: else the kernel's own
    buffers would take any answer whole."""
    url = urlsplit(load.server.base_url)
    sockets = []
    n_bytes = 0
    try:
        for number in range(N_READERS):
            one = socket.socket()
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            one.connect((url.hostname, url.port))
            body = load.body(_story(number), READER_TOKENS) | _READER_FIELDS | {"stream": True}
            payload = json.dumps(body).encode()
            head = (
                f"POST {url.path}/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\n"
                f"Authorization: Bearer {load.server.other_key}\r\nContent-Length: {len(payload)}\r\n\r\n"
            )
            one.sendall(head.encode() + payload)
            n_bytes += len(payload)
        yield n_bytes
    finally:
        for one in sockets:
            one.close()
