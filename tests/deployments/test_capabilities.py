"""Facts of model files, and the capabilities of their deployments."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inferd.chat.reasoning_mode import ReasoningMode
from inferd.config import ModelConfig
from inferd.deployments.capabilities import ModelFacts, short_number
from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import check_model
from tests.engine.llama.tiny_bert import N_CTX as BERT_CTX
from tests.engine.llama.tiny_bert import write_bert
from tests.engine.llama.tiny_models import N_CTX, N_VOCAB, write_plain, write_shards

QWEN = (Path(__file__).parents[1] / "chat/dialects/templates/Qwen-Qwen3-0.6B.jinja").read_text()


def facts_of(source: Path, template: str | None = QWEN) -> ModelFacts:
    return check_model(ModelConfig("m", source, str(source), max_context=64, n_parallel=1, chat_template=template))


def deployment(facts: ModelFacts | None) -> Deployment:
    replica = SimpleNamespace(facts=facts, max_context=64)
    return Deployment("o/m", cast(Any, replica), None, 100, 0, {}, aliases=("gpt-4o",))


def test_facts_of_a_chat_model_are_those_of_its_header_and_template(tmp_path):
    write_plain(path := tmp_path / "tiny.gguf")
    facts = facts_of(path)
    assert (facts.architecture, facts.title, facts.trained_context, facts.num_vocabulary) == (
        "llama",
        None,
        N_CTX,
        N_VOCAB,
    )
    assert (facts.file_bytes, facts.modified_ms) == (path.stat().st_size, path.stat().st_mtime_ns // 1_000_000)
    assert (facts.makes_text, facts.native_tools, facts.chat_template) == (True, True, QWEN)
    assert (facts.reasoning, facts.efforts) == (ReasoningMode.ON, ("medium", "none"))
    assert 100_000 < facts.num_parameters < path.stat().st_size / 4
    capabilities = deployment(facts).capabilities()
    assert (capabilities.name, capabilities.aliases) == ("o/m", ("gpt-4o",))
    assert (capabilities.context_length, capabilities.max_output) == (64, 63)
    assert capabilities.is_chat
    assert capabilities.tools
    assert capabilities.structured_output


def test_facts_of_an_embedding_model_name_its_longest_input(tmp_path):
    write_bert(path := tmp_path / "bert.gguf")
    facts = facts_of(path, None)
    assert (facts.architecture, facts.trained_context, facts.makes_text) == ("bert", BERT_CTX, False)
    capabilities = deployment(facts).capabilities(1000)
    assert (capabilities.context_length, capabilities.max_output) == (64, None)
    assert not (capabilities.is_chat)
    assert not (capabilities.tools)
    assert not (capabilities.structured_output)
    assert capabilities.reasoning is ReasoningMode.NONE


def test_facts_of_a_split_model_count_all_its_files(tmp_path):
    shards = write_shards(tmp_path / "s.gguf")
    facts = facts_of(shards[0])
    assert facts.file_bytes == sum(shard.stat().st_size for shard in shards)
    write_plain(tmp_path / "tiny.gguf")
    assert facts.num_parameters == facts_of(tmp_path / "tiny.gguf").num_parameters


def test_digest_changes_with_the_bytes_of_a_file_and_not_with_its_name_or_date(tmp_path):
    write_plain(path := tmp_path / "a.gguf")
    digest = facts_of(path).digest
    path = path.rename(tmp_path / "b.gguf")
    path.touch()
    assert facts_of(path).digest == digest
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert facts_of(path).digest != digest


def test_max_output_is_at_most_what_the_tier_allows(tmp_path):
    assert [deployment(None).capabilities(most).max_output for most in (None, 10, 1000)] == [63, 10, 63]


def test_capabilities_before_the_file_was_read_say_what_models_toml_says():
    capabilities = deployment(None).capabilities()
    assert (capabilities.context_length, capabilities.facts, capabilities.is_chat) == (64, None, True)


@pytest.mark.parametrize(
    ("kind", "name"), [("0", "F32"), ("7", "Q8_0"), ("15", "Q4_K_M"), ("32", "BF16"), ("9999", None), (None, None)]
)
def test_quantization_is_llama_cpps_name_of_the_file_type(kind, name):
    from inferd.engine.llama.library import load_library
    from inferd.engine.llama.model import Model

    model = Model.__new__(Model)
    model.library = load_library()
    model._metadata = lambda key: kind if key == "general.file_type" else None  # type: ignore[method-assign]
    assert model.quantization == name


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (999, "999"),
        (1_000, "1K"),
        (134_515_008, "134.52M"),
        (7_000_000, "7M"),
        (1_540_000_000, "1.5B"),
        (7 * 10**9, "7B"),
    ],
)
def test_short_number_is_written_as_ollama_does(number, text):
    assert short_number(number) == text
