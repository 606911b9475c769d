"""Credit: accounts, grants, refunds, statements."""

from inferd.ledger.credit.balance import Credit, caps_below_balance
from inferd.ledger.credit.grants import ExpireGrants, Grant, expired_between
from inferd.ledger.credit.statements import Statement, StatementLine

__all__ = ["Credit", "ExpireGrants", "Grant", "Statement", "StatementLine", "caps_below_balance", "expired_between"]
