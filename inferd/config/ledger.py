"""`[ledger]` and `[alerts]` of models.toml: how the books are kept, and who is told when money runs out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from inferd.config.toml_table import TomlTable
from inferd.plans import AlertPolicy

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "ledger": ("contact", "usage_retention_days"),
    "alerts": (
        "webhooks",
        "webhook_secret",
        "allow_private_addresses",
        "thresholds_percent",
        "low_balance_percent",
    ),
}
"""Each top-level table of models.toml that is one table, and its keys."""

# A request can be refunded for so long, so its usage row stays at least as long.
RETENTION_DAYS_MIN = 60
SECRET_PREFIX = "whsec_"
_SECRET_BYTES = (24, 64)


@dataclass(frozen=True)
class LedgerConfig:
    """How the books are kept.

    Attributes:
        contact: whom teams of plan enterprise are sent to when their credit is used up; None: nobody is named.
        usage_retention_days: after so many days usage rows are added up by the day; None: they are kept.
    """

    contact: str | None = None
    usage_retention_days: int | None = None


@dataclass(frozen=True)
class AlertsConfig:
    """Whom to alert; when is `AlertPolicy`.

    Attributes:
        webhooks: URLs, https, or http to this machine itself.
        webhook_secret: the key that signs deliveries; there is one if there are webhooks.
        allow_private_addresses: whether a webhook's host may have an address of a private network.
    """

    webhooks: tuple[str, ...] = ()
    webhook_secret: bytes = b""
    allow_private_addresses: bool = False


def ledger_config(path: Path, values: object) -> LedgerConfig:
    """Raises ConfigError."""
    table = TomlTable(path, "ledger", "", values, SETTINGS["ledger"])
    contact = table.get("contact", str)
    if contact is not None and not (0 < len(contact) <= 200 and contact.isprintable()):
        raise table.error("contact", "must be 1 to 200 printable characters")
    return LedgerConfig(contact, table.integer("usage_retention_days", None, RETENTION_DAYS_MIN, 36_500))


def alert_policy(path: Path, values: object) -> AlertPolicy:
    """When to alert, for who delivers no alerts and has no secret. Raises ConfigError."""
    table = TomlTable(path, "alerts", "", values, SETTINGS["alerts"])
    shipped = AlertPolicy()
    thresholds = table.items("thresholds_percent", int, shipped.thresholds_percent)
    if not all(1 <= percent <= 100 for percent in thresholds) or list(thresholds) != sorted(set(thresholds)):
        raise table.error("thresholds_percent", "must be different integers of 1 to 100, ascending")
    return AlertPolicy(thresholds, table.integer("low_balance_percent", shipped.low_balance_percent, 0, 100))


def alerts_config(path: Path, values: object) -> AlertsConfig:
    """Raises ConfigError."""
    table = TomlTable(path, "alerts", "", values, SETTINGS["alerts"])
    webhooks = table.items("webhooks", str, ())
    for url in webhooks:
        fault = _url_fault(url)
        if fault is not None:
            raise table.error("webhooks", f"{url}: {fault}")
    if len(set(webhooks)) < len(webhooks):
        raise table.error("webhooks", "names a URL twice")
    secret = _secret(table)
    if webhooks and not secret:
        raise table.error("webhook_secret", f"is missing: {_SECRET_HELP}")
    return AlertsConfig(
        webhooks=webhooks,
        webhook_secret=secret,
        allow_private_addresses=table.get("allow_private_addresses", bool) or False,
    )


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
    # The secret itself is not repeated: errors are shown and logged.
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
