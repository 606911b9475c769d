"""One session for all tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest

from tests.recording.record import take


@pytest.fixture(scope="session")
def session() -> dict[str, Any]:
    """Return the answers of a new session, by the name of the file with the recorded ones."""
    return take()
