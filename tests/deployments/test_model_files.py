"""A writer of a model's file is found, and waits where the system has leases."""

from __future__ import annotations

import os
import threading

import pytest

from inferd.deployments import model_files
from inferd.deployments.model_files import ModelFiles
from inferd.errors import ConfigError

PATIENCE_S = 30.0


@pytest.fixture
def path(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"weights")
    return tmp_path / "m.gguf"


def without_leases(monkeypatch):
    monkeypatch.setattr(model_files, "_take_lease", lambda descriptor: False)


def are_leased(files: ModelFiles) -> bool:
    """Return whether a writer of any of the files has to wait; some file systems have no leases."""
    return all(is_leased for _, _, is_leased in files._opened.values())


def test_file_that_is_not_there_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match=r"m\.gguf: No such file"):
        ModelFiles([tmp_path / "m.gguf"])


def test_writer_waits_until_the_lease_is_given_back(path):
    files = ModelFiles([path])
    if not are_leased(files):
        pytest.skip("this file system has no leases")
    assert files.change() is None
    wrote = threading.Event()

    def overwrite() -> None:
        path.write_bytes(b"other")
        wrote.set()

    writer = threading.Thread(target=overwrite, daemon=True)
    writer.start()
    while files.change() is None:
        pass
    assert files.change() == f"another process wants to write to {path}"
    assert path.read_bytes() == b"weights"
    files.close()
    assert wrote.wait(PATIENCE_S)
    writer.join()


def test_touch_of_a_leased_file_is_no_change(path):
    files = ModelFiles([path])
    if not are_leased(files):
        pytest.skip("this file system has no leases")
    os.utime(path, ns=(1, 1))
    assert files.change() is None
    files.close()


@pytest.mark.parametrize("change", ["truncate", "overwrite", "append"])
def test_change_without_a_lease_is_found_after_the_fact(path, monkeypatch, change):
    without_leases(monkeypatch)
    files = ModelFiles([path])
    assert files.change() is None
    if change == "truncate":
        os.truncate(path, 3)
    else:
        with path.open("r+b" if change == "overwrite" else "ab") as file:
            file.write(b"W")
        os.utime(path, ns=(1, 2))  # a clock of the file system may be too coarse to tell
    assert files.change() == f"{path} was written to"
    files.close()


@pytest.mark.parametrize("leased", [True, False])
def test_replacement_by_a_rename_leaves_the_served_file_alone(path, tmp_path, monkeypatch, leased):
    if not leased:
        without_leases(monkeypatch)
    files = ModelFiles([path])
    (tmp_path / "new.gguf").write_bytes(b"newer weights")
    (tmp_path / "new.gguf").rename(path)
    assert files.change() is None
    assert files.replaced() == path
    files.close()


def test_file_that_is_open_for_writing_has_no_lease(path):
    with path.open("ab"):
        files = ModelFiles([path])
        assert not are_leased(files)
        files.close()
