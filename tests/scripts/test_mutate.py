"""scripts/mutate.py names modules and tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutate import COMMON, MODULES


@pytest.mark.parametrize("module", MODULES)
def test_mutated_module_and_its_tests_exist(module):
    tests = (*MODULES[module], *COMMON)
    paths = [f"inferd/ledger/{module}.py", *(f"tests/ledger/{name}.py" for name in tests)]
    assert [path for path in paths if not Path(path).exists()] == []
