"""`inferd` as a program: exit statuses, start-up, pipes, and other processes on the same ledger."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import inferd as package
from inferd.cli import commands
from inferd.cli.access import author
from inferd.cli.main import CONFIG_STATUS, main
from inferd.cli.output import BROKEN_PIPE_STATUS
from inferd.ledger.operations import Author

PROGRAM = Path(sys.executable).with_name("inferd")
HEAVY = {"llama_cpp", "numpy", "starlette", "uvicorn", "jinja2", "sqlite3", "sqlite_utils", "rich"}


def start(*words, **options):
    return subprocess.Popen([PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_program_beside_a_server_ends_with_documented_statuses(serving):
    data_dir = str(serving.data_dir)
    made = start("teams", "create", "acme", "--json", "--data-dir", data_dir)
    refused = start("teams", "show", "nobody", "--data-dir", data_dir)
    misused = start("teams", "shw", "--data-dir", data_dir)
    out, _ = made.communicate()
    assert (made.returncode, json.loads(out)["team"]) == (0, "acme")
    out, err = refused.communicate()
    assert (refused.returncode, out, err.count("\n")) == (1, "", 1)
    assert "Traceback" not in err
    out, _ = misused.communicate()
    assert (misused.returncode, out) == (2, "")


def test_two_first_processes_create_one_ledger(data_dir):
    both = [start("teams", "create", "acme", "--data-dir", str(data_dir)) for _ in range(2)]
    ends = [(*process.communicate(), process.returncode) for process in both]
    assert sorted(status for *_, status in ends) == [0, 1], ends
    (refused,) = (err for _, err, status in ends if status)
    assert refused == "inferd: there is a team 'acme' already\n"


def test_closed_pipe_ends_the_program_quietly(used, data_dir):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as pipe:
        words = [PROGRAM, "ledger", "export", "--data-dir", str(data_dir)]
        ended = subprocess.run(words, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (BROKEN_PIPE_STATUS, "")


def test_import_of_commands_loads_no_heavy_module():
    folder = Path(commands.__file__).parent
    nouns = [".".join(path.relative_to(folder).with_suffix("").parts) for path in sorted(folder.rglob("*.py"))]
    imports = "; ".join(f"import inferd.cli.commands.{noun}" for noun in nouns)
    program = f"import sys; import inferd.cli.main; {imports}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert HEAVY & set(loaded.split()) == set()


def test_version_option_prints_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"inferd {package.__version__}\n"


def test_unusable_data_folder_has_status_2(inferd, data_dir):
    data_dir.touch()
    refused = inferd("teams", "list")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith(f"inferd: {data_dir}: cannot be used as the data folder")


def test_file_that_is_no_ledger_has_status_2(inferd, data_dir):
    data_dir.mkdir()
    (data_dir / "ledger.db").write_bytes(b"no database" * 100)
    refused = inferd("teams", "list")
    assert refused.status == 2
    assert "cannot be used as a ledger" in refused.err


def test_data_folder_defaults_to_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INFERD_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(SystemExit):
        main(["teams", "create", "acme", "--json"])
    assert (tmp_path / "elsewhere" / "ledger.db").exists()


@pytest.mark.usefixtures("new_ledger")
def test_bug_shows_its_traceback(inferd, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("inferd.ledger.operations.list_teams", broken)
    with pytest.raises(ZeroDivisionError):
        inferd("teams", "list")


@pytest.mark.usefixtures("new_ledger")
def test_ctrl_c_has_status_130(inferd, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("inferd.ledger.operations.list_teams", interrupted)
    ended = inferd("teams", "list")
    assert (ended.status, ended.out) == (130, "")


def test_actor_is_the_user_of_the_operating_system(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert author(5) == Author("cli:root", 5)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert author(5) == Author("cli:4000000000", 5)


def test_lock_that_cannot_be_opened_is_one_line(data_dir, capsys, tmp_path):
    (data_dir / "server.lock").mkdir(parents=True)
    (tmp_path / "models.toml").write_text("")
    arguments = ["serve", "--config", str(tmp_path / "models.toml"), "--data-dir", str(data_dir), "--port", "0"]
    assert main(arguments) == CONFIG_STATUS
    assert capsys.readouterr().err == f"inferd: {data_dir / 'server.lock'}: cannot be opened: Is a directory\n"


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.usefixtures("new_ledger")
def test_file_error_that_an_operator_can_fix_is_one_line(inferd, monkeypatch, error):
    def refused(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error), "/some/ledger.db")

    monkeypatch.setattr("inferd.ledger.storage.store.Store.__init__", refused)
    ended = inferd("teams", "list")
    assert (ended.status, ended.out, ended.err) == (1, "", f"inferd: /some/ledger.db: {os.strerror(error)}\n")


@pytest.mark.usefixtures("new_ledger")
def test_other_system_error_shows_its_traceback(inferd, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EBADF, "a bug of ours")

    monkeypatch.setattr("inferd.ledger.storage.store.Store.__init__", broken)
    with pytest.raises(OSError, match="a bug of ours"):
        inferd("teams", "list")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("usage --by modle", "'modle' is not one of 'model', 'day',"),
        ("usage --by modle", "did you mean 'model'?"),
        ("teams set acme --overage postpayd", "did you mean 'postpaid'?"),
        ("credits void abc --reason x", "Invalid value for 'GRANT': 'abc' is not a whole number such as 7"),
        ("serve --port 99999", "99999 is too large: the maximum is 65535"),
        ("log --limit 0", "0 is too small: the minimum is 1"),
        ("credits grant acme -5", "cannot be negative; `inferd credits withdraw` takes credit back"),
        ("budgets set acme -12.50", "an amount or number cannot be negative"),
        ("teams list --jsn", "No such option: --jsn"),
    ],
)
def test_usage_error_names_the_value_and_what_is_allowed(inferd, monkeypatch, words, said):
    monkeypatch.setenv("COLUMNS", "400")
    refused = inferd(*words.split())
    assert refused.status == 2
    assert said in " ".join(refused.err.replace("│", "").split())
