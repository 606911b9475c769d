"""Store: private files, one server per folder, the current schema, errors that say what to do."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from inferd.errors import ConfigError, LedgerDamagedError, OperationError
from inferd.ledger import operations
from inferd.ledger.requests.settlement import begin_epoch
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.schema import SCHEMA_VERSION, schema_version
from inferd.ledger.storage.store import Store

OPEN = "import sys, pathlib; from inferd.ledger.storage.store import Store; Store(pathlib.Path(sys.argv[1]))"
SERVE = (
    "import sys, pathlib; from inferd.ledger.storage.data_dir import DataLock; "
    "DataLock(pathlib.Path(sys.argv[1])).acquire(); print('locked', flush=True); sys.stdin.read()"
)


def mode(path):
    return path.stat().st_mode & 0o777


def test_data_folder_and_its_files_are_private(tmp_path):
    """R20"""
    store = Store(tmp_path / "a" / "data")
    with store.immediate() as conn:
        operations.create_team(conn, "acme", by=operations.Author("test", 1))
        files = sorted(store.data_dir.iterdir())
        assert {file.name for file in files} >= {"ledger.db", "ledger.db-wal", "server.lock"}
        assert [mode(file) for file in files] == [0o600] * len(files)
    assert mode(store.data_dir) == 0o700


def test_empty_folder_becomes_private_and_a_used_one_keeps_its_mode(tmp_path):
    for name in ("empty", "used"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "used" / "letter.txt").write_text("mine")
    Store(tmp_path / "empty")
    Store(tmp_path / "used")
    assert (mode(tmp_path / "empty"), mode(tmp_path / "used")) == (0o700, 0o755)
    assert mode(tmp_path / "used" / "ledger.db") == 0o600


def test_data_folder_that_is_a_file_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used as the data folder"):
        Store(tmp_path / "file")


def test_file_that_is_no_ledger_is_a_config_error(tmp_path):
    (tmp_path / "ledger.db").write_text("I am a letter, not a database. " * 50)
    with pytest.raises(ConfigError, match=r"ledger\.db: cannot be used as a ledger"):
        Store(tmp_path)


def test_newer_schema_is_refused(tmp_path):
    """R20"""
    store = Store(tmp_path)
    with closing(store.connect_writer()) as conn:
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(ConfigError, match="newer inferd"):
        Store(tmp_path)


def test_second_server_is_refused_with_folder_and_pid(tmp_path, lock):
    """R20"""
    with pytest.raises(ConfigError) as refusal:
        DataLock(tmp_path / "data").acquire()
    assert str(tmp_path / "data") in refusal.value.message
    assert f"process {lock.holder()} " in refusal.value.message
    lock.release()
    with DataLock(tmp_path / "data"):
        pass


def test_lock_of_a_killed_server_is_free(tmp_path):
    """R20"""
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigError, match=f"process {server.pid} "):
            DataLock(tmp_path).acquire()
        server.kill()
    with DataLock(tmp_path):
        pass


SERVE_A_LEDGER = (
    "import sys, pathlib; from inferd.ledger.storage.data_dir import DataLock; "
    "from inferd.ledger.storage.store import Store; "
    "from inferd.ledger.requests.settlement import begin_epoch; "
    "folder = pathlib.Path(sys.argv[1]); lock = DataLock(folder); lock.acquire(); begin_epoch(Store(folder, lock), 1); "
    "print('serves', flush=True); sys.stdin.read()"
)


@pytest.fixture
def served_folder(tmp_path):
    """A data folder from which another process serves."""
    folder = tmp_path / "data"
    command = [sys.executable, "-c", SERVE_A_LEDGER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"serves\n"
        yield folder
        server.kill()


def delete_lock(folder):
    (folder / "server.lock").unlink()
    return folder


def replace_lock(folder):
    (folder / "mine").touch()
    (folder / "mine").rename(folder / "server.lock")
    return folder


def delete_lock_and_database(folder):
    for file in folder.iterdir():
        file.unlink()
    return folder


def link_folder(folder):
    delete_lock(folder)
    link = folder.with_name("link")
    link.symlink_to(folder)
    return link


def link_database(folder):
    other = folder.with_name("other")
    other.mkdir()
    (other / "ledger.db").symlink_to(folder / "ledger.db")
    return other


def hard_link_database(folder):
    other = folder.with_name("other")
    other.mkdir()
    (other / "ledger.db").hardlink_to(folder / "ledger.db")
    return other


def move_folder(folder):
    delete_lock(folder)
    return folder.rename(folder.with_name("moved"))


def mount_folder(folder):
    delete_lock(folder)
    mounted = folder.with_name("mounted")
    mounted.mkdir()
    if subprocess.run(["mount", "--bind", str(folder), str(mounted)], capture_output=True, check=False).returncode:
        pytest.skip("only root can mount")
    return mounted


WAYS = [
    *(delete_lock, replace_lock, delete_lock_and_database, link_folder, link_database, hard_link_database),
    *(move_folder, mount_folder),
]


@pytest.mark.parametrize("way", WAYS)
def test_second_server_cannot_bypass_the_lock(served_folder, way):
    """R20"""
    if way in (link_database, hard_link_database) and not hasattr(fcntl, "F_OFD_SETLK"):
        pytest.skip("this system has no locks that belong to a descriptor")
    found = way(served_folder)
    try:
        with pytest.raises(ConfigError, match="already serves from this data folder"):
            DataLock(found).acquire()
        if (found / "ledger.db").exists():
            with closing(sqlite3.connect(found / "ledger.db")) as conn:
                assert conn.execute("SELECT max(epoch) FROM epochs").fetchone() == (1,)
    finally:
        if way is mount_folder:
            subprocess.run(["umount", str(found)], check=True)


def test_second_server_serves_from_a_copy(served_folder):
    """R20"""
    copied = shutil.copytree(served_folder, served_folder.with_name("copy"))
    with DataLock(copied) as lock:
        assert begin_epoch(Store(copied, lock), 2) == 2


def test_epoch_on_a_replaced_database_is_refused(tmp_path, lock):
    """R20"""
    store = Store(tmp_path / "data", lock)
    shutil.copy(store.path, tmp_path / "copy.db")
    (tmp_path / "copy.db").rename(store.path)
    with pytest.raises(ConfigError, match="was replaced"):
        begin_epoch(store, 1)


def test_command_line_opens_the_store_beside_a_server(tmp_path, store):
    """R20"""
    subprocess.run([sys.executable, "-c", OPEN, str(store.data_dir)], check=True, timeout=30)


def test_concurrent_first_opens_create_one_schema(tmp_path):
    """R20: under the lock."""
    command = [sys.executable, "-c", OPEN, str(tmp_path)]
    started = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    with closing(Store(tmp_path).connect()) as conn:
        assert schema_version(conn) == SCHEMA_VERSION


def test_older_schema_in_use_by_a_server_is_refused(tmp_path, store):
    """R20: a migration needs the lock."""
    with closing(store.connect_writer()) as conn:
        conn.execute("PRAGMA user_version = 12")
    with pytest.raises(ConfigError, match="older than this inferd, and process"):
        Store(store.data_dir, busy_timeout_s=0.05)


def test_epoch_without_the_lock_is_an_assertion_error(tmp_path):
    """R20"""
    with pytest.raises(AssertionError, match="lock"):
        begin_epoch(Store(tmp_path), 1)


def test_reading_connection_cannot_write(store):
    with store.reading() as conn, pytest.raises(sqlite3.OperationalError):
        conn.execute("DELETE FROM counters")


def test_immediate_transaction_that_raises_changes_nothing(store):
    def create_and_fail():
        with store.immediate() as conn:
            operations.create_team(conn, "acme", by=operations.Author("test", 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        create_and_fail()
    with store.reading() as conn:
        assert operations.list_teams(conn) == []


def test_write_lock_held_by_another_is_an_operation_error(tmp_path, lock):
    store = Store(tmp_path / "data", lock, busy_timeout_s=0.02)
    with (
        store.immediate(),
        pytest.raises(OperationError, match=r"busy with other writes.*try again"),
        store.immediate(),
    ):
        pass


def test_immediate_transactions_of_threads_wait_for_each_other(store):
    def make(name):
        with store.immediate() as conn:
            operations.create_team(conn, name, by=operations.Author("test", 1))

    threads = [threading.Thread(target=make, args=(f"team-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as conn:
        assert len(operations.list_teams(conn)) == 8


def test_immediate_transaction_is_synced(store):
    """A change that an operator was told of survives a power cut: synchronous = FULL is 2."""
    with store.immediate() as conn:
        assert conn.execute("PRAGMA synchronous").fetchone() == (2,)
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_writing_connection_enforces_references_and_triggers(store):
    with store.immediate() as conn:
        operations.create_team(conn, "acme", by=operations.Author("test", 1))
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            conn.execute("INSERT INTO projects VALUES ('nobody', 'inference', 1, 'test')")
        with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
            conn.execute("INSERT OR REPLACE INTO teams SELECT * FROM teams")


def test_damaged_file_is_explained_to_readers_and_writers(store):
    with store.immediate() as conn:
        operations.create_team(conn, "acme", by=operations.Author("test", 1))
    with closing(sqlite3.connect(store.path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(store.path.read_bytes())
    data[3 * 4096 :] = b"Z" * (len(data) - 3 * 4096)
    store.path.write_bytes(data)
    with pytest.raises(LedgerDamagedError, match="inferd restore"), store.reading() as conn:
        operations.list_teams(conn)
    with pytest.raises(LedgerDamagedError, match="inferd restore"), store.immediate() as conn:
        operations.list_teams(conn)
