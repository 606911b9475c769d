"""The contract of the Runner protocol, as tests: the fake and every real model pass the same ones.

A subclass has a fixture `runner` with empty memory, and `tolerance`: the largest difference of two roundings of the
same logits.
"""

from __future__ import annotations

import numpy as np
import pytest

from inferd.engine.runner import Batch, Logits, MemoryKind, Runner
from inferd.sampling_params import SamplingParams

TEXT = [17, 90, 41, 33, 120, 64, 8, 77, 150, 52, 29, 111]
MORE = [71, 19, 140]
GREEDY = SamplingParams(temperature=0.0)


def compute(runner: Runner, seq_id: int, token_ids: list[int], *, start: int | None = None) -> Logits:
    """Compute tokens after those in memory, and return a copy of the last row's logits."""
    first = runner.seq_pos_max(seq_id) + 1 if start is None else start
    num_rows = len(token_ids)
    positions = list(range(first, first + num_rows))
    wants_logits = [False] * (num_rows - 1) + [True]
    assert runner.execute(Batch(list(token_ids), positions, [seq_id] * num_rows, wants_logits)) == 0
    return runner.logits(num_rows - 1).copy()


def share(runner: Runner, source: int, destination: int) -> None:
    """Copy or share the whole of a sequence."""
    length = None if runner.num_pool_cells is None else runner.seq_pos_max(source) + 1
    runner.seq_cp(source, destination, length)


class RunnerContract:
    """Tests of any runner."""

    tolerance = 0.0

    def are_same(self, found: Logits, wanted: Logits) -> bool:
        return float(np.abs(found - wanted).max()) <= self.tolerance

    def test_limits_leave_a_row_for_every_sequence(self, runner: Runner) -> None:
        assert 0 < runner.max_running <= runner.max_sequences <= runner.max_outputs <= runner.max_rows
        assert (runner.window_size > 0) == (runner.memory_kind is MemoryKind.WINDOW)

    def test_execute_appends_positions_to_its_sequence_only(self, runner: Runner) -> None:
        compute(runner, 1, TEXT)
        compute(runner, 1, MORE)
        assert runner.seq_pos_max(1) == len(TEXT) + len(MORE) - 1
        assert [runner.seq_pos_max(other) for other in (0, 2)] == [-1, -1]

    def test_logits_depend_on_memory_and_not_on_the_sequence_or_the_step(self, runner: Runner) -> None:
        whole = compute(runner, 0, TEXT + MORE)
        assert whole.shape == (runner.vocab_size,)
        compute(runner, 1, TEXT)
        assert self.are_same(compute(runner, 1, MORE), whole)
        other = [*TEXT[:-2], TEXT[-2] + 1, TEXT[-1]]
        compute(runner, 2, other)
        assert not self.are_same(compute(runner, 2, MORE), whole)

    def test_rows_of_one_batch_belong_to_their_sequences(self, runner: Runner) -> None:
        alone = [compute(runner, 0, TEXT), compute(runner, 1, MORE)]
        runner.seq_rm(0, 0)
        runner.seq_rm(1, 0)
        tokens = [*TEXT, *MORE]
        positions = [*range(len(TEXT)), *range(len(MORE))]
        seq_ids = [0] * len(TEXT) + [1] * len(MORE)
        last = (len(TEXT) - 1, len(tokens) - 1)
        assert runner.execute(Batch(tokens, positions, seq_ids, [row in last for row in range(len(tokens))])) == 0
        assert all(self.are_same(runner.logits(row), wanted) for row, wanted in zip(last, alone, strict=True))

    def test_seq_rm_cuts_a_tail_if_the_memory_can_be_cut(self, runner: Runner) -> None:
        compute(runner, 0, TEXT)
        wanted = compute(runner, 0, MORE)
        assert runner.seq_rm(0, len(TEXT)) is runner.memory_kind.can_be_cut
        if runner.memory_kind.can_be_cut:
            assert runner.seq_pos_max(0) == len(TEXT) - 1
            assert self.are_same(compute(runner, 0, MORE), wanted)

    def test_seq_rm_of_a_whole_sequence_empties_it(self, runner: Runner) -> None:
        wanted = compute(runner, 0, TEXT)
        assert runner.seq_rm(0, 0)
        assert runner.seq_pos_max(0) == runner.seq_pos_min(0) == -1
        assert self.are_same(compute(runner, 0, TEXT), wanted)

    def test_seq_cp_gives_both_sequences_the_same_memory(self, runner: Runner) -> None:
        compute(runner, 0, TEXT)
        share(runner, 0, 1)
        assert runner.seq_pos_max(1) == len(TEXT) - 1
        wanted = compute(runner, 0, MORE)
        assert self.are_same(compute(runner, 1, MORE), wanted)

    def test_seq_cp_survives_the_removal_of_its_source(self, runner: Runner) -> None:
        compute(runner, 0, TEXT)
        share(runner, 0, 1)
        assert runner.seq_rm(0, 0)
        found = compute(runner, 1, MORE)
        assert self.are_same(found, compute(runner, 0, TEXT + MORE))

    def test_pending_copy_is_carried_out_by_the_next_execute(self, runner: Runner) -> None:
        compute(runner, 0, TEXT)
        share(runner, 0, 1)
        is_pending = runner.num_pool_cells is None
        assert runner.is_readable(0)
        assert runner.is_readable(1) is not is_pending
        assert [runner.is_writable(seq_id) for seq_id in (0, 1)] == [not is_pending] * 2
        compute(runner, 2, MORE)
        assert runner.is_readable(1)
        assert all(runner.is_writable(seq_id) for seq_id in (0, 1))

    def test_state_restores_a_sequence_elsewhere(self, runner: Runner) -> None:
        compute(runner, 0, TEXT)
        state = runner.seq_state(0)
        assert len(state) == runner.seq_state_size(0)
        wanted = compute(runner, 0, MORE)
        assert runner.restore_seq(1, state)
        assert runner.seq_pos_max(1) == len(TEXT) - 1
        assert self.are_same(compute(runner, 1, MORE), wanted)

    def test_restore_seq_carries_out_a_pending_copy_of_its_sequence_first(self, runner: Runner) -> None:
        compute(runner, 2, MORE)
        state = runner.seq_state(2)
        compute(runner, 0, TEXT)
        share(runner, 0, 1)
        assert runner.seq_rm(0, 0)
        assert runner.restore_seq(0, state)
        assert runner.is_readable(1)
        assert [runner.seq_pos_max(seq_id) for seq_id in (0, 1)] == [len(MORE) - 1, len(TEXT) - 1]
        found = compute(runner, 1, MORE)
        assert runner.seq_rm(2, 0)
        assert self.are_same(found, compute(runner, 2, TEXT + MORE))

    def test_greedy_sample_is_the_largest_logit_after_its_bias(self, runner: Runner) -> None:
        logits = compute(runner, 0, TEXT)
        biased = int(logits.argmin())
        samplers = [
            runner.new_sampler(GREEDY),
            runner.new_sampler(SamplingParams(temperature=0.0, logit_bias=((biased, 1000.0),))),
        ]
        row = len(TEXT) - 1
        assert runner.sample_from(samplers[0], logits.copy()) == int(logits.argmax())
        assert runner.sample(samplers[0], row) == int(logits.argmax())
        assert runner.sample(samplers[1], row) == biased
        for sampler in samplers:
            sampler.close()

    @pytest.mark.parametrize("broken", [float("nan"), float("-inf")])
    def test_sample_is_none_without_a_finite_maximum(self, runner: Runner, broken: float) -> None:
        logits = compute(runner, 0, TEXT)
        sampler = runner.new_sampler(GREEDY)
        assert runner.sample_from(sampler, np.full_like(logits, broken)) is None
        runner.logits(len(TEXT) - 1)[:] = broken
        assert runner.sample(sampler, len(TEXT) - 1) is None
        sampler.close()

    def test_pieces_are_bytes_and_end_tokens_have_none(self, runner: Runner) -> None:
        ends = [token_id for token_id in range(runner.vocab_size) if runner.is_end_of_generation(token_id)]
        assert ends
        assert all(runner.token_to_piece(token_id) == b"" for token_id in ends)
        assert all(isinstance(runner.token_to_piece(token_id), bytes) for token_id in TEXT)
