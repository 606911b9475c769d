"""Real clients in environments of their own: chat, stream, a tool's round trip, structured output, embeddings, errors.

The ledger has the tokens that each answer told.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import openai
import pytest

from tests.clients.fixtures import Recorded
from tests.clients.installs import NotInstalledError
from tests.clients.programs.programs import MODELS, PROGRAMS, Keys, Program, run
from tests.clients.recorder import Recorder, recording
from tests.clients.redaction import Redaction
from tests.e2e.server_process import Team

pytestmark = [pytest.mark.slow, pytest.mark.clients]


@pytest.fixture
def recorder(team: Team, program: Program, traffic: dict[str, list[Recorded]], tmp_path: Path) -> Iterator[Recorder]:
    with recording(team.server.base_url.removesuffix("/v1")) as recorder:
        yield recorder
    redaction = Redaction({str(tmp_path): "/home/user"})
    traffic[program.name] += [Recorded.of(exchange, redaction) for exchange in recorder.exchanges]


@pytest.fixture(scope="module")
def limited(team: Team) -> Iterator[Team]:
    """A team of the tier with one request a minute, which a thread uses up again and again."""
    limited = team.server.team("limited", 10**12)
    done = team.server.command("teams", "set", limited.name, "--tier", "1")
    assert done.returncode == 0, done.stderr
    ended = threading.Event()

    def use_up() -> None:
        with limited.openai() as client:
            while True:
                with suppress(openai.RateLimitError):
                    client.embeddings.create(model=MODELS[0], input="a")
                    ready.set()
                if ended.wait(0.2):
                    return

    ready = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        used = pool.submit(use_up)
        while not ready.wait(0.1) and not used.done():
            pass
        yield limited
        ended.set()
        used.result()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_client_does_its_whole_program(program, model, team, broke, limited, recorder, tmp_path, pytestconfig):
    try:
        program.command()
    except NotInstalledError as error:
        if pytestconfig.getoption("--clients"):
            raise
        pytest.skip(str(error))
    varied = pytestconfig.getoption("--record")
    said = run(program, recorder.base_url, model, Keys(team, broke, limited), tmp_path, varied=varied)
    usage, errors = said.pop("usage"), said.pop("errors")
    assert said == program.says
    assert {status: program.errors[status] in names for status, names in errors.items()} == dict.fromkeys(errors, True)
    assert errors.keys() == program.errors.keys()
    if not varied:
        refused = [exchange.status for exchange in recorder.exchanges if exchange.status >= 400]
        assert sorted(refused) == sorted(map(int, errors))

    rows = {row["request"]: (row["prompt_tokens"], row["completion_tokens"]) for row in team.usage_rows()}
    told = {exchange.request_id: exchange.tokens for exchange in recorder.billed if exchange.status == 200}
    told = {request: tokens for request, tokens in told.items() if tokens is not None}
    assert told or not usage
    assert {name: rows[name] for name in told} == told, "the ledger has what the answers told"
    assert {tuple(each) for each in usage} <= set(told.values()), "the client has what the answers told"
