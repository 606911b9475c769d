"""`scripts/bench serve`: inferd against llama-server, alternately, medians and ratios."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path

from scripts.benchmarks.kernel import demo_model
from scripts.benchmarks.servers import Server, inferd, llama_server
from scripts.benchmarks.workloads import WORKLOADS, Figures, Load


def main() -> None:
    arguments = _arguments()
    model = arguments.model or demo_model()
    names = arguments.workloads or list(WORKLOADS)
    found: dict[str, dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(arguments.repeats):
        for name in names:
            for peer in arguments.peers:
                with _server(peer, arguments.llama_server, model, arguments.parallel, arguments.context) as server:
                    asyncio.run(WORKLOADS["short-during-prefill"](Load(server))) if arguments.warm else None
                    figures = asyncio.run(WORKLOADS[name](Load(server)))
                found[name][peer].append(figures)
                shown = "  ".join(f"{key} {value:.2f}" for key, value in figures.items())
                print(f"[{repeat + 1}/{arguments.repeats}] {name:20} {peer:10} {shown}", flush=True)
    _report(found, arguments.peers)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench serve", description=__doc__)
    parser.add_argument("workloads", nargs="*", help="default: all")
    parser.add_argument("--peers", nargs="+", default=["inferd"], help="inferd, llama-8, llama-16")
    parser.add_argument("--llama-server", type=Path, help="its binary, built from the same llama.cpp")
    parser.add_argument("--model", type=Path, help="GGUF; default: the demo model")
    parser.add_argument("--parallel", type=int, default=16, help="inferd's n_parallel")
    parser.add_argument("--context", type=int, default=4096, help="tokens a sequence")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm", action="store_true", help="one unmeasured load first")
    parser.add_argument("--json", type=Path, help="write every figure here")
    return parser.parse_args()


def _server(
    peer: str, binary: Path | None, model: Path, n_parallel: int, context: int
) -> AbstractContextManager[Server]:
    if peer == "inferd":
        return inferd(model, n_parallel=n_parallel, max_context=context, host_cache_mib=4096)
    if binary is None:
        sys.exit("--llama-server names its binary")
    return llama_server(binary, model, n_parallel=int(peer.removeprefix("llama-")), max_context=context)


def _report(found: dict[str, dict[str, list[Figures]]], peers: list[str]) -> None:
    print(f"\n{'workload':22}{'figure':30}" + "".join(f"{peer:>14}" for peer in peers) + f"{'ratio':>10}")
    for name, by_peer in found.items():
        for key in next(iter(by_peer.values()))[0]:
            medians = [statistics.median(figures[key] for figures in by_peer[peer]) for peer in peers]
            others = medians[1:]
            higher = key.endswith(("per_s", "share"))
            best = (max(others) if higher else min(others)) if others else 0.0
            ratio = f"{medians[0] / best:10.2f}" if best else ""
            print(f"{name:22}{key:30}" + "".join(f"{median:14.2f}" for median in medians) + ratio)


if __name__ == "__main__":
    main()
