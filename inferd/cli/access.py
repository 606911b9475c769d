"""Access of a command to the ledger."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.config import data_dir
from inferd.errors import OperationError
from inferd.server.transport.local_socket import ANSWER_TIMEOUT_S, actor_of, ask_server

if TYPE_CHECKING:
    from inferd.ledger import Store
    from inferd.ledger.operations import Author


def open_store(option: Path | None, *, creates: bool = False) -> Store:
    """Return the ledger in the folder of `--data-dir` or its default. A server may run on it.

    Args:
        creates: whether to create a ledger in a folder without one.

    Raises:
        OperationError: there is no ledger.
        ConfigError: the ledger or its folder cannot be used.
    """
    from inferd.ledger import FILE_NAME, Store

    folder = data_dir(option)
    if not (creates or folder.is_file() or (folder / FILE_NAME).exists()):
        raise OperationError(
            f"{folder}: there is no {FILE_NAME} here; name its folder with --data-dir or $INFERD_DATA_DIR, or create "
            "one with `inferd serve` or `inferd teams create`"
        )
    return Store(folder)


def author(now_ms: int) -> Author:
    """Return the author of a change: `cli:alice`, or `cli:1000` if the user of the process has no name."""
    from inferd.ledger.operations import Author

    return Author(actor_of(os.getuid()), now_ms)


def ask_running_server(option: Path | None, method: str, path: str) -> tuple[int, dict[str, Any]] | None:
    """Send a request to the server that runs on the data folder, and return status and JSON of its answer.

    None if no server can be reached: the command then works on the ledger alone.

    Raises:
        OperationError: the server refused, or did not answer in time.
    """
    folder = data_dir(option)
    try:
        answer = ask_server(folder, method, path)
    except TimeoutError as error:
        raise OperationError(
            f"the server on {folder} did not answer within {ANSWER_TIMEOUT_S:.0f} s; if that stays so, restart it"
        ) from error
    if answer is None:
        return None
    status, body = answer[0], json.loads(answer[1])
    if "error" in body:
        raise OperationError(body["error"]["message"])
    return status, body
