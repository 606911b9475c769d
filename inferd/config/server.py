"""`[server]` of models.toml: access to the server over the network."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

from inferd.config.toml_table import TomlTable

Network: TypeAlias = IPv4Network | IPv6Network

SERVER_KEYS = (
    "hosts",
    "trusted_proxies",
    "tls_certificate",
    "tls_key",
    "cors_origins",
    "strict",
    "keyless",
    "user_headers",
    "strip_attribution",
    "responses_days",
    "country_database",
    "allow_countries",
    "deny_countries",
    "allow_networks",
    "deny_networks",
)

MAX_RESPONSES_DAYS = 3650
USER_HEADERS = ("inferd-user", "x-openwebui-user-email", "x-openwebui-user-id")
_SECRET_HEADERS = ("authorization", "proxy-authorization", "x-api-key", "cookie")
_T = TypeVar("_T")
_KEY_ID = re.compile(r"[0-9A-Za-z]{12}")
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")


@dataclass(frozen=True)
class RegionsConfig:
    """Countries and networks that may call the server, by the client's address, also behind trusted proxies.

    Attributes:
        country_database: MaxMind database of countries; set if a list of countries is not empty.
        allow_countries, deny_countries: ISO 3166-1 alpha-2 codes.
    """

    country_database: Path | None = None
    allow_countries: frozenset[str] = frozenset()
    deny_countries: frozenset[str] = frozenset()
    allow_networks: tuple[Network, ...] = ()
    deny_networks: tuple[Network, ...] = ()


@dataclass(frozen=True)
class ServerConfig:
    """Settings of the HTTP server.

    Attributes:
        hosts: names of the server in lower case, besides localhost and `--host`.
        trusted_proxies: networks of the proxies whose `X-Forwarded-For` is used.
        tls_certificate, tls_key: PEM files. The file of the certificate may hold the key too.
        cors_origins: origins of web pages that may call the server; `*` is any origin.
        strict: whether a request with a field that would be ignored or degraded is refused.
        keyless: id of the key that requests of this machine without a key act as; None: every request needs a key.
        user_headers: headers, in lower case, by which a request with a trusted key names its user; the first that is
            not empty counts.
        strip_attribution: whether a first line of the system prompt for the client's own accounting is left out.
        responses_days: for how many days responses are kept; 0: none is stored.
    """

    hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    cors_origins: tuple[str, ...] = ()
    regions: RegionsConfig = RegionsConfig()
    strict: bool = False
    keyless: str | None = None
    user_headers: tuple[str, ...] = USER_HEADERS
    strip_attribution: bool = True
    responses_days: int = 0


def server_config(path: Path, values: object) -> ServerConfig:
    """Return `[server]`. Raises ConfigError."""
    table = TomlTable(path, "server", "", values, SERVER_KEYS)
    certificate, key = table.file("tls_certificate"), table.file("tls_key")
    if key is not None and certificate is None:
        raise table.error("tls_key", "needs tls_certificate")
    config = ServerConfig(
        hosts=_each(table, "hosts", _host),
        trusted_proxies=_each(table, "trusted_proxies", _network),
        tls_certificate=certificate,
        tls_key=key,
        cors_origins=_each(table, "cors_origins", _origin),
        strict=table.get("strict", bool) or False,
        keyless=table.get("keyless", str),
        user_headers=_each(table, "user_headers", _header, USER_HEADERS),
        strip_attribution=table.get("strip_attribution", bool) is not False,
        responses_days=table.integer("responses_days", 0, 0, MAX_RESPONSES_DAYS),
        regions=_regions(table),
    )
    _check_keyless(table, config)
    return config


def _check_keyless(table: TomlTable, config: ServerConfig) -> None:
    """Raise ConfigError if strangers could send requests without a key."""
    if config.keyless is None:
        return
    if not _KEY_ID.fullmatch(config.keyless):
        # Never the value itself: a whole key stays secret.
        raise table.error("keyless", "expected the id of a key, 12 letters and digits, as `inferd keys list` shows it")
    if config.trusted_proxies:
        raise table.error(
            "keyless", "excludes trusted_proxies: behind a proxy every client could send requests without a key"
        )
    if "*" in config.cors_origins:
        raise table.error(
            "keyless", 'excludes "*" in cors_origins: every web page could send requests without a key; name the pages'
        )


def _regions(table: TomlTable) -> RegionsConfig:
    database = table.file("country_database")
    regions = RegionsConfig(
        country_database=database,
        allow_countries=frozenset(_each(table, "allow_countries", _country)),
        deny_countries=frozenset(_each(table, "deny_countries", _country)),
        allow_networks=_each(table, "allow_networks", _network),
        deny_networks=_each(table, "deny_networks", _network),
    )
    lists = [key for key in ("allow_countries", "deny_countries") if getattr(regions, key)]
    if lists and database is None:
        raise table.error(lists[0], "needs country_database, a MaxMind database of countries")
    if database is not None and not lists:
        raise table.error("country_database", "needs allow_countries or deny_countries")
    both = regions.allow_countries & regions.deny_countries
    if both:
        raise table.error("deny_countries", f"{', '.join(sorted(both))} is in allow_countries too; remove it from one")
    return regions


def _each(table: TomlTable, key: str, read: Callable[[str], _T], default: tuple[str, ...] = ()) -> tuple[_T, ...]:
    """Return the strings of a list, or of `default` without one, each converted by `read`, which raises ValueError with
    the fault of a string."""
    found = []
    for text in table.items(key, str, default):
        try:
            found.append(read(text))
        except ValueError as error:
            raise table.error(key, f"{text!r}: {error}") from error
    return tuple(found)


def _host(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not _HOST_NAME.fullmatch(name):
        raise ValueError("write a host name such as ai.example.org, without scheme and port")
    return name


def _header(text: str) -> str:
    name = text.lower()
    if not _HEADER.fullmatch(name):
        raise ValueError("write the name of a header, such as x-forwarded-email")
    if name in _SECRET_HEADERS:
        raise ValueError("this header has a secret, which would be in reports as the name of a user")
    return name


def _network(text: str) -> Network:
    """Return the network of `10.0.0.0/8`, or of one address."""
    return ip_network(text)


def _country(text: str) -> str:
    if not _COUNTRY.fullmatch(text):
        raise ValueError("write the two capital letters of ISO 3166-1, such as DE")
    return text


def _origin(text: str) -> str:
    """Return an origin as browsers send it: scheme, host and port. Desktop apps have schemes of their own."""
    parts = urlsplit(text)
    if text != "*" and (not parts.scheme or not parts.netloc or text != f"{parts.scheme}://{parts.netloc.lower()}"):
        raise ValueError("write an origin, such as https://chat.example.org, or *")
    return text
