"""models.toml as a whole: defaults, faults, and the places of files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inferd.config import (
    SETTINGS,
    TABLES,
    data_dir,
    default_config_path,
    deployments,
    load_config,
    models,
)
from inferd.errors import ConfigError
from inferd.price import Price
from tests.config.toml_files import DEPLOYMENT, MODEL, complaint, load

REPOSITORY = Path(__file__).parents[2]


def test_minimal_file_has_the_documented_defaults(tmp_path):
    config = load(tmp_path, MODEL + DEPLOYMENT)
    model = config.models["m"]
    assert model.source == (tmp_path / "m.gguf").resolve()
    assert (model.max_context, model.n_parallel, model.n_ubatch) == (4096, 8, 512)
    assert str(model.kv_memory) == "partitioned, 32768 cells, 8 sequences at a time, up to 4096 tokens each"
    assert (model.n_threads, model.n_gpu_layers, model.chat_template) == (None, -1, None)
    deployment = config.deployments["o/d"]
    assert (deployment.model, deployment.price, deployment.default_max_tokens) == ("m", None, 4096)


def test_load_reads_every_key(tmp_path):
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    config = load(
        tmp_path,
        '[models.m]\nsource = "m.gguf"\nmax_context = 8192\nn_parallel = 2\nn_ubatch = 256\nn_threads = 3\n'
        'kv_cells = 9000\nkv_layout = "unified"\nn_gpu_layers = 0\nchat_template = "t.jinja"\n'
        '[deployments."o/d"]\nmodel = "m"\nserverless = true\ninput_usd_per_1m_tokens = 0.1\n'
        "output_usd_per_1m_tokens = 0.4\ncached_input_usd_per_1m_tokens = 0.025\ndefault_max_tokens = 7\n",
    )
    model = config.models["m"]
    assert (model.max_context, model.n_parallel, model.n_ubatch) == (8192, 2, 256)
    assert (model.kv_cells, model.kv_layout, model.kv_memory.is_unified) == (9000, "unified", True)
    assert (model.n_threads, model.n_gpu_layers) == (3, 0)
    assert model.chat_template == "{{ messages }}"
    assert model.chat_template_path == (tmp_path / "t.jinja").resolve()
    deployment = config.deployments["o/d"]
    assert deployment.price == Price(input_picousd=100_000, output_picousd=400_000, cached_input_picousd=25_000)
    assert deployment.default_max_tokens == 7


def test_shipped_file_serves_one_engine_under_two_names():
    config = load_config(REPOSITORY / "models.toml")
    assert list(config.models) == ["smollm2-135m"]
    assert config.models["smollm2-135m"].source.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    priced, free = config.deployments["local/smollm2-135m"], config.deployments["local/smollm2-135m-free"]
    assert priced.model == free.model == "smollm2-135m"
    assert priced.price == Price(input_picousd=100_000, output_picousd=400_000)
    assert free.price is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MODEL + "max_contxt = 1\n", "[models.m] max_contxt: unknown key; did you mean max_context?"),
        (MODEL + "[modles.x]\n", "[modles]: unknown table; did you mean models?"),
        ("title = 1\n", "[title]: unknown table"),
        ("models = 3\n", "models: expected tables such as [models.NAME], got an integer"),
        ("[models]\nm = 3\n", "[models] m: expected a table, got an integer"),
        (MODEL + 'max_context = "4096"\n', "[models.m] max_context: expected an integer, got a string"),
        (MODEL + "n_parallel = true\n", "[models.m] n_parallel: expected an integer, got true or false"),
        (MODEL + "n_parallel = 2.0\n", "[models.m] n_parallel: expected an integer, got a number"),
        (MODEL + "n_parallel = 0\n", "[models.m] n_parallel: must lie between 1 and 256, got 0"),
        (MODEL + "n_gpu_layers = -2\n", "[models.m] n_gpu_layers: must lie between -1 and"),
        (MODEL + "n_parallel = 64\nn_ubatch = 32\n", "[models.m] n_ubatch: must be at least n_parallel (64), got 32"),
        (MODEL + 'kv_layout = "paged"\n', "[models.m] kv_layout: must be one of auto, partitioned, unified, got paged"),
        (
            MODEL + "kv_cells = 4095\n",
            "[models.m] kv_cells: must be at least max_context (4096), the longest request, got 4095",
        ),
        (
            MODEL + 'kv_cells = 5000\nkv_layout = "partitioned"\n',
            "[models.m] kv_cells: must be at least n_parallel x max",
        ),
        (MODEL + "max_context = 1048577\n", "[models.m] max_context: must lie between 16 and 1048576, got 1048577"),
        (MODEL + 'chat_template = "no.jinja"\n', "[models.m] chat_template: no such file: "),
        ("[models.m]\n", "[models.m] source: is missing"),
        ("[models.m]\nsource = 1979-05-27\n", "[models.m] source: expected a string, got a date or time"),
        ('[models.m]\nsource = "nowhere.gguf"\n', "[models.m] source: no such file: "),
        ('[models.m]\nsource = "a\\u0000b"\n', "[models.m] source: a path cannot contain a NUL"),
        ('[models.m]\nsource = "https://x.org/y.gguf"\n', "[models.m] source: https://x.org/y.gguf is a URL"),
        ('[models.m]\nsource = "two\\nlines"\n', "[models.m] source: no such file: "),
        ('[models."a b"]\nsource = "m.gguf"\n', '[models] "a b": a name has letters'),
        ('[deployments."o/d"]\nserverless = true\n', '[deployments."o/d"] model: is missing'),
        (MODEL + DEPLOYMENT.replace('"m"', '"n"'), '[deployments."o/d"] model: there is no [models.n]'),
        (MODEL + DEPLOYMENT.replace("o/d", "d"), "[deployments] d: the name must have the form owner/name"),
        (MODEL + DEPLOYMENT.replace("o/d", "a/b/c"), '[deployments] "a/b/c": the name must have the form owner/name'),
        (MODEL + DEPLOYMENT.replace("true", "false"), '[deployments."o/d"] serverless: must be true'),
        (MODEL + '[deployments."o/d"]\nmodel = "m"\n', '[deployments."o/d"] serverless: must be true'),
        (MODEL + DEPLOYMENT.replace("true", "1"), '[deployments."o/d"] serverless: expected true or false, got an int'),
        (MODEL + DEPLOYMENT + "default_max_tokens = 0\n", '[deployments."o/d"] default_max_tokens: must lie between 1'),
    ],
)
def test_fault_is_one_line_with_table_and_key(tmp_path, text, expected):
    assert complaint(tmp_path, text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MODEL + DEPLOYMENT + DEPLOYMENT, '[deployments."o/d"] line 6: defined twice: [deployments."o/d"]'),
        (MODEL + "n_parallel = 1\nn_parallel = 2\n", "[models.m] line 4: defined twice: n_parallel = 2"),
        (MODEL + "n_parallel =\n", "[models.m] line 3: Invalid value"),
        ("x = " + "[" * 10_000, "cannot be read as TOML: "),
        ("x = 1" + "0" * 5_000, "cannot be read as TOML: "),
        ("x = 1e999999999999999999999999", "cannot be read as TOML: "),
    ],
)
def test_broken_toml_names_table_and_line(tmp_path, text, expected):
    assert complaint(tmp_path, text).startswith(expected)


def test_file_that_is_missing_or_no_text_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_config(tmp_path / "none.toml", {})
    (tmp_path / "models.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"models\.toml: is not UTF-8 text"):
        load_config(tmp_path / "models.toml", {})


def test_default_config_path_is_option_then_folder_then_shipped_file(tmp_path):
    assert default_config_path(Path("x.toml"), tmp_path) == Path("x.toml")
    assert default_config_path(None, tmp_path) == REPOSITORY / "models.toml"
    (tmp_path / "models.toml").touch()
    assert default_config_path(None, tmp_path) == tmp_path / "models.toml"


def test_data_dir_is_option_then_variable_then_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    environ = {"INFERD_DATA_DIR": "/var/inferd", "XDG_DATA_HOME": "/xdg"}
    assert data_dir(Path("here"), environ) == tmp_path / "here"
    assert data_dir(Path("~/there"), environ) == tmp_path / "there"
    assert data_dir(None, environ) == Path("/var/inferd")
    assert data_dir(None, {"INFERD_DATA_DIR": "", "XDG_DATA_HOME": "/xdg"}) == Path("/xdg/inferd")
    assert data_dir(None, {"XDG_DATA_HOME": "relative"}) == tmp_path / ".local/share/inferd"
    assert data_dir(None, {}) == tmp_path / ".local/share/inferd"


def test_documentation_has_a_section_for_every_key():
    text = (REPOSITORY / "docs" / "models-toml.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^### `(\w+)`", text, flags=re.MULTILINE))
    assert documented == {key for keys in (*TABLES.values(), *SETTINGS.values()) for key in keys}


def test_reader_uses_every_listed_key():
    readers = {"models": (models, "def model_config("), "deployments": (deployments, "def deployment_config(")}
    for table, (module, start) in readers.items():
        text = Path(module.__file__).read_text(encoding="utf-8")
        reader = text.split(start)[1] + text.split("_BY_TOKEN = (")[-1].split(")")[0]
        assert [key for key in TABLES[table] if f'"{key}"' not in reader] == []
