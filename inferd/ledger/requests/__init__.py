"""Requests: holds, their settlement, prices and usage rows."""

from inferd.ledger.requests.holds import AlertRefusal, Hold, OpenHold
from inferd.ledger.requests.settlement import SettleHold, Settlement, VoidHold, begin_epoch
from inferd.ledger.requests.usage import RecordFree, settled_cost_nanousd

__all__ = [
    "AlertRefusal",
    "Hold",
    "OpenHold",
    "RecordFree",
    "SettleHold",
    "Settlement",
    "VoidHold",
    "begin_epoch",
    "settled_cost_nanousd",
]
