"""`n` choices of one prompt on the real model."""

from __future__ import annotations

from inferd.sampling_params import SamplingParams
from inferd.serving.endpoints.prompt import copies
from tests.engine.llama.conftest import Loaded, run

TEXT = "<|im_start|>user\nTell me of a town by the sea, its lighthouse and a cat.<|im_end|>\n<|im_start|>assistant\n"


def test_four_choices_compute_their_prompt_once_and_differ_by_their_seeds(loaded: Loaded) -> None:
    core = loaded.core()
    request = loaded.request(TEXT, 12, params=SamplingParams(temperature=1.0, seed=7))
    for each in copies(request, 4):
        core.add_request(each)
    outputs = run(core)
    ends = {output.request_id: output.usage for output in outputs if output.usage is not None}
    n_prompt = len(request.prompt)
    assert [ends[f"r.{index}"].prompt_tokens for index in range(4)] == [n_prompt] * 4
    assert ends["r.0"].cached_tokens == 0
    assert [ends[f"r.{index}"].cached_tokens for index in (1, 2, 3)] == [n_prompt - 1] * 3
    texts = {
        index: "".join(output.text for output in outputs if output.request_id == f"r.{index}") for index in range(4)
    }
    assert len(set(texts.values())) == 4
