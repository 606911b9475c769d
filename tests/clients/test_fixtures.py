"""Recording of clients' traffic: no secret, no long text, and the same request after reading."""

from __future__ import annotations

import json
import re

import pytest

from tests.clients.fixtures import FOLDER, PART, Recorded, read, shape, write
from tests.clients.recorder import Exchange
from tests.clients.redaction import Redaction

KEY = "sk-inferd-WlKXqbWZ04QH-7Vg2CerqxLKQUGhLhiUuyiI1ygw9NKHDikeEX111Cs0"
SESSION = "0334259d-65fe-4562-9034-45914f98ffd1"
STREAM = b'event: message_start\ndata: {"type":"message_start"}\n\nevent: ping\ndata: {"type":"ping"}\n\n'


def exchange(body: object, headers: dict[str, str] | None = None, **changes: object) -> Exchange:
    given = {"method": "POST", "target": "/v1/messages?beta=true", "status": 200, "answer": STREAM, **changes}
    return Exchange(body=json.dumps(body).encode(), headers=headers or {}, **given)  # type: ignore[arg-type]


def test_redaction_of_headers_keeps_no_secret():
    headers = {
        "authorization": f"Bearer {KEY}",
        "x-api-key": "another secret",
        "cookie": "session=1",
        "anthropic-version": "2023-06-01",
        "session_id": SESSION,
        "x-openwebui-user-name": "Ada",
        "x-openwebui-user-email": "ada@lab.org",
    }
    assert Redaction().headers(headers) == {
        "anthropic-version": "2023-06-01",
        "session_id": "00000000-0000-4000-8000-000000000001",
        "x-openwebui-user-email": "user1@example.com",
        "x-openwebui-user-name": "User",
    }


def test_redaction_of_a_key_in_the_body_replaces_it():
    redaction = Redaction()
    redaction.headers({"authorization": "Bearer no-prefix-of-a-key"})
    assert redaction.value({"a": "it is no-prefix-of-a-key", "b": f"or {KEY}"}) == {
        "a": "it is sk-placeholder",
        "b": "or sk-placeholder",
    }


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (
            f"{SESSION} and {SESSION.upper()}",
            "00000000-0000-4000-8000-000000000001 and 00000000-0000-4000-8000-000000000002",
        ),
        ("write to bob.b@lab.example.org", "write to user1@example.com"),
        ("@ai-sdk/openai@1.2.3", "@ai-sdk/openai@1.2.3"),
        ("/home/bob/notes and /Users/eve/x", "/home/user/notes and /home/user/x"),
        ("/root/.config", "/home/user/.config"),
        ("/tmp/pytest-of-bob/pytest-3/note.txt", "/tmp/1/note.txt"),
        ("call_9f8e7d6c5b4a39281706 then toolu_01AbCdEfGhIjKlMn", "call_1 then toolu_2"),
        ("msg_01a22e419ccf3fed617d8d837e2ceca7_0", "msg_1_0"),
        (f"msg_{SESSION}:0", "msg_00000000-0000-4000-8000-000000000001:0"),
        ("419b166ee61018293fc6eba9599125fe", "00000000000000000000000000000001"),
        ("claude-code-20250219,effort-2025-11-24", "claude-code-20250219,effort-2025-11-24"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln", "sk-placeholder"),
    ],
)
def test_redaction_of_a_text_replaces_what_identifies(text, clean):
    assert Redaction().text(text) == clean


def test_redaction_of_equal_values_gives_equal_placeholders():
    redaction = Redaction()
    first = redaction.value({"id": "call_9f8e7d6c5b4a39281706"})
    redaction.value({"id": "call_00000000000000000001"})
    assert redaction.value({"id": "call_9f8e7d6c5b4a39281706"}) == first


def test_redaction_of_a_long_text_keeps_its_beginning_and_length():
    assert Redaction().value({"text": "word " * 100}) == {"text": f"{'word ' * 12}… [500 characters]"}


def test_redaction_of_json_in_a_text_leaves_json():
    arguments = json.dumps({"content": "line\n" * 100, "path": "/home/bob/a"})
    clean = json.loads(Redaction().value({"arguments": arguments})["arguments"])
    assert clean == {"content": "line\n" * 12 + "… [500 characters]", "path": "/home/user/a"}


def test_redaction_keeps_patterns_and_names_whole():
    long = "a" * 50 + "|" + "b" * 100
    schema = {"pattern": long, "enum": [long], "description": long}
    assert Redaction().value(schema) == {
        "pattern": long,
        "enum": [long],
        "description": f"{long[:60]}… [151 characters]",
    }


def test_fixture_read_again_has_the_requests_without_repeated_ones(tmp_path):
    tool = {
        "name": "read",
        "description": "reads",
        "input_schema": {f"field{n}": {"type": "string"} for n in range(20)},
    }
    bodies = [{"model": "m", "tools": [tool], "max_tokens": number} for number in (1, 2, 2)]
    requests = [Recorded.of(exchange(body), Redaction()) for body in bodies]
    path = tmp_path / "client.jsonl"
    assert write(path, requests) == 2
    assert read(path) == requests[:2]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.keys() & {"part", "method"} for line in lines] == [{"part"}, {"method"}, {"method"}]
    assert lines[1]["body"]["tools"] == [{PART: lines[0]["part"]}]


def test_recorded_request_says_status_events_and_ignored_fields():
    recorded = Recorded.of(exchange({}, answer_headers={"inferd-ignored": "store"}), Redaction())
    assert recorded.answer == {"status": 200, "ignored": "store", "events": ["message_start", "ping"]}
    assert recorded.target == "/v1/messages?beta=true"


def test_recorded_request_says_the_error_of_a_refusal():
    answer = json.dumps({"error": {"message": f"no key {KEY}", "code": None}}).encode()
    recorded = Recorded.of(exchange({}, status=401, answer=answer), Redaction())
    assert recorded.answer == {
        "status": 401,
        "shape": {"error": {"message": "text", "code": "null"}},
        "error": "no key sk-placeholder",
    }


def test_recorded_body_that_is_no_json_says_its_size():
    recorded = Recorded.of(Exchange("POST", "/v1/files", b"--form", 200, b"{}"), Redaction())
    assert recorded.body == "[6 bytes that are no JSON]"


def test_shape_of_a_list_has_each_shape_once():
    assert shape([{"a": 1}, {"a": 2}, {"a": "x"}, None]) == [{"a": "int"}, {"a": "text"}, "null"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_recorded_file_has_neither_keys_nor_people_nor_machines(path):
    for request in read(path):
        assert request.headers.keys() & {"authorization", "x-api-key", "api-key", "cookie"} == set()
    text = path.read_text(encoding="utf-8")
    assert (
        re.findall(
            r"\bsk-(?!placeholder|inferd-x{12})[\w-]{12,}|[\w.]+@(?!example\.com)[\w-]+\.(?:com|org|net)\b", text
        )
        == []
    )
    assert (
        re.findall(r"/root/|/Users/|/home/(?!user\b)\w+|(?i:[0-9a-f]{8}-[0-9a-f]{4}-[1-9][0-9a-f]{3}-(?!8000))", text)
        == []
    )
