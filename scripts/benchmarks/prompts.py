"""Made-up text, the same in every run."""

from __future__ import annotations

import random

_WORDS = (
    "river stone cloud garden window paper silver morning bridge lantern forest copper thunder violin harbor meadow "
    "engine pepper marble shadow rocket cotton island saddle winter candle pocket orchard velvet compass"
)


def words(n: int, seed: int) -> str:
    """About 1.5 tokens a word."""
    chosen = random.Random(seed).choices(_WORDS.split(), k=n)
    return " ".join(f"{word} {index}" if index % 7 == 0 else word for index, word in enumerate(chosen))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
