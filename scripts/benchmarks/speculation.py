"""Workloads of speculation: one stream at a time, on two engines of one server, one of which does without."""

from __future__ import annotations

import statistics

from scripts.benchmarks.client import Answer
from scripts.benchmarks.load import Figures, Load
from scripts.benchmarks.prompts import user, words

WITH, WITHOUT = "bench/m", "bench/plain"
N_COPY_PAIRS = 9
N_FREE_PAIRS = 24
COPY_TOKENS = 144
FREE_TOKENS = 96

_PASSAGES = (
    "The lighthouse keeper climbed the narrow stairs every evening, carrying a small lamp and a leather notebook. "
    "From the gallery he could see the fishing boats coming home, the gulls circling above the harbour wall, and "
    "the long grey line of the mountains beyond the bay. He wrote down the direction of the wind, the height of "
    "the waves, and the name of every ship that passed. In winter the storms came early, and the sea threw stones "
    "against the windows. In summer tourists walked along the cliff path and waved to him. He had lived there for "
    "thirty years, and he knew each rock by the sound that the water made around it. When his daughter asked him "
    "to move to the town, he smiled and pointed at the light. Somebody has to keep it burning, he said, and went "
    "back to his notebook.",
    "The bakery on the corner opens before the sun rises over the old market square. Inside, two brothers knead "
    "the dough on a long wooden table, while the youngest apprentice carries sacks of flour from the cellar. By "
    "six the first loaves come out of the oven, and their smell drifts through the open door into the empty "
    "street. A taxi driver buys a warm roll and a cup of black coffee. A nurse on her way home from the night "
    "shift asks for a small cake with cherries. The teacher from the school next door always takes the same dark "
    "bread, pays with exact coins, and tells the brothers about the weather. On Saturdays there is a line as far "
    "as the fountain, and nobody complains, because waiting there is the best way to hear what has happened in "
    "the village during the week.",
    "In the spring of that year the river rose higher than anyone could remember. The water covered the lower "
    "meadows first, then the road to the mill, and at last it stood in the gardens behind the church. Farmers "
    "moved their cattle to the hills and stored the seed potatoes in the attic of the town hall. The blacksmith "
    "built a raft from empty barrels and carried letters, bread and medicine from house to house. At night people "
    "put lamps in their windows, so that he could find his way between the fences and the fruit trees. After nine "
    "days the rain stopped and the river slowly went back to its bed. It left a layer of fine brown mud on every "
    "field, and the harvest that followed was the richest in the history of the valley, as the oldest farmer had "
    "promised it would be.",
)


async def speculate_copy(load: Load) -> Figures:
    """Answers that repeat a passage of the prompt word for word."""
    asks = [
        f"Repeat the following text exactly, word for word.\n\n{_PASSAGES[number % len(_PASSAGES)]}"
        for number in range(N_COPY_PAIRS)
    ]
    return await _compare(load, asks, COPY_TOKENS, temperature=0.0)


async def speculate_free(load: Load) -> Figures:
    """Stories, drawn at temperature 1."""
    asks = [f"Tell me a long story about {words(2, number)}." for number in range(N_FREE_PAIRS)]
    return await _compare(load, asks, FREE_TOKENS, temperature=1.0)


async def _compare(load: Load, asks: list[str], max_tokens: int, *, temperature: float) -> Figures:
    """Each question to both engines, now the one first, now the other; the ratio is the median of the pairs'."""
    pairs: list[tuple[Answer, Answer]] = []
    for number, text in enumerate(asks):
        answers = {}
        for model in (WITH, WITHOUT) if number % 2 else (WITHOUT, WITH):
            answers[model] = await load.ask([user(text)], max_tokens, temperature=temperature, model=model)
        pairs.append((answers[WITH], answers[WITHOUT]))
    return {
        "tokens_per_s": statistics.median(_tokens_per_s(answer) for answer, _ in pairs),
        "without_tokens_per_s": statistics.median(_tokens_per_s(answer) for _, answer in pairs),
        "speed_share": statistics.median(_tokens_per_s(a) / _tokens_per_s(b) for a, b in pairs),
        "tokens_per_step": statistics.median(a.completion_tokens / len(a.token_times_s) for a, _ in pairs),
    }


def _tokens_per_s(answer: Answer) -> float:
    """From the first one on, which comes by itself."""
    return (answer.completion_tokens - 1) / (answer.token_times_s[-1] - answer.token_times_s[0])
