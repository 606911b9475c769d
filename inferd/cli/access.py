"""Access to the ledger from the command line: which one, and on whose behalf."""

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
    """The ledger that `--data-dir` (or its default) names, beside a running server or without one.

    Args:
        creates: make an empty ledger in a folder without one: for a command that a new ledger may begin with.

    Raises:
        OperationError: there is none.
        ConfigError: it cannot be used.
    """
    from inferd.ledger.storage.data_dir import FILE_NAME
    from inferd.ledger.storage.store import Store

    folder = data_dir(option)
    if not (creates or folder.is_file() or (folder / FILE_NAME).exists()):
        raise OperationError(
            f"{folder}: there is no {FILE_NAME} here; name its folder with --data-dir or $INFERD_DATA_DIR. "
            "`inferd serve` and `inferd teams create` make one"
        )
    return Store(folder)


def actor() -> str:
    """Who asks, as the ledger writes it down: `cli:alice`; where the user has no name, its number."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"
