"""JSON of credit, grants, refunds and statements, and of a team with its credit; see `records`."""

from __future__ import annotations

from inferd.instants import format_instant
from inferd.ledger.credit.balance import Credit
from inferd.ledger.credit.grants import Grant
from inferd.ledger.credit.refunds import Refund
from inferd.ledger.credit.statements import Statement, StatementLine
from inferd.ledger.operations.credits import Void, Withdrawal
from inferd.ledger.operations.statements import Payment
from inferd.ledger.operations.teams import TeamDetails
from inferd.ledger.reports.records import Record, instant, key_record, member_record, team_record
from inferd.money import format_usd


def team_details_record(details: TeamDetails, now_ms: int) -> Record:
    """Return a team with its members, keys and credit."""
    return team_record(details.team, details.suspended) | {
        "projects": [member_record(project, details.suspended) for project in details.projects],
        "users": [member_record(user, details.suspended) for user in details.users],
        "keys": [key_record(key, now_ms) for key in details.keys],
        "credit": credit_record(details.credit),
    }


def credit_record(credit: Credit) -> Record:
    """Return a team's credit."""
    return {
        "team": credit.team,
        "balance_usd": format_usd(credit.balance_nanousd),
        "held_usd": format_usd(credit.held_nanousd),
        "available_usd": format_usd(credit.available_nanousd),
        "owed_usd": format_usd(credit.owed_nanousd),
        "overage": credit.overage,
    }


def grant_record(grant: Grant) -> Record:
    """Return a grant as it was made."""
    return {
        "grant_id": grant.grant_id,
        "team": grant.team,
        "kind": grant.kind,
        "amount_usd": format_usd(grant.amount_nanousd),
        "priority": grant.priority,
        "expires_at": instant(grant.expires_at_ms),
        "note": grant.note,
        "created_at": format_instant(grant.created_at_ms),
        "created_by": grant.created_by,
    }


def grant_state_record(grant: Grant) -> Record:
    """Return a grant as it is now."""
    return {
        "grant_id": grant.grant_id,
        "team": grant.team,
        "kind": grant.kind,
        "priority": grant.priority,
        "amount_usd": format_usd(grant.amount_nanousd),
        "remaining_usd": format_usd(grant.remaining_nanousd),
        "expires_at": instant(grant.expires_at_ms),
        "note": grant.note,
        "state": grant.state,
    }


def refund_record(refund: Refund) -> Record:
    """Return a refund of a request."""
    return {
        "txn": refund.txn,
        "request_id": refund.request_id,
        "team": refund.team,
        "refunded_usd": format_usd(refund.amount_nanousd),
        "left_usd": format_usd(refund.left_nanousd),
    }


def withdrawal_record(withdrawal: Withdrawal) -> Record:
    """Return a withdrawal of paid credit."""
    return {
        "txn": withdrawal.txn,
        "team": withdrawal.team,
        "withdrawn_usd": format_usd(withdrawal.amount_nanousd),
    }


def void_record(void: Void) -> Record:
    """Return a void of a grant."""
    return {"grant_id": void.grant_id, "team": void.team, "voided_usd": format_usd(void.amount_nanousd)}


def statement_record(statement: Statement, now_ms: int) -> Record:
    """Return a month's statement."""
    return {
        "team": statement.team,
        "period": statement.period,
        "state": statement.state(now_ms),
        "charged_usd": format_usd(statement.charged_nanousd),
        "refunded_usd": format_usd(statement.refunded_nanousd),
        "paid_usd": format_usd(statement.paid_nanousd),
        "due_usd": format_usd(statement.due_nanousd),
    }


def statement_line_record(line: StatementLine) -> Record:
    """Return the part of a statement that one deployment has."""
    return {
        "deployment": line.deployment,
        "requests": line.requests,
        "prompt_tokens": line.prompt_tokens,
        "cached_tokens": line.cached_tokens,
        "completion_tokens": line.completion_tokens,
        "cost_usd": format_usd(line.cost_nanousd),
        "refunded_usd": format_usd(line.refunded_nanousd),
        "net_usd": format_usd(line.net_nanousd),
    }


def payment_record(payment: Payment) -> Record:
    """Return a payment on a statement."""
    return {
        "txn": payment.txn,
        "team": payment.team,
        "period": payment.period,
        "paid_usd": format_usd(payment.amount_nanousd),
        "raised_usd": format_usd(payment.raised_nanousd),
    }
