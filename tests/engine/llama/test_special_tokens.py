"""Files whose header names BOS, EOS, tokens or a chat template wrongly."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from inferd.engine.llama.loading import load_model
from inferd.errors import ConfigError
from inferd.tokenizer import Segment
from tests.engine.llama.tiny_models import N_VOCAB, write_with_vocabulary

COMMA = 11
START, END, TEXT_END = range(256, 259)


def byte_texts() -> list[str]:
    """GPT-2's texts of the 256 bytes, those that need none of its own first: number 11 is the comma."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return [*map(chr, plain), *(chr(256 + number) for number in range(len(others)))]


Extra = Callable[[gguf.GGUFWriter], None]
CONTROLS = ("<|im_start|>", "<|im_end|>", "<|x|>")


@pytest.fixture
def write(tmp_path: Path):
    def write(extra: Extra, controls: tuple[str | bytes, ...] = CONTROLS, comma: str | None = None) -> Path:
        """A model with GPT-2's bytes and three control tokens; `extra` writes more of the header, and `comma` is a
        control token in the comma's place."""

        def add_vocabulary(writer: gguf.GGUFWriter) -> None:
            texts: list[str | bytes] = [*byte_texts(), *controls]
            kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 3
            if comma is not None:
                texts[COMMA], kinds[COMMA] = comma, gguf.TokenType.CONTROL
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre("gpt-2")
            writer.add_token_list(texts)  # type: ignore[arg-type]
            writer.add_token_types(kinds)
            writer.add_token_merges(["a b"])
            extra(writer)

        path = tmp_path / "m.gguf"
        write_with_vocabulary(path, add_vocabulary)
        return path

    return write


def test_ids_that_the_file_names_are_taken_even_if_they_are_llama_cpps_default(write):
    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_bos_token_id(COMMA)
        writer.add_eos_token_id(COMMA)
        writer.add_add_bos_token(True)

    model = load_model(write(extra))
    vocabulary = model.vocabulary
    assert (vocabulary.bos_text, vocabulary.eos_text, vocabulary.repairs) == (",", ",", [])
    assert vocabulary.end_of_generation == {COMMA, END}
    assert vocabulary.encode([Segment("a", special=True)])[0] == COMMA
    model.close()


@pytest.mark.parametrize("token_id", [None, N_VOCAB, 2**32 - 1])
def test_an_id_that_is_missing_or_out_of_range_is_no_token(write, caplog, token_id):
    def extra(writer: gguf.GGUFWriter) -> None:
        if token_id is not None:
            writer.add_bos_token_id(token_id)
            writer.add_eos_token_id(token_id)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)

    path = write(extra)
    with caplog.at_level(logging.WARNING, "inferd.engine.llama.model"):
        load_model(path, header_only=True).close()
    warnings = [record.getMessage() for record in caplog.records if record.name == "inferd.engine.llama.model"]
    wrong = "is missing" if token_id is None else f"is {token_id}, and the vocabulary has {N_VOCAB} tokens"
    assert warnings == [
        f"{path}: tokenizer.ggml.{kind}_token_id {wrong}: the model is served without {kind.upper()}"
        for kind in ("bos", "eos")
    ]
    model = load_model(path)
    vocabulary = model.vocabulary
    assert (vocabulary.bos_text, vocabulary.eos_text) == ("", "")
    assert vocabulary.end_of_generation == {END}
    letter = vocabulary.encode([Segment("a", special=True)])
    assert len(letter) == 1, "no BOS before completions"
    assert vocabulary.encode_document("a") == letter, "nor around embeddings"
    model.close()


def test_a_frame_has_what_the_file_names(write):
    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_eos_token_id(TEXT_END)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)

    model = load_model(write(extra))
    (letter,) = model.vocabulary.encode([Segment("a", special=True)])
    assert model.vocabulary.encode_document("a") == [letter, TEXT_END]
    model.close()


def test_a_default_that_ends_a_turn_by_its_text_stays_an_end(write):
    """llama.cpp knows some end tokens by their texts, whatever the header says."""
    model = load_model(write(lambda writer: None, comma="<|im_end|>", controls=("<a>", "<b>", "<c>")))
    assert (model.vocabulary.end_of_generation, model.vocabulary.eos_text) == ({COMMA}, "")
    model.close()


def test_a_file_without_any_end_token_is_refused(write):
    path = write(lambda writer: None, ("<a>", "<b>", "<c>"))
    with pytest.raises(ConfigError, match=r"m\.gguf: the file names no token that ends an answer"):
        load_model(path)


def test_a_chat_template_that_is_not_utf8_is_a_config_error(write):
    model = load_model(write(lambda writer: writer.add_string("tokenizer.chat_template", b"abc\xff\xfe")))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"m\.gguf: tokenizer\.chat_template is not UTF-8 \(byte 3\); name a Jinja"):
        _ = model.chat_template
    model.close()


def test_a_control_token_that_is_not_utf8_is_never_in_a_text(write):
    model = load_model(write(lambda writer: writer.add_bos_token_id(START), (b"\xff\xfe", "<|im_end|>", b"<\xc3>")))
    assert model.vocabulary.bos_text == "\ufffd\ufffd"
    assert model.vocabulary.decode([START, TEXT_END]) == "\ufffd\ufffd<\ufffd>"
    model.constraint_compiler().close()
    model.close()
