from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.cost_model import CostModel
from inferd.engine.detokenizer import Detokenizer
from inferd.engine.sequence import Sequence
from inferd.engine.speculation import MAX_DRAFT, N_GRAM, PromptLookup, Speculation
from inferd.sampling_params import SamplingParams
from tests.engine.driver import request
from tests.fakes import FakeSampler


def lookup_of(text: bytes, num_prompt_tokens: int | None = None) -> PromptLookup:
    lookup = PromptLookup(list(text), len(text) if num_prompt_tokens is None else num_prompt_tokens)
    lookup.read()
    return lookup


def test_what_is_repeated_is_expected_to_go_on() -> None:
    assert bytes(lookup_of(b"the lighthouse keeper. the ligh").expected(7)) == b"thouse "


def test_nothing_is_expected_of_what_is_new_or_too_short() -> None:
    for text in (b"", b"ab", b"abc", b"abcdefgh", b"abxyab"):
        lookup = lookup_of(text)
        assert not lookup.has_match
        assert lookup.expected(5) == ()


def test_the_latest_place_counts() -> None:
    assert bytes(lookup_of(b"wordsA.wordsB.words").expected(2)) == b"B."


def test_a_place_is_kept_while_it_goes_on_and_left_when_it_does_not() -> None:
    token_ids = list(b"wordsA then. wordsA now. wordsA ")
    lookup = PromptLookup(token_ids, len(token_ids))
    lookup.read()
    assert bytes(lookup.expected(3)) == b"now"
    token_ids += b"t"
    lookup.read()
    assert bytes(lookup.expected(3)) == b"hen", "what has followed the last three is looked up anew"


def test_a_loop_goes_on_for_ever() -> None:
    assert bytes(lookup_of(b"x abababab").expected(7)) == b"abababa"
    assert bytes(lookup_of(b"aaaaa").expected(3)) == b"aaa"


def test_the_longer_a_match_has_lasted_the_surer_it_is() -> None:
    text = b"abcdefghijklmnopqrstuvwxyz. "
    chances = [lookup_of(text + text[: N_GRAM + length]).chance(1) for length in range(20)]
    assert chances == sorted(chances)
    assert chances[0] == pytest.approx(0.5)
    assert chances[-1] > 0.95
    lookup = lookup_of(text + text[:N_GRAM])
    assert [lookup.chance(1 + ahead) for ahead in range(20)] == pytest.approx(chances), "given that it lasts"


def test_answers_that_copy_are_trusted_and_answers_that_do_not_are_not() -> None:
    text = b"abcdefghijklmnopqrstuvwxyz. "
    copies = lookup_of(text * 5, num_prompt_tokens=len(text))
    misses = lookup_of(b"".join(b"abc%c" % byte for byte in b"ABCDEFGH"), num_prompt_tokens=0)
    new = lookup_of(text + text[:N_GRAM])
    for lookup in (copies, misses):
        lookup._length = 0
    assert copies.chance(1) > 0.8 > new.chance(1) == 0.5 > misses.chance(1)


def test_what_a_prompt_has_in_common_with_itself_tells_nothing() -> None:
    text = b"abcdefghijklmnopqrstuvwxyz. " * 3
    lookup = lookup_of(text)
    lookup._length = 0
    assert lookup.chance(1) == 0.5


@given(st.binary(min_size=0, max_size=60).map(lambda text: bytes(97 + byte % 3 for byte in text)), st.data())
def test_it_does_not_matter_how_often_it_reads(text, data) -> None:
    token_ids: list[int] = []
    lookup = PromptLookup(token_ids, 5)
    while len(token_ids) < len(text):
        token_ids += text[len(token_ids) :][: data.draw(st.integers(1, 9))]
        lookup.read()
    once = PromptLookup(list(text), 5)
    once.read()
    assert lookup.expected(10) == once.expected(10)
    assert lookup.chance(1) == once.chance(1)
    if once.has_match:
        # Some place in the text was followed by just this, until the text ends.
        expected = bytes(once.expected(4))
        places = range(len(text) - N_GRAM)
        assert any((text + expected)[place:].startswith(text[-N_GRAM:] + expected) for place in places)


PASSAGE = b"Somebody has to keep it burning, he said, and went back to his notebook. "
FREE_ROWS, DEAR_ROWS = (10.0, 0.1), (1.0, 10.0)


def taught(fixed_ms: float, row_ms: float) -> CostModel:
    model = CostModel()
    for num_rows in (1, 8, 2, 16, 4, 12) * 20:
        cells = num_rows * 50
        model.observe(prefill_rows=0, decode_rows=num_rows, cells=cells, step_ms=fixed_ms + row_ms * num_rows)
    return model


def speculation(fixed_ms: float, row_ms: float, max_step_ms: float = 1e9, max_draft: int = MAX_DRAFT) -> Speculation:
    return Speculation(taught(fixed_ms, row_ms), max_draft=max_draft, max_step_ms=max_step_ms)


def new_sequence(prompt: bytes, max_tokens: int, params: SamplingParams | None = None) -> Sequence:
    return Sequence(request("r", prompt, max_tokens, params), FakeSampler(SamplingParams()), Detokenizer(()))


def copying(n_copied: int, max_tokens: int = 100, **params: object) -> Sequence:
    """Its prompt is the passage, its answer the beginning of it."""
    sequence = new_sequence(PASSAGE, max_tokens, SamplingParams(**params))  # type: ignore[arg-type]
    sequence.token_ids += (PASSAGE * 2)[:n_copied]
    sequence.num_computed_tokens = sequence.num_tokens - 1
    return sequence


def test_a_draft_is_what_comes_next_where_it_was_copied_from() -> None:
    draft = speculation(*FREE_ROWS).draft(copying(20), 100)
    assert bytes(draft) == PASSAGE[20 : 20 + MAX_DRAFT]


def test_where_a_row_costs_a_step_nothing_is_drafted() -> None:
    assert speculation(0.0, 10.0).draft(copying(60), 100) == ()


def test_the_dearer_a_row_and_the_newer_a_match_the_shorter_the_draft() -> None:
    lengths = [
        [len(speculation(10.0, row_ms).draft(copying(n_copied), 100)) for n_copied in (4, 8, 20, 60)]
        for row_ms in (0.1, 3.0, 10.0, 40.0)
    ]
    assert all(row == sorted(row) for row in lengths), lengths
    assert all(list(column) == sorted(column, reverse=True) for column in zip(*lengths, strict=True)), lengths
    assert lengths[0][-1] == MAX_DRAFT
    assert lengths[-1][0] == 0


def test_a_draft_is_as_long_as_pays_most() -> None:
    """Against trying all lengths."""
    for n_copied in (4, 5, 7, 12, 30, 70):
        sequence = copying(n_copied)
        drafter = speculation(10.0, 7.0)
        length = len(drafter.draft(sequence, 100))
        rates, chance, expected = [1.0 / 17.0], 1.0, 1.0
        for n_drafted in range(1, MAX_DRAFT + 1):
            chance *= drafter._lookup.chance(n_drafted)
            expected += chance
            rates.append(expected / (10.0 + 7.0 * (1 + n_drafted)))
        assert rates[length] == pytest.approx(max(rates), rel=1e-3)


def test_a_draft_keeps_to_its_limits() -> None:
    fast = speculation(*FREE_ROWS)
    assert len(fast.draft(copying(40), 6)) == 6
    assert fast.draft(copying(40), 0) == fast.draft(copying(40), -1) == ()
    assert len(fast.draft(copying(40, max_tokens=44), 100)) == 3, "the last token is sampled, not computed"
    assert fast.draft(copying(40, max_tokens=41), 100) == ()
    assert len(speculation(*FREE_ROWS, max_draft=2).draft(copying(40), 100)) == 2


def test_a_step_with_a_draft_stays_under_the_limit() -> None:
    length = len(speculation(10.0, 1.0, max_step_ms=15.5).draft(copying(70), 100))
    assert length == 4


def test_a_request_with_a_seed_is_computed_row_by_row() -> None:
    assert speculation(*FREE_ROWS).draft(copying(40, seed=1), 100) == ()
    assert speculation(*FREE_ROWS).draft(copying(40, seed=0), 100) == ()


def test_an_untaught_model_drafts_for_what_copies() -> None:
    new = Speculation(CostModel(), max_draft=MAX_DRAFT, max_step_ms=400.0)
    assert len(new.draft(copying(40), 100)) > 0, "or it would never learn what rows cost"


def times_as_fast(prompt: list[int], answer: list[int], *, fixed_ms: float, row_ms: float) -> float:
    """As without speculation, on a machine whose steps take just that."""
    engine = speculation(fixed_ms, row_ms)
    sequence = new_sequence(b"x", len(answer))
    sequence.request = replace(sequence.request, prompt=tuple(prompt))
    sequence.token_ids[:] = [*prompt, answer[0]]
    taken_ms = 0.0
    while (said := sequence.num_completion_tokens) < len(answer):
        draft = engine.draft(sequence, 100)
        taken_ms += fixed_ms + row_ms * (1 + len(draft))
        n_accepted = 0
        while n_accepted < len(draft) and draft[n_accepted] == answer[said + n_accepted]:
            n_accepted += 1
        sequence.token_ids += answer[said : said + n_accepted + 1]
    return (len(answer) - 1) * (fixed_ms + row_ms) / taken_ms


def chatter(seed: int, num_tokens: int) -> list[int]:
    """Each of 200 words is followed by one of four: what is said has been said before, and goes on otherwise."""
    rng, said = random.Random(seed), [0]
    while len(said) < num_tokens:
        said.append((said[-1] * 31 + rng.choice([1, 1, 1, 2, 2, 3, 5]) * 17) % 200)
    return said


@pytest.mark.parametrize("row_ms", [2.0, 7.0, 10.0, 20.0, 100.0])
@pytest.mark.parametrize("seed", range(4))
def test_an_answer_that_copies_nothing_loses_next_to_nothing(row_ms, seed) -> None:
    said = chatter(seed, 700)
    assert times_as_fast(said[:100], said[100:], fixed_ms=10.0, row_ms=row_ms) > 0.98


@pytest.mark.parametrize(("row_ms", "wanted"), [(0.1, 8.0), (2.0, 3.0), (7.0, 2.0), (10.0, 1.75), (20.0, 1.3)])
def test_an_answer_that_copies_gains_nearly_all_there_is_to_gain(row_ms, wanted) -> None:
    said = list(range(300))
    ratio = times_as_fast(said, said[20:200], fixed_ms=10.0, row_ms=row_ms)
    most = (10.0 + row_ms) / (10.0 / (1 + MAX_DRAFT) + row_ms)
    assert wanted < ratio <= most


def test_a_match_that_fails_again_and_again_is_no_longer_drafted() -> None:
    sequence = new_sequence(b"x", 4000)
    lengths = []
    even = speculation(10.0, 7.0)
    for number in range(20):
        sequence.token_ids += b"%csay" % (65 + number)
        lengths.append(len(even.draft(sequence, 100)))
    assert lengths[1] > 0
    assert set(lengths[6:]) == {0}
