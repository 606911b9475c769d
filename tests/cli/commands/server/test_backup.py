"""`inferd backup`, `inferd restore` and `inferd doctor`."""

from __future__ import annotations

import os

import pytest

from inferd.ledger.storage import disk
from inferd.ledger.storage.lock import DataLock
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.expiry_clock import ObserveClock, PauseClock


@pytest.mark.usefixtures("used")
def test_a_backup_beside_a_running_server_says_what_it_holds(inferd, tmp_path):
    made = inferd("backup", str(tmp_path / "copy.db"))
    assert made.status == 0
    assert "3 requests, 3 movements of money" in made.out
    assert f"inferd restore {tmp_path / 'copy.db'}" in made.out
    again = inferd("backup", str(tmp_path / "copy.db"))
    assert (again.status, "exists already" in again.err) == (1, True)
    as_json = inferd("backup", str(tmp_path / "two.db"), "--json").json
    assert as_json["rows"]["usage"] == 3
    assert as_json["bytes"] == (tmp_path / "two.db").stat().st_size


def test_a_backup_of_nothing_is_refused(inferd, tmp_path):
    assert inferd("backup", str(tmp_path / "copy.db")).status == 1
    assert not (tmp_path / "copy.db").exists()


def test_a_restore_says_what_is_lost_and_does_it_with_yes(inferd, tmp_path):
    inferd("teams", "create", "acme")
    inferd("backup", str(tmp_path / "copy.db"))
    inferd("credits", "grant", "acme", "12.50")
    asked = inferd("restore", str(tmp_path / "copy.db"))
    assert asked.status == 0
    assert "1 grants ($12.50)" in asked.out
    assert "Nothing was changed" in asked.out
    assert inferd("credits", "show", "acme", "--json").json["balance_usd"] == "17.500000000"
    done = inferd("restore", str(tmp_path / "copy.db"), "--yes")
    assert "as it was is kept in" in done.out
    assert inferd("credits", "show", "acme", "--json").json["balance_usd"] == "5.000000000"
    assert inferd("audit").status == 0
    assert "Nothing would be lost" in inferd("restore", str(tmp_path / "copy.db")).out


def test_a_restore_needs_the_server_stopped(inferd, data_dir, tmp_path):
    """R20"""
    inferd("teams", "create", "acme")
    inferd("backup", str(tmp_path / "copy.db"))
    with DataLock(data_dir):
        refused = inferd("restore", str(tmp_path / "copy.db"), "--yes")
    assert (refused.status, f"process {os.getpid()}" in refused.err) == (2, True)


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
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1000)
    monkeypatch.setattr("inferd.ledger.maintenance.doctor.free_bytes", lambda folder: 1000)
    found = inferd("doctor")
    assert (found.status, "new requests are refused until there are 64 MiB" in found.err) == (1, True)


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
