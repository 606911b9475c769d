"""`inferd doctor`."""

from __future__ import annotations

import os

import pytest

from inferd.ledger.storage import data_dir
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.expiry_clock import ObserveClock, PauseClock


def test_a_doctor_says_that_all_is_well(inferd, serving):
    report = inferd("doctor", "--json").json
    assert report["well"]
    said = {check["name"]: check["said"] for check in report["checks"]}
    assert said["server"] == f"process {os.getpid()} serves from this data folder"
    assert inferd("doctor").status == 0


@pytest.mark.usefixtures("new_ledger")
def test_doctor_without_a_server_says_so_unless_none_is_needed(inferd):
    found = inferd("doctor")
    assert found.status == 1
    assert "no server runs on this data folder: start `inferd serve`" in found.err
    assert inferd("doctor", "--no-server").status == 0


def test_a_doctor_finds_a_full_disk(inferd, serving, monkeypatch):
    monkeypatch.setattr(data_dir, "free_bytes", lambda folder: 1000)
    monkeypatch.setattr("inferd.ledger.maintenance.doctor.free_bytes", lambda folder: 1000)
    found = inferd("doctor")
    assert found.status == 1
    assert "new requests are refused until there are 64 MiB" in found.err


@pytest.mark.parametrize("doubt", [PauseClock("the clock went back"), ObserveClock(2**42)])
def test_a_doubted_clock_is_found_and_accepted(inferd, data_dir, doubt):
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
