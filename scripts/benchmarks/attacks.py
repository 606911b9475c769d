"""`scripts/bench attacks`: how long another team's chat of 32 tokens takes beside each attack and without it, in turns.

An attack that holds no stream is compared with an idle server. One that decodes is compared with honest callers, each
of a team of its own, of equal answers in all streams but one. The engine computes on one thread. `tokenisers` needs no
server: it measures a megabyte of each hostile text in each pre-tokenizer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benchmarks import hostile
from scripts.benchmarks.client import Answer, stream_chat
from scripts.benchmarks.hostile import Attack, Target
from scripts.benchmarks.machine import Watch
from scripts.benchmarks.model_file import demo_model, end_tokens
from scripts.benchmarks.prompts import user, words
from scripts.benchmarks.servers import any_inferd, new_team
from scripts.benchmarks.tokenisers import measure_tokenisers

MODEL, FREE_MODEL = "bench/m", "bench/free"
N_PARALLEL = 8
VICTIM_TOKENS = 32
WARM_UP_S = 3.0
PAUSE_S = 0.05
"""Of an attacker between an answer and its next request, as over a network: the load generator shares the cores."""
CALM_TIMEOUT_S = 90.0
UNLIMITED_TIER = 5
IDLE_GOAL, HONEST_GOAL = 2.0, 1.2
TOKENISERS = "tokenisers"
_MODELS_TOML = f"""
[models.m]
source = "{{model}}"
max_context = 4096
n_parallel = {N_PARALLEL}
n_threads = 1

[deployments."{MODEL}"]
model = "m"
serverless = true
usd_per_1m_tokens = 0.1

[deployments."{FREE_MODEL}"]
model = "m"
serverless = true
"""


@dataclass(frozen=True, slots=True)
class Callers:
    """Callers that each send one request after the other.

    Attributes:
        num_teams: the callers are spread over so many teams.
    """

    attack: Attack
    num_callers: int
    num_teams: int = 1


@dataclass(frozen=True, slots=True)
class Case:
    """Attackers, and what they are compared with: nothing, or honest callers."""

    attackers: Callers
    honest: Callers | None = None

    @property
    def goal(self) -> float:
        return IDLE_GOAL if self.honest is None else HONEST_GOAL


_HONEST = Callers(hostile.ask_for_a_long_stream, N_PARALLEL - 1, num_teams=N_PARALLEL - 1)
"""All streams but one: beside an attack too, the other team has one and the attackers have the rest."""
CASES = {
    "tokenize": Case(Callers(hostile.tokenize_control_texts, 8)),
    "count-tokens": Case(Callers(hostile.count_letters, 8)),
    "completions": Case(Callers(hostile.complete_control_texts, 2)),
    "schemas": Case(Callers(hostile.compile_deep_references, 16, num_teams=4)),
    "bad-batches": Case(Callers(hostile.run_a_bad_batch, 4, num_teams=2)),
    "uploads": Case(Callers(hostile.hold_an_upload, 16, num_teams=4)),
    "wrong-keys": Case(Callers(hostile.try_a_wrong_key, 16)),
    "big-json": Case(Callers(hostile.post_big_json, 4)),
    "key-changes": Case(Callers(hostile.create_a_key, 8)),
    "upgrades": Case(Callers(hostile.upgrade, 16)),
    "16-choices": Case(Callers(hostile.ask_for_16_long_choices, 1), _HONEST),
    "long-streams": Case(Callers(hostile.ask_for_a_long_stream, 32), _HONEST),
}


@dataclass(slots=True)
class Row:
    """Seconds that the chats of the other team took.

    Attributes:
        compared_with: `idle` or `honest`.
        answers: status -> how many answers the attackers got with it; "unfinished": cut off by the end of a round.
        others: share of the cores that other processes took.
    """

    attack: str
    compared_with: str
    goal: float
    before_s: list[float]
    beside_s: list[float]
    answers: dict[str, int]
    others: float

    @property
    def ratio(self) -> float:
        return _p95(self.beside_s) / _p95(self.before_s)

    def __str__(self) -> str:
        met = "met" if self.ratio <= self.goal else "missed"
        answers = ", ".join(f"{count} x {status}" for status, count in self.answers.items())
        return (
            f"{self.attack:14}{self.compared_with:8}{_p95(self.before_s):9.2f}{_p95(self.beside_s):9.2f}"
            f"{self.ratio:8.2f}{self.goal:6.1f}  {met:8}{self.others:5.0%}  {answers}"
        )


HEAD = f"{'attack':14}{'to':8}{'p95 s':>9}{'beside':>9}{'ratio':>8}{'goal':>6}  {'':8}{'other':>5}  attackers' answers"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench attacks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("attacks", nargs="*", help=f"default: all of {', '.join((*CASES, TOKENISERS))}")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each attack; default: 3")
    parser.add_argument("--chats", type=int, default=15, help="of the other team in each turn; default: 15")
    parser.add_argument("--model", type=Path, help="GGUF; default: the demo model")
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    names = arguments.attacks or [*CASES, TOKENISERS]
    if unknown := set(names) - {*CASES, TOKENISERS}:
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    model = arguments.model or demo_model()
    rows: list[Row] = []
    print(HEAD, flush=True)
    for name in names:
        if name != TOKENISERS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(_measure(name, Path(folder), model, arguments.rounds, arguments.chats))
            print(rows[-1], flush=True)
    print(f"load average {os.getloadavg()[0]:.1f}")
    tokenisers = measure_tokenisers() if TOKENISERS in names else []
    if arguments.json:
        figures = {"attacks": [asdict(row) for row in rows], TOKENISERS: [asdict(row) for row in tokenisers]}
        arguments.json.write_text(json.dumps(figures, indent=1))


def _measure(name: str, folder: Path, model: Path, num_rounds: int, num_chats: int) -> Row:
    """Measures one attack on a server of its own."""
    case = CASES[name]
    row = Row(name, "honest" if case.honest else "idle", case.goal, [], [], {}, 0.0)
    with any_inferd(folder, _MODELS_TOML.format(model=model)) as server:
        data, root = folder / "data", server.base_url.removesuffix("/v1")
        victim = _Victim(server.base_url, new_team(data, "victim", UNLIMITED_TIER), end_tokens(model))
        attackers = _targets(root, data, "attacker", case.attackers)
        honest = _targets(root, data, "honest", case.honest) if case.honest else []
        watch = Watch(server.pid)
        asyncio.run(_take_turns(case, row, victim, attackers, honest, num_rounds, num_chats))
        row.others = watch.stop().total
    return row


def _targets(root: str, data: Path, name: str, callers: Callers) -> list[Target]:
    """One for each caller."""
    teams = [f"{name}-{number}" for number in range(callers.num_teams)]
    keys = {team: new_team(data, team, UNLIMITED_TIER, ("inference", "manage")) for team in teams}
    chosen = [teams[number % len(teams)] for number in range(callers.num_callers)]
    return [Target(root, team, keys[team], MODEL, FREE_MODEL) for team in chosen]


async def _take_turns(
    case: Case,
    row: Row,
    victim: _Victim,
    attackers: Sequence[Target],
    honest: Sequence[Target],
    num_rounds: int,
    num_chats: int,
) -> None:
    answers: Counter[str] = Counter()
    idle_s = max(await victim.ask(3))
    for _ in range(num_rounds):
        async with _calling(case.honest, honest, Counter()):
            row.before_s += await victim.ask(num_chats)
        await victim.until_calm(2 * idle_s)
        async with _calling(case.attackers, attackers, answers):
            row.beside_s += await victim.ask(num_chats)
        await victim.until_calm(2 * idle_s)
    row.answers = dict(answers.most_common())


@asynccontextmanager
async def _calling(callers: Callers | None, targets: Sequence[Target], answers: Counter[str]) -> AsyncIterator[None]:
    """Each caller asks again when its answer has come, until the end; then all hang up."""

    async def call(target: Target, first: int) -> None:
        if callers is None:
            return
        number = first
        while True:
            answers["unfinished"] += 1
            reply = await callers.attack(target, number)
            answers["unfinished"] -= 1
            answers[str(reply.status)] += 1
            number += len(targets)
            await asyncio.sleep(PAUSE_S)

    start = time.time_ns() % 10**9  # so that a later round repeats nothing of an earlier one
    tasks = [asyncio.create_task(call(target, start + index)) for index, target in enumerate(targets)]
    try:
        if tasks:
            await asyncio.sleep(WARM_UP_S)
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


class _Victim:
    """A team that asks one question after the other."""

    def __init__(self, base_url: str, key: str, end_ids: Sequence[int]) -> None:
        self._base_url = base_url
        self._key = key
        self._bias = {str(token_id): -100 for token_id in end_ids}
        self._num_asked = 0

    async def ask(self, num_chats: int) -> list[float]:
        """Seconds from each question to the end of its answer."""
        return [await self._ask_once() for _ in range(num_chats)]

    async def until_calm(self, limit_s: float) -> None:
        """Ask until an answer takes at most `limit_s`: what an attack left behind belongs to no measurement."""
        deadline_s = time.monotonic() + CALM_TIMEOUT_S
        while await self._ask_once() > limit_s and time.monotonic() < deadline_s:
            pass

    async def _ask_once(self) -> float:
        self._num_asked += 1
        body = {
            "model": MODEL,
            "messages": [user(f"Tell me about {words(20, 70_000 + self._num_asked)}.")],
            "max_tokens": VICTIM_TOKENS,
            "temperature": 0.0,
            "logit_bias": self._bias,
        }
        answer = Answer()
        await stream_chat(self._base_url, self._key, body, answer)
        return answer.ended_s


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


if __name__ == "__main__":
    main()
