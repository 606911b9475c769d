"""The engine core on the real model."""

from __future__ import annotations

import ctypes
from collections import Counter

import numpy as np
import pytest

from inferd.engine.batch import TILE_ROWS
from inferd.engine.messages import FinishReason
from tests.engine.llama.conftest import N_PARALLEL, Loaded, run

PROMPT = "Once upon a time there was a small robot who"
PROMPTS = ("The capital of France is", "1, 2, 3, 4,", "def add(a, b):\n    return", "Water boils at")
LONG_PROMPT = "The sun rose over the hills and the river. " * 8


def decode_greedily(loaded: Loaded, prompt: tuple[int, ...], num_tokens: int) -> list[int]:
    """llama.cpp without any of our code above the binding: whole prompt, then one token a call, argmax."""
    api, context = loaded.model.library.api, loaded.runner.handle
    end = loaded.model.vocabulary.end_of_generation
    token_ids, pending = [], list(prompt)
    while True:
        tokens = (ctypes.c_int32 * len(pending))(*pending)
        assert api.llama_decode(context, api.llama_batch_get_one(tokens, len(pending))) == 0
        logits = np.ctypeslib.as_array(api.llama_get_logits_ith(context, -1), shape=(loaded.runner.vocab_size,))
        token_ids.append(int(logits.argmax()))
        if len(token_ids) == num_tokens or token_ids[-1] in end:
            break
        pending = token_ids[-1:]
    loaded.runner.clear()
    return token_ids


def test_one_greedy_sequence_is_what_llama_cpp_alone_says(loaded) -> None:
    expected = decode_greedily(loaded, loaded.encode(PROMPT), 16)
    core = loaded.core()
    core.add_request(loaded.request(PROMPT, 16))
    outputs = run(core)
    assert [token_id for output in outputs for token_id in output.token_ids] == expected
    text = "".join(output.text for output in outputs)
    end = loaded.model.vocabulary.end_of_generation
    assert text == b"".join(map(loaded.model.vocabulary.piece, [t for t in expected if t not in end])).decode()


def test_more_requests_than_sequences_all_finish_with_exact_usage(loaded) -> None:
    core = loaded.core()
    requests = [loaded.request(prompt, 6, f"{prompt}{turn}") for turn in range(2) for prompt in PROMPTS]
    assert len(requests) > N_PARALLEL
    for request in requests:
        core.add_request(request)
    outputs = run(core)
    for request in requests:
        own = [output for output in outputs if output.request_id == request.request_id]
        num_tokens = sum(len(output.token_ids) for output in own)
        assert [output.finish_reason is not None for output in own] == [False] * (len(own) - 1) + [True]
        usage = own[-1].usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (len(request.prompt), num_tokens)
        assert num_tokens == 6 or own[-1].finish_reason is FinishReason.STOP
        assert usage.compute_ms > 0


def test_no_control_text_reaches_an_answer(loaded) -> None:
    core = loaded.core()
    core.add_request(loaded.request("<|im_start|>user\nSay OK.<|im_end|>\n<|im_start|>assistant\n", 200))
    outputs = run(core)
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert "<|" not in "".join(output.text for output in outputs)
    assert outputs[-1].token_ids[-1] in loaded.model.vocabulary.end_of_generation


def test_after_an_abort_the_memory_is_parked_or_empty(loaded) -> None:
    core = loaded.core()
    core.add_request(loaded.request(PROMPT, 100, "a"))
    core.add_request(loaded.request(LONG_PROMPT, 100, "b"))
    for _ in range(3):
        core.step()
    assert [loaded.runner.seq_pos_max(seq_id) > 0 for seq_id in range(3)] == [True, True, False]
    core.abort("a")
    assert loaded.runner.seq_pos_max(0) == -1, "too short to be worth keeping"
    core.check_integrity()
    parked = loaded.runner.seq_pos_max(1) + 1
    core.abort("b")
    assert positions(loaded) == [-1, parked - 1, -1, -1]
    assert len(core._scheduler.running) == 0
    assert [output.finish_reason for output in core.take_outputs()[-2:]] == [FinishReason.CANCELLED] * 2
    core.add_request(loaded.request(LONG_PROMPT + "The end.", 2, "next"))
    usage = run(core)[-1].usage
    n_shared = len(loaded.encode(LONG_PROMPT))
    assert n_shared - 2 <= usage.cached_tokens <= n_shared, "up to where the two texts are the same tokens"


class Interruption:
    """Aborts llama.cpp's computation at its n-th look (it looks once a graph node, on the CPU only)."""

    def __init__(self, loaded: Loaded) -> None:
        self._api, self._context = loaded.model.library.api, loaded.runner.handle
        self.looks = 0
        self.at: int | None = None
        self._callback = self._api.ggml_abort_callback(self._look)

    def _look(self, _data) -> bool:
        self.looks += 1
        return self.looks == self.at

    def __enter__(self) -> Interruption:
        self._api.llama_set_abort_callback(self._context, self._callback, None)
        return self

    def __exit__(self, *_: object) -> None:
        self._api.llama_set_abort_callback(self._context, type(self._callback)(), None)


def mixed_step(loaded: Loaded):
    """A core of which two sequences decode and a third is about to be prefilled; and the books before that step."""
    core = loaded.core()
    core.add_request(loaded.request(PROMPTS[0], 6, "a"))
    core.add_request(loaded.request(PROMPTS[1], 6, "b"))
    for _ in range(3):
        core.step()
    core.add_request(loaded.request(LONG_PROMPT, 6, "late"))
    return core, positions(loaded)


def positions(loaded: Loaded) -> list[int]:
    return [loaded.runner.seq_pos_max(seq_id) for seq_id in range(N_PARALLEL)]


def by_request(outputs) -> dict[str, list[int]]:
    return {
        name: [token_id for output in outputs if output.request_id == name for token_id in output.token_ids]
        for name in ("a", "b", "late")
    }


@pytest.fixture(scope="module")
def undisturbed(loaded) -> tuple[dict[str, list[int]], int]:
    """What the three requests say if nothing fails, and how often llama.cpp looks during the mixed step."""
    core, _ = mixed_step(loaded)
    with Interruption(loaded) as interruption:
        core.step()
    return by_request(run(core)), interruption.looks


def test_after_a_mixed_step_that_failed_half_way_books_and_memory_agree(loaded, undisturbed, monkeypatch) -> None:
    token_ids, num_looks = undisturbed
    core, before = mixed_step(loaded)
    seen: list[tuple[int, int, list[int]]] = []
    decode = loaded.runner.execute

    def decode_and_look(batch) -> int:
        code = decode(batch)
        seen.append((code, max(Counter(batch.seq_ids).values()), positions(loaded)))
        return code

    monkeypatch.setattr(loaded.runner, "execute", decode_and_look)
    interruption = Interruption(loaded)
    interruption.at = num_looks * 3 // 4  # two ubatches: the long chunk by itself, then those who decode
    with interruption:
        core.step()
    ((code, n_long, left),) = seen
    assert code == 2
    assert n_long >= TILE_ROWS, "how many fit into the step's time is the machine's business"
    assert left == [*before[:2], n_long - 1, -1], "the first ubatch is in memory, the second is not"
    core.check_integrity()
    assert positions(loaded) == before, "everyone is back at the last good step"

    outputs = run(core)
    assert by_request(outputs) == token_ids
    usage = {output.request_id: output.usage for output in outputs if output.usage}
    assert usage["late"].prompt_tokens == len(loaded.encode(LONG_PROMPT))
    core.abort_all("the end")
    core.check_integrity()


@pytest.mark.parametrize("share", [0.1, 0.95])
def test_wherever_a_mixed_step_is_cut_off_generation_goes_on(loaded, undisturbed, share) -> None:
    token_ids, num_looks = undisturbed
    core, before = mixed_step(loaded)
    interruption = Interruption(loaded)
    interruption.at = int(num_looks * share)
    with interruption:
        core.step()
    core.check_integrity()
    assert positions(loaded) == before
    assert by_request(run(core)) == token_ids


def test_steps_that_fail_every_time_end_in_an_error_and_free_everything(loaded) -> None:
    core, _ = mixed_step(loaded)
    core.take_outputs()
    for _ in range(3):
        with Interruption(loaded) as interruption:
            interruption.at = 5
            core.step()
    assert [output.finish_reason for output in core.take_outputs()] == [FinishReason.ERROR] * 3
    assert not core.has_work
    core.check_integrity()
    assert len(loaded.generate(PROMPT, 4)) == 4
