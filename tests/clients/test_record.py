"""scripts/record-client, with an upstream that says what it got."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.clients import record
from tests.clients.fixtures import read
from tests.clients.recorder import recording

ASK = """
import os, urllib.request
request = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/chat/completions",
    b'{"model": "a/b", "messages": []}',
    {"authorization": "Bearer sk-secret-0123456789abcdef", "content-type": "application/json"},
)
print(urllib.request.urlopen(request).read().decode())
"""


class Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = json.dumps({"got": body.decode(), "key": self.headers.get("authorization")}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def upstream() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    return tmp_path


def test_record_command_passes_the_request_on_and_writes_it_without_the_key(upstream, folder, capfd):
    arguments = ["probe", "--to", f"{upstream}/v1", "--", sys.executable, "-c", ASK]
    assert record.main(arguments) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["key"] == "Bearer sk-secret-0123456789abcdef"
    assert f"1 requests, 0 of them refused; 1 different ones in {folder}/probe.jsonl" in err
    (request,) = read(folder / "probe.jsonl")
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.body == {"model": "a/b", "messages": []}
    assert request.answer == {"status": 200, "shape": {"got": "text", "key": "text"}}
    assert "secret" not in (folder / "probe.jsonl").read_text()


def test_record_command_run_again_adds_only_what_is_new(upstream, folder):
    for max_tokens in (1, 1, 2):
        ask = ASK.replace('"messages": []', f'"max_tokens": {max_tokens}')
        record.main(["probe", "--to", upstream, "--", sys.executable, "-c", ask])
    assert [request.body["max_tokens"] for request in read(folder / "probe.jsonl")] == [1, 2]
    record.main(["probe", "--to", upstream, "--new", "--", sys.executable, "-c", ASK])
    assert len(read(folder / "probe.jsonl")) == 1


def test_record_command_that_fails_gives_its_exit_status(upstream, folder):
    assert record.main(["probe", "--to", upstream, "--", sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert record.main(["probe", "--to", upstream, "--", "/no/such/command"]) == 127


@pytest.mark.parametrize("arguments", [["probe"], ["a/b", "--listen", "1"], []])
def test_record_command_with_wrong_arguments_says_the_usage(arguments, folder, capsys):
    with pytest.raises(SystemExit):
        record.main(arguments)
    assert "usage: scripts/record-client NAME" in capsys.readouterr().err


def test_recorder_given_a_body_in_chunks_passes_it_on(upstream):
    with recording(upstream) as recorder:
        client = http.client.HTTPConnection(recorder.base_url.removeprefix("http://"))
        client.request("POST", "/v1/x", iter([b'{"a": ', b"1}"]), {"transfer-encoding": "chunked"}, encode_chunked=True)
        assert json.loads(client.getresponse().read())["got"] == '{"a": 1}'
        assert recorder.exchanges[0].body == b'{"a": 1}'
