"""`scripts/bench ledger`: hold and settle pairs per second through the call that serving uses.

Concurrent callers each await a hold, then its settlement, from `LedgerWriter.execute`, as a request does. Each run is a
process of its own: on a small ledger and on one with millions of usage rows and thousands of teams, as the disk is and
with 2 ms added to every sync (a preload shim, which also says how long the run's own syncs took). One caller alone
shows what the ledger adds to a request's latency. Before each measurement every team has paid once, and 1,000 pairs
were made. The small ledger is audited at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import uvloop

from inferd.attribution import Attribution
from inferd.instants import wall_clock_ms
from inferd.ledger.audit.run import audit
from inferd.ledger.requests.holds import OpenHold
from inferd.ledger.requests.settlement import SettleHold, begin_epoch
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter
from inferd.price import Price
from inferd.serving.request_id import new_request_id
from inferd.usage import Usage
from scripts.benchmarks.large_ledger import fill

SHIM = Path(__file__).with_name("sync_shim.c")
PRICE = Price(input_picousd=100_000, output_picousd=400_000)
SMALL_TEAMS = 100
WARM_PAIRS = 1_000


def main() -> None:
    arguments = _arguments()
    if arguments.child is not None:
        print(json.dumps(_measure(arguments.child, arguments.callers, arguments.seconds)))
        return
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        shim = _build_shim(Path(folder))
        small, large = Path(folder) / "small", arguments.large or Path(folder) / "large"
        fill(small, teams=SMALL_TEAMS, usage_rows=0)
        started = time.perf_counter()
        if not (large / "ledger.db").exists():
            fill(large, teams=arguments.teams, usage_rows=arguments.usage_rows)
        size_gb = (large / "ledger.db").stat().st_size / 1e9
        print(
            f"large ledger: {arguments.usage_rows:,} usage rows, {arguments.teams:,} teams, {size_gb:.1f} GB, ", end=""
        )
        print(f"made in {time.perf_counter() - started:.0f} s", flush=True)
        if arguments.only_make:
            return
        print(
            f"{'run':22}{'callers':>8}{'pairs/s':>9}{'pair p50 ms':>13}{'p99 ms':>9}{'CPU us':>8}"
            f"{'sync ms':>9}{'load':>6}"
        )
        for name, data, callers, delay_us in (
            ("new", small, arguments.callers, 0),
            ("2 ms sync", small, arguments.callers, 2000),
            ("large", large, arguments.callers, 0),
            ("large, 2 ms sync", large, arguments.callers, 2000),
            ("one caller", small, 1, 0),
            ("one caller, large", large, 1, 0),
        ):
            found = [_run(data, callers, arguments.seconds, shim, delay_us) for _ in range(arguments.repeat)]
            figures = {key: statistics.median(each[key] for each in found) for key in found[0]}
            print(
                f"{name:22}{callers:8}{figures['pairs_per_s']:9.0f}{figures['p50_ms']:13.2f}{figures['p99_ms']:9.2f}"
                f"{figures['cpu_us']:8.0f}"
                f"{figures['sync_ms']:9.2f}{os.getloadavg()[0]:6.1f}",
                flush=True,
            )
        with Store(small).reading() as conn:
            findings = audit(conn).findings
        print("audit of the small ledger: " + ("clean" if not findings else f"{len(findings)} findings: {findings[0]}"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each kind; the median is shown")
    parser.add_argument("--usage-rows", type=int, default=5_000_000)
    parser.add_argument("--teams", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the ledgers are made (the disk that is measured)")
    parser.add_argument("--large", type=Path, help="the large ledger; made if it is not there, and kept")
    parser.add_argument("--only-make", action="store_true", help="make the large ledger and stop")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _build_shim(folder: Path) -> Path:
    shim = folder / "sync_shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(shim), str(SHIM), "-ldl"], check=True)
    return shim


def _run(data: Path, callers: int, seconds: float, shim: Path, delay_us: int) -> dict[str, float]:
    """One run in a process of its own."""
    times = shim.with_name("sync-times")
    times.unlink(missing_ok=True)
    environment = os.environ | {
        **{"LD_PRELOAD": str(shim), "SYNC_SHIM_TIMES": str(times)},
        **({"SYNC_SHIM_DELAY_US": str(delay_us)} if delay_us else {}),
    }
    words = ["--child", str(data), "--callers", str(callers), "--seconds", str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks.ledger", *words],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures | {"sync_ms": statistics.median(map(int, times.read_text().split())) / 1e3}


def _measure(data: Path, callers: int, seconds: float) -> dict[str, float]:
    with DataLock(data) as lock:
        store = Store(data, lock)
        epoch = begin_epoch(store, wall_clock_ms())
        with closing(store.connect()) as conn:
            keys = conn.execute("SELECT team, key_id FROM keys").fetchall()
        writer = LedgerWriter(store)
        writer.start()
        try:
            return uvloop.run(_load(writer, epoch, keys, callers, seconds))
        finally:
            writer.stop()


async def _load(
    writer: LedgerWriter, epoch: int, keys: list[tuple[str, str]], callers: int, seconds: float
) -> dict[str, float]:
    chance = random.Random(1)
    times_s: list[float] = []

    async def caller(whose: Iterator[tuple[str, str]]) -> None:
        for team, key_id in whose:
            began_s = time.perf_counter()
            request_id = new_request_id()
            now_ms = wall_clock_ms()
            whose_request = Attribution(team, "inference", None, key_id, "bench/m", "default")
            await writer.execute(OpenHold(request_id, whose_request, PRICE, 500, 200, epoch, now_ms))
            await writer.execute(
                SettleHold(request_id, Usage(500, 100, 120, 900), "completed", wall_clock_ms(), "stop")
            )
            times_s.append(time.perf_counter() - began_s)

    def any_team() -> Iterator[tuple[str, str]]:
        ends_s = time.perf_counter() + seconds
        while time.perf_counter() < ends_s:
            yield chance.choice(keys)

    async def all_callers(whose: Iterator[tuple[str, str]]) -> None:
        times_s.clear()
        await asyncio.gather(*(caller(whose) for _ in range(callers)))

    # Each team once first, as in a server that has run for a while: a team's first request reads its rows from the
    # file.
    await all_callers(iter(keys * -(-WARM_PAIRS // len(keys))))
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    await all_callers(any_team())
    elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    times_s.sort()
    return {
        "pairs_per_s": len(times_s) / elapsed_s,
        "p50_ms": times_s[len(times_s) // 2] * 1e3,
        "p99_ms": times_s[len(times_s) * 99 // 100] * 1e3,
        "cpu_us": cpu_s / len(times_s) * 1e6,
    }


if __name__ == "__main__":
    main()
