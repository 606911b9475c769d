"""No text ends the process or takes more than its size in time, whatever the vocabulary; cutting changes no token."""

from __future__ import annotations

import base64
import random
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from inferd.engine.llama import text_pieces
from inferd.engine.llama.vocabulary import MAX_CPU_S, Vocabulary
from inferd.errors import InvalidRequestError, OverloadedError
from inferd.tokenizer import EncodeLimits, Segment
from tests.engine.llama.tiny_vocabularies import (
    ALL_BYTES,
    PRE_TOKENIZERS,
    load_vocabulary,
    write_pre_tokenizer,
    write_sentencepiece,
)

MIB = 2**20
FAST = ("gpt-4o", "deepseek-llm", "superbpe", "whitespace")
"""One of each way in which a text ended the process, or took the square of its length."""
SDIST = "llama-cpp-python==0.3.36"
UNITS = {
    "letters": "Z",
    "mixed letters": "aBcD",
    "digits": "9",
    "blanks": " ",
    "line breaks": "\n",
    "lines": "a\n",
    "accents": "é",
    "combining marks": "e\u0301",
    "ideographs": "漢",
    "emoji": "😀",
    "signs": "=",
    "blanks before ideographs": " " * 5000 + "漢",
    "mixed": "Ab1 é漢\n😀==",
}
CONTROL = "control texts"
NOISE_S = 0.1
"""Below it, a time says little of a text's length."""
# fmt: off
_WORDS = (
    "the", "a", "of", "Hello", "WORLD", "don't", "I'LL", "it's", "x1", "123", "4567890", "foo_bar",
    "(paren)", "[br]", "{}", "e.g.", "3.14", "été", "naïve", "привет", "你好", "世界", "漢字かな", "東京",
    "안녕", "😀", "👍🏽", "==", "->", "<b>", "http://a.b/c?d=e", ",", ".", "!", "?", ";", ":", "\"",
    "'", "…", "“q”", "。", "，", "café", "ABCdef", "abCDEf", "\u200b", "cafe\u0301",
    "\u00a0", "\u3000",
)
# fmt: on
_GAPS = (*[" "] * 12, "  ", "   ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "", "", "。", "，", "\n    ", "!", "'")


def hostile_texts(vocabulary: Vocabulary, num_bytes: int) -> dict[str, str]:
    control = next(iter(vocabulary.control_texts), "<|im_start|>") + " ab "
    units = {**UNITS, CONTROL: control}
    return {name: unit * (num_bytes // len(unit.encode())) for name, unit in units.items()}


def cpu_s(vocabulary: Vocabulary, text: str, *, special: bool = True) -> float:
    """Processor time of this thread, for tokens or for a refusal."""
    began_s = time.thread_time()
    with suppress(InvalidRequestError):
        vocabulary.encode([Segment(text, special=special)])
    return time.thread_time() - began_s


def assert_twice_takes_twice(vocabulary: Vocabulary, half: str, whole: str) -> None:
    """By the least of several times: others that compute beside make each of them longer."""
    times = [(cpu_s(vocabulary, half), cpu_s(vocabulary, whole)) for _ in range(5)]
    half_s, whole_s = (min(column) for column in zip(*times, strict=True))
    assert whole_s <= 2.5 * half_s


def ordinary_text(rng: random.Random, num_words: int) -> str:
    return "".join(rng.choice(_WORDS) + rng.choice(_GAPS) for _ in range(num_words))


def assert_same_in_pieces(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, num_texts: int) -> None:
    """Of texts with a possible cut in each piece."""
    rng = random.Random(5)
    controls = list(vocabulary.control_texts)[:6]
    monkeypatch.setattr(vocabulary._cutter, "_cuts_runs", False)
    num_cuts = 0
    for number in range(num_texts):
        text, special = ordinary_text(rng, 100), number % 2 == 0
        if special and controls:
            text = "".join(
                rng.choice(controls) + word if rng.random() < 0.2 else word for word in re.split("( )", text)
            )
        monkeypatch.setattr(text_pieces, "PIECE_CHARS", 10**9)
        monkeypatch.setattr(text_pieces, "PIECE_SPECIALS", 10**9)
        whole = vocabulary.encode([Segment(text, special=special)])
        monkeypatch.setattr(text_pieces, "PIECE_CHARS", rng.choice([60, 100, 200]))
        monkeypatch.setattr(text_pieces, "PIECE_SPECIALS", rng.choice([3, 10, 1000]))
        assert vocabulary.encode([Segment(text, special=special)]) == whole
        num_cuts += len(list(vocabulary._cutter.pieces(text, special=special))) - 1
    assert num_cuts > num_texts, "nothing was cut"


@pytest.mark.parametrize("pre_tokenizer", FAST)
def test_hostile_text_of_any_pre_tokenizer_ends_in_tokens_or_a_refusal(tmp_path, pre_tokenizer, monkeypatch):
    write_pre_tokenizer(tmp_path / "v.gguf", pre_tokenizer)
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    for text in hostile_texts(vocabulary, MIB // 32).values():
        cpu_s(vocabulary, text)
    assert_same_in_pieces(vocabulary, monkeypatch, 6)


def test_control_texts_take_time_by_their_number(tmp_path):
    write_pre_tokenizer(tmp_path / "v.gguf", "qwen2")
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    half, whole = (hostile_texts(vocabulary, size)[CONTROL] for size in (MIB // 2, MIB))
    assert_twice_takes_twice(vocabulary, half, whole)


def test_characters_without_a_sentencepiece_token_take_time_by_their_number(tmp_path):
    write_sentencepiece(tmp_path / "v.gguf", ["▁", "a", "▁a", "aa"])
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    half, whole = ("\n" * size for size in (MIB // 2, MIB))
    assert_twice_takes_twice(vocabulary, half, whole)


def test_sentencepiece_pieces_begin_without_the_blank_of_a_text(tmp_path, monkeypatch):
    words = ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁the", "th", "he", "▁t", "▁th", "en", "the"]
    write_sentencepiece(tmp_path / "v.gguf", words)
    assert_same_in_pieces(load_vocabulary(tmp_path / "v.gguf"), monkeypatch, 40)


def test_character_that_a_vocabulary_without_bytes_lacks_is_refused(tmp_path):
    write_sentencepiece(tmp_path / "v.gguf", ["▁", "a", "▁a"], lacks=ALL_BYTES)
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    assert vocabulary.encode([Segment("a aa", special=False)], add_bos=False) == [5, 5, 4]
    with pytest.raises(InvalidRequestError) as refusal:
        vocabulary.encode([Segment("aé", special=False)])
    assert refusal.value.code == "unknown_character"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("smollm2") / "v.gguf"
    write_pre_tokenizer(path, "smollm")
    return path


def test_text_ends_soon_after_the_most_tokens_that_are_wanted(smollm2):
    vocabulary = load_vocabulary(smollm2)
    text = "word " * MIB
    assert 100 < len(vocabulary.encode([Segment(text, special=False)], EncodeLimits(100))) < 2000
    assert 100 < len(vocabulary.encode_document(text, EncodeLimits(100))) < 2000


@pytest.mark.parametrize("encode", [base64.b64encode, base64.b16encode], ids=["base64", "hexadecimal"])
def test_run_of_base64_or_hexadecimal_is_cut_where_no_token_changes(smollm2, encode):
    vocabulary = load_vocabulary(smollm2)
    text = encode(random.Random(3).randbytes(20_000)).decode()
    assert vocabulary.encode([Segment(text, special=False)]) == vocabulary._call(text.encode(), special=False)


def test_text_is_cut_at_its_last_special_token_rather_than_within_a_word():
    cutter = text_pieces.TextCutter(["a"], [], ["  "], cuts_words=True, cuts_runs=True)
    pieces = [piece for piece, _ in cutter.pieces("word/word=  " * 1000, special=False)]
    assert len(pieces) > 1
    assert all(piece.endswith("=") for piece in pieces[:-1])


def test_text_ends_when_its_check_raises(smollm2):
    num_checks = 0

    def check() -> None:
        nonlocal num_checks
        num_checks += 1
        if num_checks == 3:
            raise OverloadedError("stopped")

    with pytest.raises(OverloadedError):
        load_vocabulary(smollm2).encode([Segment("word " * MIB, special=False)], EncodeLimits(check=check))
    assert num_checks == 3


def test_closed_vocabulary_refuses_native_calls(smollm2):
    vocabulary = load_vocabulary(smollm2)
    vocabulary.close()
    with pytest.raises(OverloadedError):
        vocabulary.encode([Segment("a", special=False)])
    with pytest.raises(OverloadedError):
        vocabulary.decode([1])


SMALL_STACK = """
import sys, threading
from pathlib import Path
from inferd.cli.composition import STACK_BYTES
from inferd.tokenizer import EncodeLimits, Segment
from tests.engine.llama.tiny_vocabularies import load_vocabulary
threading.stack_size(STACK_BYTES)
vocabulary = load_vocabulary(Path(sys.argv[1]))
def work():
    for unit in ("Z", " ", "漢"):
        vocabulary.encode([Segment(unit * 40_000, special=True)])
    print("done")
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_server_threads_tokenise_long_runs_whatever_the_limit_of_the_stack(tmp_path):
    write_pre_tokenizer(tmp_path / "v.gguf", "gpt-4o")
    script = f"ulimit -s 1024; exec {sys.executable} -c '{SMALL_STACK}' {tmp_path / 'v.gguf'}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def assert_linear(vocabulary: Vocabulary) -> None:
    halves, wholes = hostile_texts(vocabulary, MIB // 2), hostile_texts(vocabulary, MIB)
    for name, text in wholes.items():
        half_s, whole_s = cpu_s(vocabulary, halves[name]), cpu_s(vocabulary, text)
        assert whole_s <= max(2.5 * half_s, NOISE_S), f"{name}: {half_s:.2f} s, twice as much: {whole_s:.2f} s"
        assert whole_s <= 2 * MAX_CPU_S, f"{name}: {whole_s:.2f} s"


@pytest.mark.slow
@pytest.mark.parametrize("pre_tokenizer", PRE_TOKENIZERS)
def test_hostile_megabyte_of_each_pre_tokenizer_takes_time_by_its_length(tmp_path, pre_tokenizer, monkeypatch):
    write_pre_tokenizer(tmp_path / "v.gguf", pre_tokenizer)
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    assert_linear(vocabulary)
    assert_same_in_pieces(vocabulary, monkeypatch, 60)


@pytest.fixture(scope="session")
def llama_cpp_source(request: pytest.FixtureRequest) -> Path:
    """The source distribution of llama-cpp-python, unpacked and kept in pytest's cache."""
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("llama-cpp-python-0.3.36")
    found = list(folder.glob("*/vendor/llama.cpp"))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", SDIST, "-d", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"pip cannot download {SDIST}")
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        found = list(folder.glob("*/vendor/llama.cpp"))
    return found[0]


def vocabularies_of(source: Path) -> Sequence[Path]:
    return sorted((source / "models").glob("ggml-vocab-*.gguf"))


@pytest.mark.slow
def test_pre_tokenizers_are_those_of_llama_cpp(llama_cpp_source):
    source = (llama_cpp_source / "src" / "llama-vocab.cpp").read_text()
    assert sorted(set(re.findall(r'tokenizer_pre == "([^"]+)"', source))) == sorted(PRE_TOKENIZERS)


@pytest.mark.slow
def test_hostile_megabyte_of_each_vocabulary_of_llama_cpp_takes_time_by_its_length(llama_cpp_source, monkeypatch):
    paths = vocabularies_of(llama_cpp_source)
    assert paths
    for path in paths:
        vocabulary = load_vocabulary(path)
        assert_linear(vocabulary)
        if "nomic-bert-moe" not in path.name and "bert" not in path.name:  # Unigram and WordPiece are not cut
            with monkeypatch.context() as patch:
                assert_same_in_pieces(vocabulary, patch, 40)
