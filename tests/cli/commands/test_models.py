"""`inferd models`: models.toml without starting it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inferd.engine.llama import loading
from tests.engine.llama.tiny_models import write_long, write_other, write_shards

N_CTX = 4096
TLS = Path(__file__).parents[2] / "server" / "tls"
MODELS_TOML = """\
[models.tiny]
source = "tiny.gguf"
max_context = 2048
chat_template = "chat.jinja"

[deployments."local/tiny"]
model = "tiny"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 1234.567891
default_max_tokens = 99

[deployments."local/odd"]
model = "tiny"
serverless = true
usd_per_1m_tokens = 0.000001

[deployments."local/free"]
model = "tiny"
serverless = true
"""
PRICES = ("input_usd_per_1m_tokens", "cached_input_usd_per_1m_tokens", "output_usd_per_1m_tokens")


@pytest.fixture(scope="session")
def model_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_long(path, N_CTX)
    return path.read_bytes()


@pytest.fixture
def config(tmp_path, model_bytes):
    (tmp_path / "tiny.gguf").write_bytes(model_bytes)
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    path = tmp_path / "models.toml"
    path.write_text(MODELS_TOML)
    return path


@pytest.mark.parametrize("command", ["list", "check"])
def test_list_prints_json(inferd, config, data_dir, command):
    shown = inferd("models", command, "--config", str(config), "--json").json
    assert (shown["config"], shown["data_dir"]) == (str(config), str(data_dir))
    tiny, odd, free = shown["deployments"]
    assert tiny == {
        "deployment": "local/tiny",
        "aliases": [],
        "model": "tiny",
        "source": "tiny.gguf",
        "file": str(config.parent / "tiny.gguf"),
        "max_context": 2048,
        "kv_layout": "partitioned",
        "kv_cells": 8 * 2048,
        "default_max_tokens": 99,
        "free": False,
        "free_until": None,
        "deprecated_at": None,
        "retires_at": None,
        "input_usd_per_1m_tokens": "0.100000000",
        "cached_input_usd_per_1m_tokens": "0.050000000",
        "output_usd_per_1m_tokens": "1234.567891000",
        "usd_per_second": None,
        "max_compute_ms": None,
        "service_tiers": {"default": 1.0, "batch": 0.5},
    }
    assert [odd[price] for price in PRICES] == ["0.000001000", "0.000000500", "0.000001000"]
    assert free["free"] is True
    assert [free[price] for price in PRICES] == [None, None, None]


def test_list_has_model_context_prices_and_source(inferd, config):
    out = inferd("models", "list", "--config", str(config)).out
    tiny, _, free = out.splitlines()[2:5]
    assert tiny.split() == ["local/tiny", "tiny", "2,048", "$0.10", "$0.05", "$1,234.567891", "-", "paid"]
    assert free.split() == ["local/free", "tiny", "2,048", "-", "-", "-", "-", "free"]
    assert "Prices are per 1M tokens, or per second of compute." in out
    assert str(config) in out
    tiny = inferd("models", "list", "-v", "--config", str(config)).out.splitlines()[2]
    assert tiny.split()[-4:] == ["paid", "16,384", "partitioned", "tiny.gguf"]


def test_list_shows_prices_by_time_and_tiers(inferd, config):
    tiers = "priority_multiplier = 1.5\nflex = true\n"
    timed = '[deployments."local/timed"]\nmodel = "tiny"\nserverless = true\nusd_per_second = 0.004\n' + tiers
    config.write_text(timed + MODELS_TOML)
    row = inferd("models", "list", "--config", str(config)).out.splitlines()[2]
    assert "$0.004 " in row
    assert "priority x 1.5, flex x 0.5" in row
    out = inferd("models", "check", "--config", str(config)).out
    assert "local/timed  $0.004 per second of compute, at most 60000 ms a request" in out


def test_check_of_a_good_configuration_prints_each_price(inferd, config, data_dir):
    checked = inferd("models", "check", "--config", str(config))
    assert checked.status == 0
    assert checked.out.splitlines() == [
        f"{config} is right: 1 model, 3 deployments.",
        "  local/tiny  $0.10 input, $0.05 cached input, $1,234.567891 output per 1M tokens",
        "  local/odd   $0.000001 input, $0.0000005 cached input, $0.000001 output per 1M tokens",
        "  local/free  free for all teams",
        f"Usage is written to {data_dir}.",
    ]


@pytest.mark.parametrize("command", ["list", "check"])
def test_check_of_a_fault_is_one_line_with_status_2(inferd, config, command):
    config.write_text(MODELS_TOML.replace("max_context", "max_contxt"))
    refused = inferd("models", command, "--config", str(config), "--json")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == f"inferd: {config}: [models.tiny] max_contxt: unknown key; did you mean max_context?\n"


def test_check_of_a_missing_file_is_one_line_with_status_2(inferd, tmp_path):
    refused = inferd("models", "check", "--config", str(tmp_path / "none.toml"))
    assert refused.status == 2
    assert refused.err == f"inferd: {tmp_path / 'none.toml'}: cannot be read: No such file or directory\n"


def test_check_reports_a_data_folder_that_is_a_file(inferd, config, data_dir):
    data_dir.touch()
    refused = inferd("models", "check", "--config", str(config))
    assert refused.status == 2
    assert "is not a folder" in refused.err


def test_check_and_list_create_no_data_folder(inferd, config, data_dir):
    inferd("models", "check", "--config", str(config))
    assert not data_dir.exists()


def test_strict_check_refuses_deployments_without_a_price(inferd, config):
    """R13"""
    ended = inferd("models", "check", "--strict", "--config", str(config))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.endswith("[deployments] without a price: local/free; set prices\n")
    config.write_text(MODELS_TOML + "usd_per_1m_tokens = 2\nfree_until = 2026-12-01\n")
    assert inferd("models", "check", "--strict", "--config", str(config)).status == 0


def test_check_shows_free_until_and_the_price_after(inferd, config):
    """R13"""
    config.write_text(MODELS_TOML + "usd_per_1m_tokens = 2\nfree_until = 2026-12-01\n")
    assert "free until 2026-12-01 00:00 UTC, then $2.00 input" in inferd("models", "check", "--config", str(config)).out
    listed = inferd("models", "list", "--config", str(config))
    assert "free until 2026-12-01 00:00" in listed.out
    shown = inferd("models", "list", "--config", str(config), "--json").json["deployments"][2]
    assert (shown["free"], shown["free_until"]) == (False, "2026-12-01T00:00:00.000Z")


def test_check_shows_the_date_of_a_retirement(inferd, config):
    config.write_text(MODELS_TOML + "deprecated_at = 2026-12-01\nretires_at = 2026-12-31\n")
    for command in ("check", "list"):
        assert "retires 2026-12-31 00:00" in inferd("models", command, "--config", str(config)).out


def test_list_and_check_show_aliases(inferd, config):
    config.write_text(MODELS_TOML + '[aliases]\n"gpt-4o-mini" = "local/free"\n"claude-*" = "local/free"\n')
    assert "gpt-4o-mini, claude-*" in inferd("models", "list", "--config", str(config)).out
    assert "  claude-*     is local/free\n" in inferd("models", "check", "--config", str(config)).out
    shown = inferd("models", "list", "--config", str(config), "--json").json["deployments"]
    assert [deployment["aliases"] for deployment in shown] == [[], [], ["gpt-4o-mini", "claude-*"]]


def test_list_names_the_unit_of_prices(inferd, config):
    header = inferd("models", "list", "--config", str(config)).out.splitlines()[0]
    for column in ("Input", "Cached input", "Output", "Per second"):
        assert column in header


@pytest.mark.parametrize(
    ("replaced", "by", "said"),
    [
        ("max_context = 2048", "max_context = 8192", "max_context = 8192 is more than the 4096 tokens"),
        ('"tiny.gguf"', '"cut.gguf"', "is shorter than its header says"),
        ('"tiny.gguf"', '"empty.gguf"', "is empty (0 bytes): was the download cut off?"),
        ('"tiny.gguf"', '"mmproj.gguf"', "an encoder of images or audio (mmproj), not a language model"),
        ('"tiny.gguf"', '"imatrix.gguf"', "no model but data about one"),
        ('"tiny.gguf"', '"s-00002-of-00004.gguf"', "is shard 2 of 4 of a split model: write the first shard"),
        ('"tiny.gguf"', '"s-00001-of-00004.gguf"', "missing beside it: s-00004-of-00004.gguf"),
        ('chat_template = "chat.jinja"', "", "the model has no chat template"),
    ],
)
def test_check_of_a_model_that_serve_cannot_load_says_why(inferd, config, model_bytes, replaced, by, said):
    folder = config.parent
    (folder / "cut.gguf").write_bytes(model_bytes[: len(model_bytes) // 2])
    (folder / "empty.gguf").touch()
    write_other(folder / "mmproj.gguf", "clip", "mmproj")
    write_other(folder / "imatrix.gguf", "imatrix", "imatrix")
    write_shards(folder / "s.gguf")[3].unlink()
    config.write_text(MODELS_TOML.replace(replaced, by))
    checked = inferd("models", "check", "--config", str(config))
    assert (checked.status, checked.out) == (2, "")
    assert checked.err.startswith(f"inferd: {config}: [models.tiny] ")
    assert said in checked.err
    assert len(checked.err.splitlines()) == 1


def test_check_of_more_memory_than_is_free_says_how_much_would_fit(inferd, config, monkeypatch):
    monkeypatch.setattr(loading, "available_bytes", lambda: 10 * 2048 * 128)
    config.write_text(MODELS_TOML.replace("max_context", "n_parallel = 11\nmax_context"))
    checked = inferd("models", "check", "--config", str(config))
    assert checked.status == 2
    assert (
        "lower n_parallel or max_context: n_parallel x max_context = 20480 would fit, so n_parallel = 10" in checked.err
    )


def test_check_of_two_bad_models_has_a_line_for_each(inferd, config):
    for name in ("one", "two"):
        write_other(config.parent / f"{name}.gguf", "clip", "mmproj")
    config.write_text('[models.one]\nsource = "one.gguf"\n[models.two]\nsource = "two.gguf"\n')
    lines = inferd("models", "check", "--config", str(config)).err.splitlines()
    assert [line.partition("] ")[0] for line in lines] == [f"inferd: {config}: [models.{n}" for n in ("one", "two")]


def test_check_of_an_expired_certificate_says_so(inferd, config, tmp_path):
    for name in ("certificate.pem", "key.pem"):
        shutil.copy(TLS / name, tmp_path / name)
    server = '\n[server]\ntls_certificate = "certificate.pem"\ntls_key = "key.pem"\n'
    config.write_text(MODELS_TOML + server)
    assert inferd("models", "check", "--config", str(config)).status == 0
    shutil.copy(TLS / "expired.pem", tmp_path / "certificate.pem")
    checked = inferd("models", "check", "--config", str(config))
    assert (checked.status, checked.out) == (2, "")
    assert "certificate has expired; renew it" in checked.err


def test_check_in_a_folder_whose_name_is_not_utf_8_writes_no_traceback(config, tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    for name in ("tiny.gguf", "chat.jinja", "models.toml"):
        shutil.copy(config.parent / name, folder / name)
    command = [Path(sys.executable).with_name("inferd"), "models", "check", "--config", folder / "models.toml"]
    checked = subprocess.run(command, capture_output=True, cwd=folder, check=False)
    assert checked.returncode == 0
    # llama.cpp writes a line where the CPU has AMX and the kernel does not permit it.
    assert [line for line in checked.stderr.splitlines() if not line.startswith(b"AMX is not ready")] == []
    assert b"models.toml is right" in checked.stdout
