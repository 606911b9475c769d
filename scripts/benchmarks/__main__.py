"""`scripts/bench serve`: inferd against other servers of the same model, alternately; medians and ratios.

Peers: `inferd`; `llama-8` and `llama-16`, llama-server with so many slots; `example`, llama-cpp-python's
examples/server; `oracle`, a bare loop that knows all requests beforehand (cold-prefix only); `url`, whatever answers
at --url. The ratio is the first one's to the best of the others, the oracle apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from scripts.benchmarks.load import Figures, Load
from scripts.benchmarks.machine import Disturbance, Watch, wait_until_idle
from scripts.benchmarks.model_file import demo_model, end_tokens
from scripts.benchmarks.servers import Server, example_server, inferd, llama_server
from scripts.benchmarks.workloads import WORKLOADS, Workload, warm

ORACLE = "oracle"
MAX_TRIES = 2
IDLE_TIMEOUT_S = 30.0
Found = dict[str, dict[str, list[Figures]]]  # by workload, by peer


def main() -> None:
    arguments = _arguments()
    arguments.model = arguments.model or demo_model()
    ends = end_tokens(arguments.model)
    names = arguments.workloads or list(WORKLOADS)
    found: Found = defaultdict(lambda: defaultdict(list))
    for repeat in range(arguments.repeats):
        for name in names:
            for peer in arguments.peers:
                workload = WORKLOADS[name]
                if (workload.only_inferd and peer != "inferd") or (peer == ORACLE and workload.n_users is None):
                    continue
                figures, disturbance = _undisturbed(peer, workload, arguments, ends)
                found[name][peer].append(figures)
                shown = "  ".join(f"{key} {value:.2f}" for key, value in figures.items())
                print(f"[{repeat + 1}/{arguments.repeats}] {name:20} {peer:9} {shown}  ({disturbance})", flush=True)
    _report(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", help=f"default: all of {', '.join(WORKLOADS)}")
    parser.add_argument("--peers", nargs="+", default=["inferd"], help="see above; default: inferd alone")
    parser.add_argument("--llama-server", type=Path, help="its binary, built from the same llama.cpp")
    parser.add_argument("--example-server", type=Path, help="examples/server/server.py of llama-cpp-python's sdist")
    parser.add_argument("--example-python", type=Path, help="a Python that has llama-cpp-python and what it needs")
    parser.add_argument("--url", help="base URL of an OpenAI-compatible server, with /v1")
    parser.add_argument("--url-model", default="m", help="the model's name there")
    parser.add_argument("--url-key", default="none", help="an API key for it")
    parser.add_argument("--model", type=Path, help="GGUF; default: the demo model")
    parser.add_argument("--parallel", type=int, default=16, help="inferd's n_parallel")
    parser.add_argument("--context", type=int, default=4096, help="tokens a sequence")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--disturbed-max",
        type=float,
        default=0.08,
        help="a run is done again, once, if other processes and virtual machines took more of the cores meanwhile",
    )
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    if unknown := set(arguments.workloads) - set(WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    return arguments


def _undisturbed(
    peer: str, workload: Workload, arguments: argparse.Namespace, ends: list[int]
) -> tuple[Figures, Disturbance]:
    """The figures of the run that was disturbed least."""
    runs = []
    for _ in range(MAX_TRIES):
        wait_until_idle(others_max=arguments.disturbed_max, timeout_s=IDLE_TIMEOUT_S)
        if peer == ORACLE:
            runs.append(_oracle(workload, arguments.model))
        else:
            with _server(peer, workload, arguments) as server:
                runs.append(asyncio.run(_measure(server, workload, ends)))
        if runs[-1][1].total <= arguments.disturbed_max:
            break
    return min(runs, key=lambda run: run[1].total)


async def _measure(server: Server, workload: Workload, ends: list[int]) -> tuple[Figures, Disturbance]:
    load = Load(server, ends)
    await warm(load)
    watch = Watch(server.pid)
    figures = await workload.run(load)
    return figures, watch.stop()


def _oracle(workload: Workload, model: Path) -> tuple[Figures, Disturbance]:
    words = [sys.executable, "-m", "scripts.benchmarks.oracle", str(workload.n_users), "--model", str(model)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it is a pipe"
        process.stdout.readline()  # it is warm
        watch = Watch(process.pid)
        wall_s = float(process.stdout.readline())
        return {"wall_s": wall_s}, watch.stop()


def _server(peer: str, workload: Workload, arguments: argparse.Namespace) -> AbstractContextManager[Server]:
    model, context, n_parallel = arguments.model, arguments.context, arguments.parallel
    if peer == "inferd":
        return inferd(
            model,
            n_parallel=n_parallel,
            max_context=context,
            host_cache_mib=workload.host_cache_mib,
            two_teams=workload.two_teams,
            two_engines=workload.two_engines,
        )
    if peer == "url" and arguments.url:
        return _elsewhere(arguments)
    if peer == "example" and arguments.example_server and arguments.example_python:
        return example_server(
            arguments.example_python, arguments.example_server, model, n_parallel=n_parallel, max_context=context
        )
    if peer.startswith("llama-") and arguments.llama_server:
        slots = int(peer.removeprefix("llama-"))
        return llama_server(arguments.llama_server, model, n_parallel=slots, max_context=context)
    sys.exit(f"peer {peer}: unknown, or an option is missing that it needs (--llama-server, --example-*, --url)")


@contextmanager
def _elsewhere(arguments: argparse.Namespace) -> Iterator[Server]:
    yield Server(arguments.url, arguments.url, arguments.url_key, arguments.url_model)


def _report(found: Found) -> None:
    print(f"\nmedians; load average {os.getloadavg()[0]:.1f}")
    for name, by_peer in found.items():
        peers = list(by_peer)
        print(f"\n{name:30}" + "".join(f"{peer:>12}" for peer in peers) + f"{'ratio':>9}{'to oracle':>11}")
        for key in by_peer[peers[0]][0]:
            medians = {
                peer: statistics.median(figures[key] for figures in runs)
                for peer, runs in by_peer.items()
                if key in runs[0]
            }
            print(f"  {key:28}" + "".join(_cell(medians.get(peer)) for peer in peers) + _ratios(key, medians))


def _cell(median: float | None) -> str:
    return " " * 12 if median is None else f"{median:12.2f}"


def _ratios(key: str, medians: dict[str, float]) -> str:
    first, *rest = medians
    others = [medians[peer] for peer in rest if peer != ORACLE]
    best = (max if key.endswith(("per_s", "share")) else min)(others, default=0.0)
    ratio = f"{medians[first] / best:9.2f}" if best else " " * 9
    return ratio + (f"{medians[first] / medians[ORACLE]:11.2f}" if ORACLE in medians and first != ORACLE else "")


if __name__ == "__main__":
    main()
