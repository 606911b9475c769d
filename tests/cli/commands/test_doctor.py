"""`inferd doctor`."""

from __future__ import annotations

import os
import threading

import pytest

from inferd.ledger.storage import data_dir
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.expiry_clock import ObserveClock, PauseClock
from inferd.server.transport import local_socket
from inferd.server.transport.local_socket import local_listener


def test_doctor_with_a_server_reports_that_all_is_well(inferd, serving):
    report = inferd("doctor", "--json").json
    assert report["well"]
    said = {check["name"]: check["said"] for check in report["checks"]}
    assert said["server"] == f"process {os.getpid()} serves from this data folder"
    assert inferd("doctor").status == 0


def answer_once(listener, status):
    """Answer one request on the server's socket, as a server would."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}".encode())


@pytest.mark.parametrize(("status", "said"), [(200, "and is ready"), (503, "and is loading models or stopping")])
def test_doctor_asks_a_running_server_whether_it_is_ready(inferd, serving, data_dir, status, said):
    with local_listener(data_dir) as listener:
        listener.setblocking(True)
        server = threading.Thread(target=answer_once, args=(listener, status))
        server.start()
        report = inferd("doctor", "--json").json
        server.join()
    assert report["checks"][0]["said"] == f"process {os.getpid()} serves from this data folder, {said}"


def test_doctor_reports_a_server_that_does_not_answer(inferd, serving, data_dir, monkeypatch):
    monkeypatch.setattr(local_socket, "ANSWER_TIMEOUT_S", 0.05)
    with local_listener(data_dir):
        found = inferd("doctor")
    assert found.status == 1
    assert f"the server on {data_dir} did not answer within" in found.err


@pytest.mark.usefixtures("new_ledger")
def test_doctor_without_a_server_fails_unless_none_is_needed(inferd):
    found = inferd("doctor")
    assert found.status == 1
    assert "no server runs on this data folder: start `inferd serve`" in found.err
    assert inferd("doctor", "--no-server").status == 0


def test_doctor_reports_a_full_disk(inferd, serving, monkeypatch):
    monkeypatch.setattr(data_dir, "free_bytes", lambda folder: 1000)
    monkeypatch.setattr("inferd.ledger.maintenance.doctor.free_bytes", lambda folder: 1000)
    found = inferd("doctor")
    assert found.status == 1
    assert "new requests are refused until there are 64 MiB" in found.err


@pytest.mark.parametrize("doubt", [PauseClock("the clock went back"), ObserveClock(2**42)])
def test_doctor_reports_a_doubted_clock_until_accepted(inferd, data_dir, doubt):
    """R20"""
    inferd("teams", "create", "acme")
    with Store(data_dir).immediate() as conn:
        doubt.apply(conn)
    found = inferd("doctor", "--no-server")
    assert found.status == 1
    assert "inferd doctor --accept-clock" in found.out
    assert inferd("doctor", "--no-server", "--accept-clock").status == 0
    assert inferd("doctor", "--no-server").status == 0
    assert "clock.accept" in inferd("log").out


def test_doctor_reports_a_master_key_that_others_may_read(inferd, serving, data_dir):
    path = data_dir / "master.key"
    path.write_text("key\n")
    path.chmod(0o600)
    said = {check["name"]: check["said"] for check in inferd("doctor", "--json").json["checks"]}
    assert said["key"] == "master.key of stored responses is private"
    path.chmod(0o604)
    found = inferd("doctor")
    assert (found.status, "chmod 600" in found.err) == (1, True)
