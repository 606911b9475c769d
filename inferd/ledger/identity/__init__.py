"""Teams, their members and keys: authentication of callers, and the rights of a key."""

from inferd.ledger.identity.authenticator import Authenticator, Caller, stand_in_fault
from inferd.ledger.identity.keys import Key, Scope, find_key, unknown_deployments
from inferd.ledger.identity.suspensions import Suspension
from inferd.ledger.identity.teams import MemberKind, find_team, user_name

__all__ = [
    "Authenticator",
    "Caller",
    "Key",
    "MemberKind",
    "Scope",
    "Suspension",
    "find_key",
    "find_team",
    "stand_in_fault",
    "unknown_deployments",
    "user_name",
]
