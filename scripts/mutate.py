"""`scripts/check mutate`: are the tests of money strong enough to notice a changed line?

cosmic-ray (https://github.com/sixty-north/cosmic-ray) changes one thing at a time in the modules that compute prices,
caps, holds, counters and grants, and runs their tests. A mutant that no test notices survives. Each module is mutated
in its own copy of the tree, two at a time. Exit status 1: fewer than 90 of 100 mutants were killed.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / ".venv" / "mutation"
REQUIREMENT = "cosmic-ray==8.7.0"
GOAL = 0.9
# A mutant that never ends is killed by the processor time it used: on a machine that is busy, or stopped for a while,
# hours may pass that say nothing of it.
CPU_LIMIT_S = 200
WALL_LIMIT_S = 7200
# Module of inferd/ledger -> its own tests in tests/ledger, which kill most mutants; the rest meet all of COMMON.
MODULES = {
    "requests/pricing": ("requests/test_pricing", "operations/test_cap_texts"),
    "terms/caps": ("operations/test_cap_texts", "terms/test_caps", "alerts/test_alerts"),
    "requests/holds": ("requests/test_holds", "alerts/test_alerts", "credit/test_included_credit"),
    "requests/settlement": ("requests/test_settlement", "alerts/test_alerts"),
    "terms/counters": ("terms/test_caps", "requests/test_settlement"),
    "credit/grants": ("credit/test_grants", "terms/test_expiry_clock", "credit/test_included_credit"),
}
COMMON = (
    "requests/test_holds",
    "requests/test_settlement",
    "credit/test_grants",
    "terms/test_caps",
    "credit/test_refunds",
    "operations/test_teams",
    "test_invariants",
    "storage/test_writer",
)
# Left out: operators that are never typed by mistake and would only flatter the score; annotations, which are not
# evaluated; and `frozen` and `slots`, without which records behave the same.
EXCLUDED = [
    *(
        f"core/ReplaceBinaryOperator_.*_{name}"
        for name in ("RShift", "LShift", "Pow", "Mod", "BitXor", "BitAnd", "BitOr")
    ),
    "core/ReplaceBinaryOperator_BitOr_.*",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceUnaryOperator_.*",
]


@dataclass(frozen=True)
class Result:
    """Result of the mutants of one module. `survivors`: the diff of each."""

    module: str
    killed: int
    survivors: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; all unless named")
    chosen = parser.parse_args().modules or list(MODULES)
    if set(chosen) - MODULES.keys():
        parser.error(f"there is {', '.join(MODULES)}")
    if not (TOOL / "bin" / "cosmic-ray").exists():
        # In an environment of its own: it brings much with it, and the tests run in ours.
        venv.create(TOOL, with_pip=True)
        subprocess.run([TOOL / "bin" / "pip", "install", "-q", REQUIREMENT], check=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda module: _mutate(Path(folder) / module.replace("/", "-"), module), chosen))
    for result in results:
        for diff in result.survivors:
            print(f"--- survived in {result.module}.py\n{diff}\n")
    killed = sum(result.killed for result in results)
    total = killed + sum(len(result.survivors) for result in results)
    for result in results:
        print(f"{result.module:16} {result.killed:4} of {result.killed + len(result.survivors):4} killed")
    print(f"{'all':16} {killed:4} of {total:4} killed: {killed / total:.1%} (goal {GOAL:.0%})")
    return 0 if killed / total >= GOAL else 1


def _mutate(folder: Path, module: str) -> Result:
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=ignored)
    own = MODULES[module]
    names = dict.fromkeys((*own, *COMMON))
    tests = " ".join(f"tests/ledger/{name}.py" for name in names)
    pytest = f"{sys.executable} -m pytest -x -q -p no:cacheprovider --hypothesis-profile=mutation"
    command = f"prlimit --cpu={CPU_LIMIT_S} {pytest} {tests}"
    (folder / "cosmic-ray.toml").write_text(
        f'[cosmic-ray]\nmodule-path = ["inferd/ledger/{module}.py"]\n'
        f"timeout = {WALL_LIMIT_S}.0\nexcluded-modules = []\n"
        f'test-command = "{command}"\n[cosmic-ray.distributor]\nname = "local"\n'
        f"[cosmic-ray.filters.operators-filter]\nexclude-operators = {EXCLUDED}\n"
    )
    for words in (
        ("cosmic_ray.cli", "init", "cosmic-ray.toml", "session.sqlite"),
        ("cosmic_ray.tools.filters.operators_filter", "session.sqlite", "cosmic-ray.toml"),
        ("cosmic_ray.cli", "baseline", "cosmic-ray.toml"),
        ("cosmic_ray.cli", "exec", "cosmic-ray.toml", "session.sqlite"),
    ):
        # As modules: the scripts beside them name the folder in which the environment was made.
        command_line = [TOOL / "bin" / "python", "-m", *words]
        subprocess.run(command_line, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with closing(sqlite3.connect(folder / "session.sqlite")) as conn:
        rows = conn.execute("SELECT test_outcome, diff FROM work_results WHERE worker_outcome <> 'SKIPPED'").fetchall()
    survivors = [diff for outcome, diff in rows if outcome == "SURVIVED"]
    return Result(module, len(rows) - len(survivors), survivors)


if __name__ == "__main__":
    sys.exit(main())
