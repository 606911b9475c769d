"""Requests to a running server and their recorded answers."""

from __future__ import annotations

import datetime
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.recording.processes import PATIENCE_S
from tests.recording.shapes import Shapes, in_any_order

Entry = dict[str, Any]

_TIMES = re.compile(r"remaining|reset|retry-after|content-length|processing|server-|-ms$")
"""Headers whose numbers depend on the moment or on the length of texts."""
_NUMBER = re.compile(r"^\d+$")
_FLOAT = re.compile(r"^\d+\.\d+$")
_DURATION = re.compile(r"^(\d+(\.\d+)?(ms|s|m|h))+$")


USUAL_HEADERS = {
    "content-length": "<int>",
    "content-type": "application/json",
    "date": "<date>",
    "openai-processing-ms": "<int>",
    "vary": "Origin",
    "x-request-id": "req_<hex:32>",
}
"""Headers that an entry does not name, unless the answer has none or another one."""


def headers_beyond_usual(headers: httpx.Headers, shapes: Shapes) -> dict[str, str | None]:
    """Return the headers that are not the usual ones; None: a usual one that is not there."""
    found = {name: header_shape(name, value, shapes) for name, value in headers.items()}
    missing = dict.fromkeys(USUAL_HEADERS.keys() - found.keys())
    return dict(sorted((found | missing).items() - USUAL_HEADERS.items()))


def header_shape(name: str, value: str, shapes: Shapes) -> str:
    if _TIMES.search(name) or _FLOAT.match(value):
        for pattern, shape in ((_NUMBER, "<int>"), (_FLOAT, "<float>"), (_DURATION, "<duration>")):
            if pattern.match(value):
                return shape
    return shapes.of_text(value)


def events_of(body: str) -> Iterator[tuple[str | None, Any]]:
    """(event, data) of Server-Sent Events; comments are left out."""
    for block in body.split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if not line.startswith(":")]
        fields = {name: value for name, _, value in lines}
        if "data" in fields:
            data = fields["data"]
            yield fields.get("event"), data if data == "[DONE]" else json.loads(data)


def collapsed(events: list[Any], *, unordered: bool) -> list[Any]:
    """Events without the repetitions of the one before; `unordered`: without any repetition."""
    kept: list[Any] = []
    for event in events:
        if event not in (kept if unordered else kept[-1:]):
            kept.append(event)
    return kept


@dataclass(frozen=True)
class Answer:
    status: int
    headers: httpx.Headers
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def id(self) -> str:
        return self.headers["x-request-id"]


@dataclass
class Wire:
    """Attributes:
    keys: name -> API key.
    entries: the recorded answers, in the order of the requests.
    ids: name of a request -> its id.
    now: when the requests began.
    """

    url: str
    shapes: Shapes
    keys: dict[str, str]
    entries: list[Entry] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC)
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    @property
    def month(self) -> str:
        return self.now.strftime("%Y-%m")

    @property
    def day_s(self) -> int:
        """The beginning of the day, in Unix seconds."""
        return int(self.now.timestamp()) // 86_400 * 86_400

    def send(self, line: str, key: str | None, json_body: Any = None, **options: Any) -> Answer:
        """Send a request without recording it; `line`: method and path."""
        method, _, path = line.partition(" ")
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["authorization"] = f"Bearer {self.keys.get(key, key)}"
        if json_body is not None:
            options["json"] = json_body
        response = self.client.request(method, path, headers=headers, **options)
        return Answer(response.status_code, response.headers, response.text)

    def call(
        self,
        name: str,
        line: str,
        key: str | None,
        json_body: Any = None,
        *,
        unordered: bool = False,
        **options: Any,
    ) -> Answer:
        """Send a request and record its answer."""
        answer = self.send(line, key, json_body, **options)
        self.record(name, line, answer, unordered=unordered)
        self.ids[name] = answer.id
        return answer

    def record(self, name: str, line: str, answer: Answer, *, unordered: bool = False) -> None:
        assert name not in {entry["name"] for entry in self.entries}, f"two requests are called {name!r}"
        entry: Entry = {
            "name": name,
            "request": self.shapes.of_text(line),
            "status": answer.status,
            "headers": headers_beyond_usual(answer.headers, self.shapes),
        }
        kind = answer.headers.get("content-type", "")
        if kind.startswith("text/event-stream"):
            events = [
                {"event": event, "data": self.shapes.of(data)} if event else self.shapes.of(data)
                for event, data in events_of(answer.text)
            ]
            entry["events"] = collapsed(events, unordered=unordered)
        elif kind == "application/jsonl":
            entry["lines"] = in_any_order([self.shapes.of(json.loads(line)) for line in answer.text.splitlines()])
        elif answer.text and kind.startswith("application/json"):
            body = self.shapes.of(answer.json)
            entry["body"] = in_any_order(body) if "group_by=api_key_id" in line else body
        elif answer.text:
            entry["body"] = "<text>"
        self.entries.append(entry)

    def raw(self, name: str, request: bytes) -> None:
        """Send bytes that no HTTP library would, and record the answer."""
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while piece := connection.recv(65536):
                received += piece
        if not received:
            self.entries.append({"name": name, "status": "<closed>"})
            return
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        pairs = [(key.lower(), value) for key, _, value in (line.partition(": ") for line in lines)]
        line = request.split(b"\r\n")[0].decode()
        self.record(name, line[:60], Answer(int(status.split()[1]), httpx.Headers(pairs), body.decode()))

    @contextmanager
    def streaming(self, line: str, key: str, json_body: Any) -> Iterator[None]:
        """Keep a streamed request under way: its first event has come, and its last is read at the end."""
        method, _, path = line.partition(" ")
        headers = {"authorization": f"Bearer {self.keys[key]}"}
        with self.client.stream(method, path, json=json_body, headers=headers) as response:
            lines = response.iter_lines()
            next(lines)
            yield
            assert "[DONE]" in "".join(lines), "the stream went to its end"

    def until(self, line: str, key: str, ends: Callable[[Any], bool]) -> Any:
        """Ask again and again until the answer satisfies `ends`; return it."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not ends(value := self.send(line, key).json):
            assert time.monotonic() < deadline_s, f"{line} hangs: {value}"
            time.sleep(0.05)
        return value
