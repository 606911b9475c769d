"""Access of a command to the ledger."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.config.models_file import data_dir
from inferd.errors import OperationError

if TYPE_CHECKING:
    from inferd.ledger.storage.store import Store


def open_store(option: Path | None, *, creates: bool = False) -> Store:
    """Return the ledger in the folder of `--data-dir` or its default. A server may run on it.

    Args:
        creates: whether to create a ledger in a folder without one.

    Raises:
        OperationError: there is no ledger.
        ConfigError: the ledger or its folder cannot be used.
    """
    from inferd.ledger.storage.data_dir import FILE_NAME
    from inferd.ledger.storage.store import Store

    folder = data_dir(option)
    if not (creates or folder.is_file() or (folder / FILE_NAME).exists()):
        raise OperationError(
            f"{folder}: there is no {FILE_NAME} here; name its folder with --data-dir or $INFERD_DATA_DIR, or create "
            "one with `inferd serve` or `inferd teams create`"
        )
    return Store(folder)


def actor() -> str:
    """Return the actor for the audit log: `cli:alice`, or `cli:1000` if the user of the process has no name."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"
