"""Sealed data opens for its team, kind and name only, under its own master key; an erased key opens nothing."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inferd.errors import ConfigError, SealedDataError
from inferd.sealed import KEYS_FOLDER, MASTER_KEY_NAME, KeyRing, erase, master_key_fault, parse_master_key, write_synced

MASTER = bytes(range(32))
SECRET = b"the patient's name is Anna"


def test_sealed_data_opens_after_a_restart_and_shows_nothing(tmp_path):
    sealed = KeyRing(tmp_path).seal("acme", "response", "resp_1", SECRET)
    assert KeyRing(tmp_path).open("acme", "response", "resp_1", sealed) == SECRET
    assert SECRET not in sealed
    assert sealed != KeyRing(tmp_path).seal("acme", "response", "resp_1", SECRET)


@pytest.mark.parametrize("moved", [("lab", "response", "1"), ("acme", "cache", "1"), ("acme", "response", "2")])
def test_sealed_data_moved_to_another_team_kind_or_name_does_not_open(tmp_path, moved):
    keys = KeyRing(tmp_path)
    sealed = keys.seal("acme", "response", "1", SECRET)
    with pytest.raises(SealedDataError):
        keys.open(*moved, sealed)


@pytest.mark.parametrize("place", [0, 1, 13, -1])
def test_sealed_data_with_a_changed_byte_does_not_open(tmp_path, place):
    keys = KeyRing(tmp_path)
    sealed = bytearray(keys.seal("acme", "response", "1", SECRET))
    sealed[place] ^= 1
    with pytest.raises(SealedDataError):
        keys.open("acme", "response", "1", bytes(sealed))
    for cut in (b"", bytes(sealed[:5])):
        with pytest.raises(SealedDataError):
            keys.open("acme", "response", "1", cut)


def test_sealed_data_of_a_team_whose_key_was_erased_does_not_open(tmp_path):
    keys = KeyRing(tmp_path)
    mine, other = (keys.seal(team, "response", "1", SECRET) for team in ("acme", "lab"))
    keys.erase("acme")
    keys.erase("never seen")
    for ring in (keys, KeyRing(tmp_path)):
        with pytest.raises(SealedDataError):
            ring.open("acme", "response", "1", mine)
        assert ring.open("lab", "response", "1", other) == SECRET


def test_master_key_file_is_private_and_refused_once_others_may_read_it(tmp_path):
    KeyRing(tmp_path).seal("acme", "response", "1", SECRET)
    path = tmp_path / MASTER_KEY_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / KEYS_FOLDER / "acme").stat().st_mode) == 0o600
    assert master_key_fault(tmp_path) is None
    KeyRing(tmp_path).check()
    path.chmod(0o640)
    assert "chmod 600" in (master_key_fault(tmp_path) or "")
    with pytest.raises(ConfigError, match="has mode 640"):
        KeyRing(tmp_path).check()


def test_master_key_that_is_wrong_or_missing_is_named_by_the_check(tmp_path):
    KeyRing(tmp_path, MASTER).seal("acme", "response", "1", SECRET)
    assert not (tmp_path / MASTER_KEY_NAME).exists()
    KeyRing(tmp_path, MASTER).check()
    with pytest.raises(ConfigError, match=r"cannot be opened with the master key of INFERD_MASTER_KEY"):
        KeyRing(tmp_path, bytes(32)).check()
    with pytest.raises(ConfigError, match=r"master.key: is missing"):
        KeyRing(tmp_path).check()
    assert not (tmp_path / MASTER_KEY_NAME).exists(), "a new key would hide the loss of the old one"


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(bytes(31)).decode(), "ä" * 44, "a" * 64])
def test_master_key_of_another_form_is_refused_without_being_shown(text):
    with pytest.raises(ConfigError, match=r"^HERE: must be the base64 of 32 random bytes") as caught:
        parse_master_key(text, "HERE")
    assert not text or text not in str(caught.value)
    assert parse_master_key(f" {base64.b64encode(MASTER).decode()}\n", "HERE") == MASTER


def test_erased_file_was_overwritten(tmp_path: Path):
    path = tmp_path / "file"
    write_synced(path, SECRET)
    with path.open("rb") as kept:
        assert erase(path)
        assert kept.read() == bytes(len(SECRET))
    assert not erase(path)
    assert list(tmp_path.iterdir()) == []


def test_file_that_many_threads_erase_is_erased_by_one(tmp_path: Path):
    path = tmp_path / "file"
    for _ in range(20):
        write_synced(path, SECRET)
        with ThreadPoolExecutor(3) as threads:
            sizes = list(threads.map(erase, [path] * 3))
        assert sorted(size or 0 for size in sizes) == [0, 0, len(SECRET)]
    assert list(tmp_path.iterdir()) == []
