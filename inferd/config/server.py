"""`[server]` of models.toml: who may reach the server, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

from inferd.config.model_source import resolve_path
from inferd.config.toml_table import TomlTable
from inferd.errors import ConfigError

Network: TypeAlias = IPv4Network | IPv6Network

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "server": (
        "hosts",
        "trusted_proxies",
        "tls_certificate",
        "tls_key",
        "cors_origins",
        "strict",
        "country_database",
        "allow_countries",
        "deny_countries",
        "allow_networks",
        "deny_networks",
    ),
}

_T = TypeVar("_T")
_COUNTRY = re.compile(r"[A-Z]{2}")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")


@dataclass(frozen=True)
class RegionsConfig:
    """From where the server may be called. Addresses are those of clients, behind trusted proxies too.

    Attributes:
        country_database: a MaxMind database of countries; there is one if a list of countries is not empty.
        allow_countries, deny_countries: ISO 3166-1 alpha-2 codes.
    """

    country_database: Path | None = None
    allow_countries: frozenset[str] = frozenset()
    deny_countries: frozenset[str] = frozenset()
    allow_networks: tuple[Network, ...] = ()
    deny_networks: tuple[Network, ...] = ()


@dataclass(frozen=True)
class ServerConfig:
    """The sockets' side of models.toml.

    Attributes:
        hosts: names, in lower case, that clients may call the server by, beside loopback's and the bound one.
        trusted_proxies: whose `X-Forwarded-For` is believed.
        tls_certificate, tls_key: PEM files; both or neither. The certificate's file may hold the key too.
        cors_origins: whose web pages may call the server; `*` is every page.
        strict: requests with a field that would be ignored or degraded are refused.
    """

    hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    cors_origins: tuple[str, ...] = ()
    regions: RegionsConfig = RegionsConfig()
    strict: bool = False


def server_config(path: Path, values: object) -> ServerConfig:
    """Raises ConfigError."""
    table = TomlTable(path, "server", "", values, SETTINGS["server"])
    certificate, key = _file(table, "tls_certificate"), _file(table, "tls_key")
    if key is not None and certificate is None:
        raise table.error("tls_key", "is of no use without tls_certificate")
    return ServerConfig(
        hosts=_each(table, "hosts", _host),
        trusted_proxies=_each(table, "trusted_proxies", _network),
        tls_certificate=certificate,
        tls_key=key,
        cors_origins=_each(table, "cors_origins", _origin),
        strict=table.get("strict", bool) or False,
        regions=_regions(table),
    )


def _regions(table: TomlTable) -> RegionsConfig:
    database = _file(table, "country_database")
    regions = RegionsConfig(
        country_database=database,
        allow_countries=frozenset(_each(table, "allow_countries", _country)),
        deny_countries=frozenset(_each(table, "deny_countries", _country)),
        allow_networks=_each(table, "allow_networks", _network),
        deny_networks=_each(table, "deny_networks", _network),
    )
    lists = [key for key in ("allow_countries", "deny_countries") if getattr(regions, key)]
    if lists and database is None:
        raise table.error(lists[0], "needs country_database, the file that knows where an address is")
    if database is not None and not lists:
        raise table.error("country_database", "is of no use without allow_countries or deny_countries")
    both = regions.allow_countries & regions.deny_countries
    if both:
        raise table.error("deny_countries", f"{', '.join(sorted(both))} is in allow_countries too")
    return regions


def _file(table: TomlTable, key: str) -> Path | None:
    text = table.get(key, str)
    if text is None:
        return None
    try:
        return resolve_path(text, table.path.absolute().parent)
    except ConfigError as error:
        raise table.error(key, error.message) from error


def _each(table: TomlTable, key: str, read: Callable[[str], _T]) -> tuple[_T, ...]:
    """The strings of a list, each through `read`, which raises ValueError with what is wrong about one."""
    found = []
    for text in table.items(key, str, ()):
        try:
            found.append(read(text))
        except ValueError as error:
            raise table.error(key, f"{text!r}: {error}") from error
    return tuple(found)


def _host(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not _HOST_NAME.fullmatch(name):
        raise ValueError("write a host's name, such as ai.example.org, without scheme and port")
    return name


def _network(text: str) -> Network:
    """`10.0.0.0/8`, or one address. ip_network's own words name bits that are set beyond the mask."""
    return ip_network(text)


def _country(text: str) -> str:
    if not _COUNTRY.fullmatch(text):
        raise ValueError("write ISO 3166-1's two capital letters, such as DE")
    return text


def _origin(text: str) -> str:
    """As a browser sends it: scheme, host and port, nothing behind them."""
    parts = urlsplit(text)
    if text != "*" and (parts.scheme not in ("http", "https") or text != f"{parts.scheme}://{parts.netloc.lower()}"):
        raise ValueError("write an origin, such as https://chat.example.org, or *")
    return text
