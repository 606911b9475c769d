"""`[ledger]` and `[alerts]` of models.toml."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from inferd.config.toml_table import TomlTable
from inferd.plans import AlertPolicy

LEDGER_KEYS = ("contact", "usage_retention_days")
ALERTS_KEYS = (
    "webhooks",
    "event_webhooks",
    "webhook_secret",
    "allow_private_addresses",
    "thresholds_percent",
    "low_balance_percent",
)

# A request can be refunded for 60 days, which needs its usage row.
MIN_RETENTION_DAYS = 60
_MAX_RETENTION_DAYS = 36_500
_MAX_CONTACT_CHARACTERS = 200
SECRET_PREFIX = "whsec_"
_SECRET_BYTES = (24, 64)


@dataclass(frozen=True)
class LedgerConfig:
    """Settings of the ledger.

    Attributes:
        contact: contact for teams with overage `contact` when their credit is used up.
        usage_retention_days: age in days at which usage rows are rolled up into daily rows; None: never.
    """

    contact: str | None = None
    usage_retention_days: int | None = None


@dataclass(frozen=True)
class AlertsConfig:
    """Delivery of alerts. `AlertPolicy` says when there is an alert.

    Attributes:
        webhooks: URLs that get alerts, https, or http to this machine.
        event_webhooks: URLs that get the ends of batches and of responses in the background.
        webhook_secret: key that signs deliveries; not empty if there are webhooks of either kind.
        allow_private_addresses: whether the host of a webhook may have an address of a private network.
    """

    webhooks: tuple[str, ...] = ()
    webhook_secret: bytes = b""
    allow_private_addresses: bool = False
    event_webhooks: tuple[str, ...] = ()


def ledger_config(path: Path, values: object) -> LedgerConfig:
    """Return `[ledger]`. Raises ConfigError."""
    table = TomlTable(path, "ledger", "", values, LEDGER_KEYS)
    contact = table.get("contact", str)
    if contact is not None and not (0 < len(contact) <= _MAX_CONTACT_CHARACTERS and contact.isprintable()):
        raise table.error("contact", f"must have 1 to {_MAX_CONTACT_CHARACTERS} printable characters")
    retention_days = table.integer("usage_retention_days", None, MIN_RETENTION_DAYS, _MAX_RETENTION_DAYS)
    return LedgerConfig(contact, retention_days)


def alert_policy(path: Path, values: object) -> AlertPolicy:
    """Return when there are alerts, by `[alerts]`; needs no webhook and no secret. Raises ConfigError."""
    table = TomlTable(path, "alerts", "", values, ALERTS_KEYS)
    shipped = AlertPolicy()
    thresholds = table.items("thresholds_percent", int, shipped.thresholds_percent)
    if not all(1 <= percent <= 100 for percent in thresholds) or list(thresholds) != sorted(set(thresholds)):
        raise table.error(
            "thresholds_percent", f"must be different integers from 1 to 100, ascending, got {[*thresholds]}"
        )
    return AlertPolicy(thresholds, table.integer("low_balance_percent", shipped.low_balance_percent, 0, 100))


def alerts_config(path: Path, values: object) -> AlertsConfig:
    """Return how alerts are delivered, by `[alerts]`. Raises ConfigError."""
    table = TomlTable(path, "alerts", "", values, ALERTS_KEYS)
    webhooks, event_webhooks = _urls(table, "webhooks"), _urls(table, "event_webhooks")
    secret = _secret(table)
    if (webhooks or event_webhooks) and not secret:
        raise table.error("webhook_secret", f"is missing: {_SECRET_HELP}")
    return AlertsConfig(
        webhooks=webhooks,
        event_webhooks=event_webhooks,
        webhook_secret=secret,
        allow_private_addresses=table.get("allow_private_addresses", bool) or False,
    )


def _urls(table: TomlTable, key: str) -> tuple[str, ...]:
    urls = table.items(key, str, ())
    for url in urls:
        fault = _url_fault(url)
        if fault is not None:
            raise table.error(key, f"{url}: {fault}")
    if len(set(urls)) < len(urls):
        raise table.error(key, "lists a URL twice; remove one")
    return urls


_SECRET_HELP = (
    f"write {SECRET_PREFIX} and the base64 of {_SECRET_BYTES[0]} to {_SECRET_BYTES[1]} random bytes "
    f'(echo "{SECRET_PREFIX}$(head -c 32 /dev/urandom | base64)" makes one)'
)


def _secret(table: TomlTable) -> bytes:
    text = table.get("webhook_secret", str)
    if text is None:
        return b""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    # The message does not repeat the secret, as errors are printed and logged.
    if not text.startswith(SECRET_PREFIX) or not _SECRET_BYTES[0] <= len(secret) <= _SECRET_BYTES[1]:
        raise table.error("webhook_secret", _SECRET_HELP)
    return secret


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return "must have a host, and neither a user nor a fragment"
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        return "must be https; http only to localhost, 127.0.0.1 or [::1]"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
