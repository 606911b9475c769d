"""Alerts and their deliveries to webhooks."""

from inferd.ledger.alerts.alerts import Alert, alert_text
from inferd.ledger.alerts.deliveries import AlertState, Delivery, Outbox, PlanDeliveries, RecordDelivery, alert_states

__all__ = [
    "Alert",
    "AlertState",
    "Delivery",
    "Outbox",
    "PlanDeliveries",
    "RecordDelivery",
    "alert_states",
    "alert_text",
]
