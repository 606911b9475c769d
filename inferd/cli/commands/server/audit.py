"""`inferd audit`: do the books add up?"""

from __future__ import annotations

from dataclasses import asdict

from inferd.cli.access import open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import print_json, print_table, say
from inferd.errors import OperationError


def audit(json: Json = False, data_dir: DataDir = None) -> None:
    """Check that the books balance.

    Adds up the whole ledger again and compares it with every stored sum, row and rule. Reads one moment's truth, beside
    a running server too: a large ledger from a copy of it, if the disk has room. Exit status 0: the books balance.
    Exit status 1: they do not, and each difference is printed as table, row and what is wrong with it.

    ```console
    $ inferd audit
    ```
    """
    from inferd.ledger.audit.audit import audit as audit_ledger

    store = open_store(data_dir)
    with store.reading_long() as conn:
        report = audit_ledger(conn)
    if json:
        print_json(
            {"clean": report.clean, "rows": report.rows, "findings": [asdict(finding) for finding in report.findings]}
        )
    elif report.clean:
        say(f"The books balance: {store.path}", "")
        print_table(("Table", "Rows checked"), report.rows.items(), right=("Rows checked",))
    else:
        say(*map(str, report.findings))
    if not report.clean:
        count = len(report.findings)
        raise OperationError(
            f"{store.path}: the books do not balance, {count} difference{'s' if count > 1 else ''} found"
        )
