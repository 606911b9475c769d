"""What the tests of the command line share: a way to call it, and a ledger with some requests in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from inferd.attribution import Attribution
from inferd.cli.main import main
from inferd.instants import parse_instant_ms
from inferd.ledger.requests.holds import OpenHold
from inferd.ledger.requests.settlement import SettleHold, VoidHold, begin_epoch
from inferd.ledger.requests.usage import RecordFree
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.price import Price
from inferd.usage import Usage

PRICE = Price(input_picousd=100_000, output_picousd=400_000)


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed; fails unless that is one JSON value and nothing else."""
        assert self.status == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="session", autouse=True)
def built_once() -> Iterator[None]:
    """typer builds all commands at each call, which takes longer than most of them run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", cache(get_command))
        yield


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def inferd(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`inferd(*words)` runs one command on the test's data folder, in this process."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        try:
            status = main([*words, "--data-dir", str(data_dir)])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = capsys.readouterr()
        return Ended(status, out, err)

    return run


@pytest.fixture
def new_ledger(data_dir: Path) -> None:
    """An empty ledger in the data folder, as `serve` makes one; most commands make none."""
    Store(data_dir)


@pytest.fixture
def serving(data_dir: Path) -> Iterator[Store]:
    """The ledger as a running server has it: it holds the lock of the data folder, and its epoch has begun."""
    with DataLock(data_dir) as lock:
        store = Store(data_dir, lock)
        begin_epoch(store, parse_instant_ms("2026-10-01"))
        yield store


@pytest.fixture
def used(serving: Store, inferd: Callable[..., Ended]) -> dict[str, str]:
    """Team acme (credit 5 + 10 USD) with four requests on 31 October and 1 November 2026, one of them still held.

    Returns the ids of its two keys, `first` and `second`.
    """
    inferd("teams", "create", "acme")
    inferd("credits", "grant", "acme", "10")
    keys = {name: inferd("keys", "create", "--team", "acme", "--json").json["id"] for name in ("first", "second")}
    october, november = parse_instant_ms("2026-10-31T23:59:59.999Z"), parse_instant_ms("2026-11-01")

    def held(request_id: str, key: str, admitted_at_ms: int) -> OpenHold:
        return OpenHold(
            request_id=request_id,
            attribution=Attribution("acme", "inference", None, keys[key], "local/paid", "default"),
            price=PRICE,
            prompt_tokens=100,
            max_completion_tokens=50,
            epoch=1,
            admitted_at_ms=admitted_at_ms,
        )

    free = RecordFree(
        request_id="req-free",
        attribution=Attribution("acme", "inference", None, keys["second"], "local/free", "default"),
        usage=Usage(prompt_tokens=9, completion_tokens=3, compute_ms=4),
        status="completed",
        admitted_at_ms=november + 2,
        finished_at_ms=november + 20,
    )
    settled = Usage(prompt_tokens=100, cached_tokens=20, completion_tokens=7, compute_ms=30)
    with serving.immediate() as conn:
        held("req-october", "first", october).apply(conn)
        SettleHold("req-october", settled, "completed", november, "stop").apply(conn)
        held("req-november", "first", november).apply(conn)
        VoidHold("req-november", "failed", november + 1).apply(conn)
        free.apply(conn)
        held("req-open", "second", november + 3).apply(conn)
    return keys


@pytest.fixture
def key(inferd: Callable[..., Ended]) -> dict[str, Any]:
    """A key of user alice, bound to project website of team acme."""
    inferd("teams", "create", "acme")
    inferd("projects", "create", "acme", "website")
    inferd("users", "create", "acme", "alice")
    words = ("--team", "acme", "--project", "website", "--user", "alice")
    return inferd("keys", "create", *words, "--json").json
