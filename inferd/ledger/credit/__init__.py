"""Credit: accounts, grants, refunds, statements."""

from inferd.ledger.credit.balance import Credit, caps_below_balance
from inferd.ledger.credit.grants import ExpireGrants, expired_between
from inferd.ledger.credit.statements import Statement, StatementLine

__all__ = ["Credit", "ExpireGrants", "Statement", "StatementLine", "caps_below_balance", "expired_between"]
