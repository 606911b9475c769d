"""Recorded traffic of clients: JSON lines under tests/clients/recorded, one file a client.

A line is a request with what the server answered, or a part: a value that several bodies have. A body refers to a
part as `{"$part": "DIGEST"}`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.recorder import Exchange
from tests.clients.redaction import Redaction

FOLDER = Path(__file__).parent / "recorded"
PART = "$part"
_MIN_PART_BYTES = 300


@dataclass(frozen=True)
class Recorded:
    """A request of a client, redacted.

    Attributes:
        target: path and query.
        body: None if there was none; a text if it was no JSON, which says how many bytes it had.
        answer: `status`; `ignored` as the server named them; `events`, the types of a stream's events, or `shape`, the
            types of a whole answer's values; `error`, the message of a refusal.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: Any
    answer: dict[str, Any]

    @classmethod
    def of(cls, exchange: Exchange, redaction: Redaction) -> Recorded:
        headers = redaction.headers(exchange.headers)
        answer: dict[str, Any] = {"status": exchange.status}
        if exchange.ignored:
            answer["ignored"] = exchange.ignored
        events = exchange.events
        if exchange.is_stream:
            answer["events"] = list(dict.fromkeys(_event_type(event) for event in events))
        elif events:
            answer["shape"] = shape(events[0])
        if exchange.status >= 400 and events and isinstance(events[0].get("error"), dict):
            answer["error"] = redaction.text(str(events[0]["error"].get("message")))
        target = redaction.text(exchange.target)
        return cls(exchange.method, target, headers, _body(exchange, redaction), answer)


def write(path: Path, requests: Iterable[Recorded]) -> int:
    """Write the different requests, in order, and return their number. Two that are equal after redaction are one."""
    lines: dict[str, None] = {}
    num_requests = 0
    for request in requests:
        parts: dict[str, Any] = {}
        line = {**vars(request), "body": _in_parts(request.body, parts)}
        for digest, value in parts.items():
            lines[_json({"part": digest, "value": value})] = None
        text = _json(line)
        num_requests += text not in lines
        lines[text] = None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return num_requests


def read(path: Path) -> list[Recorded]:
    """Return the requests of a file, with their parts in place."""
    parts: dict[str, Any] = {}
    requests = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "part" in entry:
            parts[entry["part"]] = entry["value"]
        else:
            requests.append(Recorded(**{**entry, "body": _whole(entry["body"], parts)}))
    return requests


def shape(value: Any) -> Any:
    """Return the value with each leaf replaced by the name of its type; of a list, the different shapes."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        shapes = [shape(item) for item in value]
        return [each for index, each in enumerate(shapes) if each not in shapes[:index]]
    return {"NoneType": "null", "str": "text"}.get(type(value).__name__, type(value).__name__)


def _event_type(event: dict[str, Any]) -> str:
    """Return the type of an event; that of a chunk of a chat is the names of its delta."""
    if "type" in event:
        return str(event["type"])
    deltas = [name for choice in event.get("choices", ()) for name in choice.get("delta", ())]
    return f"{event.get('object', '')}[{','.join(deltas)}]"


def _body(exchange: Exchange, redaction: Redaction) -> Any:
    if not exchange.body:
        return None
    try:
        return redaction.value(json.loads(exchange.body))
    except ValueError:
        return f"[{len(exchange.body)} bytes that are no JSON]"


def _in_parts(body: Any, parts: dict[str, Any]) -> Any:
    """Return the body with its large values replaced by references, and put them into `parts`."""
    if not isinstance(body, dict):
        return body

    def reference(value: Any) -> Any:
        text = _json(value)
        if len(text) < _MIN_PART_BYTES:
            return value
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        parts[digest] = value
        return {PART: digest}

    return {
        name: [reference(item) for item in value] if isinstance(value, list) else reference(value)
        for name, value in body.items()
    }


def _whole(value: Any, parts: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {PART}:
            return parts[value[PART]]
        return {name: _whole(item, parts) for name, item in value.items()}
    return [_whole(item, parts) for item in value] if isinstance(value, list) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
