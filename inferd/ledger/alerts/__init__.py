"""Alerts and events, and their deliveries to webhooks."""

from inferd.ledger.alerts.alerts import Alert, alert_text
from inferd.ledger.alerts.deliveries import AlertState, Delivery, Outbox, PlanDeliveries, RecordDelivery, alert_states
from inferd.ledger.alerts.events import Event, record_event

__all__ = [
    "Alert",
    "AlertState",
    "Delivery",
    "Event",
    "Outbox",
    "PlanDeliveries",
    "RecordDelivery",
    "alert_states",
    "alert_text",
    "record_event",
]
