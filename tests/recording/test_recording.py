"""Answers of the server, the command line and the ledger export, compared with recorded ones.

If a change of behaviour is intended, `python -m tests.recording` writes the files anew; commit their diff with it. The
tests are slow ones (`scripts/test -m slow tests/recording`): the model's text, and with it token counts and sums, may
differ between kinds of processors, so a difference is read by a person before it is called a fault.
"""

from __future__ import annotations

import pytest

from tests.recording.record import difference


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wire", "cli", "export"])
def test_answers_of_a_session_equal_the_recorded_ones(session, name):
    changed = difference(name, session[name])
    assert not changed, f"{name}.json was recorded otherwise (`python -m tests.recording` records anew):\n{changed}"
