"""Operations on the ledger, by the nouns of the command line and the admin API, which both call them.

Each takes a connection and runs in the caller's transaction: a writing one in `Store.immediate` or
`LedgerClient.change`, a reading one in `Store.reading` or `LedgerClient.read`. `actor` names the author of a change,
such as `cli:alice`; `now_ms` is its time, in ms since 1970. A mistake raises an OperationError and changes nothing.
"""

from inferd.ledger.operations.audit_log import MAX_ENTRIES, LogEntry, details_text, read_log
from inferd.ledger.operations.batches import (
    cancel_batch,
    check_room,
    create_batch,
    create_file,
    delete_file,
    list_batches,
    list_files,
    new_file_id,
)
from inferd.ledger.operations.budgets import list_budgets, raise_caps, remove_budget, set_budget
from inferd.ledger.operations.credits import (
    grant_credit,
    list_grants,
    refund_request,
    show_credit,
    void_grant,
    withdraw_credit,
)
from inferd.ledger.operations.keys import create_key, list_keys, revoke_key
from inferd.ledger.operations.members import (
    create_project,
    create_user,
    list_projects,
    list_users,
    set_project_concurrency,
    set_user_concurrency,
)
from inferd.ledger.operations.plans import apply_plans, show_plans
from inferd.ledger.operations.statements import list_statements, pay_statement, show_statement
from inferd.ledger.operations.suspensions import (
    resume_key,
    resume_project,
    resume_team,
    resume_user,
    suspend_key,
    suspend_project,
    suspend_team,
    suspend_user,
)
from inferd.ledger.operations.teams import (
    Limits,
    TeamDetails,
    create_team,
    ensure_default_team,
    list_teams,
    set_team,
    show_limits,
    show_team,
)

__all__ = [
    "MAX_ENTRIES",
    "Limits",
    "LogEntry",
    "TeamDetails",
    "apply_plans",
    "cancel_batch",
    "check_room",
    "create_batch",
    "create_file",
    "create_key",
    "create_project",
    "create_team",
    "create_user",
    "delete_file",
    "details_text",
    "ensure_default_team",
    "grant_credit",
    "list_batches",
    "list_budgets",
    "list_files",
    "list_grants",
    "list_keys",
    "list_projects",
    "list_statements",
    "list_teams",
    "list_users",
    "new_file_id",
    "pay_statement",
    "raise_caps",
    "read_log",
    "refund_request",
    "remove_budget",
    "resume_key",
    "resume_project",
    "resume_team",
    "resume_user",
    "revoke_key",
    "set_budget",
    "set_project_concurrency",
    "set_team",
    "set_user_concurrency",
    "show_credit",
    "show_limits",
    "show_plans",
    "show_statement",
    "show_team",
    "suspend_key",
    "suspend_project",
    "suspend_team",
    "suspend_user",
    "void_grant",
    "withdraw_credit",
]
