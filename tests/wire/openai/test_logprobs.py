"""Lists of the legacy `logprobs`."""

from __future__ import annotations

import math

from inferd.logprobs import TokenAlternative, TokenLogprob
from inferd.wire.openai.logprobs import TextLogprobsWriter


def token(piece: bytes, *top: tuple[bytes, float], logprob: float = -1.0) -> TokenLogprob:
    return TokenLogprob(piece, logprob, tuple(TokenAlternative(*each) for each in top))


def test_text_offset_counts_characters_across_chunks():
    writer = TextLogprobsWriter()
    first = writer.write([token("hé".encode()), token(b"\xe2\x82"), token(b"\xac!")])
    assert first.text_offset == [0, 2, 2]
    assert first.tokens == ["hé", "bytes:\\xe2\\x82", "bytes:\\xac\\x21"]
    assert writer.write([token(b"x"), token(b"y")]).text_offset == [4, 5]


def test_top_logprobs_hold_the_sampled_token_once():
    found = TextLogprobsWriter().write(
        [
            token(b"c", (b"a", -0.1), (b"b", -0.2), logprob=-3.0),
            token(b"a", (b"a", -0.1), (b"b", -0.2), logprob=-0.1),
            token(b"x", (b"", -0.1), (b"", -0.2)),
            token(b"x", logprob=-math.inf),
        ]
    )
    assert [[*top.items()] for top in found.top_logprobs] == [
        [("a", -0.1), ("b", -0.2), ("c", -3.0)],
        [("a", -0.1), ("b", -0.2)],
        [("", -0.1), ("x", -1.0)],
        [("x", -9999.0)],
    ]
    assert found.token_logprobs == [-3.0, -0.1, -1.0, -9999.0]
