"""Operations on the ledger, by the nouns of the command line and the admin API, which both call them.

Each takes a connection and runs in the caller's transaction: a writing one in `Store.immediate` or
`LedgerClient.change`, a reading one in `Store.reading` or `LedgerClient.read`. `by` names the author of a change, such
as `cli:alice`, and its time. A mistake raises an OperationError and changes nothing.
"""

from inferd.ledger.batches.records import (
    FilePage,
    list_files,
)
from inferd.ledger.identity.keys import (
    KeyRequest,
)
from inferd.ledger.operations.audit_log import (
    MAX_ENTRIES,
    Author,
    LogEntry,
    LogQuery,
    details_text,
    read_log,
)
from inferd.ledger.operations.batches import (
    NewBatch,
    NewFile,
    cancel_batch,
    check_room,
    create_batch,
    create_file,
    delete_file,
    list_batches,
    new_file_id,
)
from inferd.ledger.operations.budgets import (
    BudgetOwner,
    NewRaise,
    list_budgets,
    raise_caps,
    remove_budget,
    set_budget,
)
from inferd.ledger.operations.credits import (
    NewGrant,
    grant_credit,
    list_grants,
    refund_request,
    show_credit,
    void_grant,
    withdraw_credit,
)
from inferd.ledger.operations.keys import (
    create_key,
    list_keys,
    revoke_key,
)
from inferd.ledger.operations.members import (
    check_user_room,
    create_member,
    list_members,
    make_named_user,
    member_concurrency,
    set_concurrency,
)
from inferd.ledger.operations.plans import (
    apply_plans,
    show_plans,
)
from inferd.ledger.operations.statements import (
    NewPayment,
    list_statements,
    pay_statement,
    show_statement,
)
from inferd.ledger.operations.suspensions import (
    SubjectKind,
    resume,
    suspend,
)
from inferd.ledger.operations.teams import (
    Limits,
    TeamChange,
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
    "Author",
    "BudgetOwner",
    "FilePage",
    "KeyRequest",
    "Limits",
    "LogEntry",
    "LogQuery",
    "NewBatch",
    "NewFile",
    "NewGrant",
    "NewPayment",
    "NewRaise",
    "SubjectKind",
    "TeamChange",
    "TeamDetails",
    "apply_plans",
    "cancel_batch",
    "check_room",
    "check_user_room",
    "create_batch",
    "create_file",
    "create_key",
    "create_member",
    "create_team",
    "delete_file",
    "details_text",
    "ensure_default_team",
    "grant_credit",
    "list_batches",
    "list_budgets",
    "list_files",
    "list_grants",
    "list_keys",
    "list_members",
    "list_statements",
    "list_teams",
    "make_named_user",
    "member_concurrency",
    "new_file_id",
    "pay_statement",
    "raise_caps",
    "read_log",
    "refund_request",
    "remove_budget",
    "resume",
    "revoke_key",
    "set_budget",
    "set_concurrency",
    "set_team",
    "show_credit",
    "show_limits",
    "show_plans",
    "show_statement",
    "show_team",
    "suspend",
    "void_grant",
    "withdraw_credit",
]
