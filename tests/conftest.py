"""Options of all tests: `--all`, `--fast`, `--clients`, `--soak`; Hypothesis without deadlines: machines may be busy.

Hypothesis searches anew in every run but that of `.ci/run`, which says the same of the same code each time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

# Folders of tests that load a model or start a server of their own.
WITH_WEIGHTS = ("clients", "e2e", "engine/llama", "examples", "recording")

MAX_EXAMPLES = 100
MAX_EXAMPLES_ALL = 2000

settings.register_profile(
    "default", deadline=None, max_examples=MAX_EXAMPLES, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("all", settings.get_profile("default"), max_examples=MAX_EXAMPLES_ALL)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("fast", settings.get_profile("default"), max_examples=10)
# For scripts/check mutate: most mutants die at the first examples, and nobody reads the smallest one.
settings.register_profile(
    "mutation", settings.get_profile("ci"), max_examples=50, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also the tests marked slow, and more Hypothesis examples")
    parser.addoption("--fast", action="store_true", help="only tests that load no model, with few examples")
    parser.addoption("--clients", action="store_true", help="only the coding agents, installed at their first use")
    parser.addoption(
        "--record", action="store_true", help="with --clients: write the agents' traffic to tests/clients/recorded"
    )
    parser.addoption("--soak", action="store_true", help="only the soak: honest and hostile load for half an hour")
    parser.addoption("--soak-minutes", type=float, default=30.0, help="how long the soak is; default: 30")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile", default=None):
        chosen = next((name for name in ("all", "fast") if config.getoption(f"--{name}")), "default")
        settings.load_profile(chosen)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out folders that load models, with `--fast`."""
    folders = {Path(__file__).parent / name for name in WITH_WEIGHTS}
    return True if config.getoption("--fast") and collection_path in folders else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out, unless `--all` or a choice of markers (`-m slow`) asks for them. `--clients` is
    `-m clients`, `--soak` is `-m soak`; without it there is no soak, with `--all` neither."""
    for marker in ("clients", "soak"):
        if config.getoption(f"--{marker}"):
            _keep(config, items, lambda item, marker=marker: bool(item.get_closest_marker(marker)))
            return
    if "soak" not in (chosen := config.getoption("markexpr")):
        _keep(config, items, lambda item: not item.get_closest_marker("soak"))
    if not (config.getoption("--all") or chosen):
        _keep(config, items, lambda item: not item.get_closest_marker("slow"))


def _keep(config: pytest.Config, items: list[pytest.Item], is_kept: Callable[[pytest.Item], bool]) -> None:
    others = [item for item in items if not is_kept(item)]
    if others:
        items[:] = [item for item in items if is_kept(item)]
        config.hook.pytest_deselected(items=others)
