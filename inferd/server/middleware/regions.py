"""Countries and networks from which the server may be called."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from inferd.config import RegionsConfig
from inferd.errors import ConfigError, PermissionDeniedError
from inferd.server.middleware.client_address import Address, is_within

MESSAGE = "Country, region, or territory not supported"
"""Weights & Biases' message, which its clients recognize."""

_NUM_SAMPLED = 10_000
"""Records of a database that are searched for a country before it is refused."""


class Regions:
    """Rules of the networks and countries that may call.

    The first list that holds an address decides: deny_networks, allow_networks, deny_countries, allow_countries. An
    address in none of them is refused if allow_countries is given, or allow_networks without any country.

    Args:
        country_of: returns the ISO 3166-1 alpha-2 code of an address, None if it is unknown.
    """

    def __init__(self, config: RegionsConfig, country_of: Callable[[Address], str | None]) -> None:
        self._config = config
        self._country_of = country_of
        self._default = not (config.allow_countries or (config.allow_networks and not config.deny_countries))

    @classmethod
    def open(cls, config: RegionsConfig) -> Regions:
        """Open the country database of `config`, if it names one. Raise ConfigError if the database cannot be used."""
        if config.country_database is None:
            return cls(config, lambda address: None)
        return cls(config, _open_database(config.country_database))

    def check(self, address: Address | None) -> None:
        """Raise PermissionDeniedError if the address may not call. None, an unknown address, is in no list."""
        if not self._permits(address):
            raise PermissionDeniedError(MESSAGE, code="unsupported_country_region_territory")

    def _permits(self, address: Address | None) -> bool:
        config = self._config
        if address is None:
            return self._default
        if is_within(address, config.deny_networks):
            return False
        if is_within(address, config.allow_networks):
            return True
        country = self._country_of(address)
        if country in config.deny_countries:
            return False
        return self._default or country in config.allow_countries


def _open_database(path: Path) -> Callable[[Address], str | None]:
    # The package is an optional extra, which only country rules need.
    try:
        import maxminddb
    except ModuleNotFoundError as error:
        raise ConfigError(
            "[server] country_database: the package maxminddb is missing; run `pip install 'inferd[regions]'`"
        ) from error
    try:
        reader = maxminddb.open_database(path)
        known = any(_country(record) for _, record in islice(reader, _NUM_SAMPLED))
    except (maxminddb.InvalidDatabaseError, OSError, ValueError) as error:
        raise ConfigError(
            f"[server] country_database: {path} is not a MaxMind database ({error}); give the path of one"
        ) from error
    if not known:
        raise ConfigError(
            f"[server] country_database: {path} ({reader.metadata().database_type}) has no countries; "
            "use GeoLite2-Country or another database with country.iso_code"
        )
    return lambda address: _country(reader.get(address))


def _country(record: object) -> str | None:
    """Return the country of a GeoIP2 record: where the address is used, else where it is registered."""
    for field in ("country", "registered_country"):
        country = record.get(field) if isinstance(record, dict) else None
        if isinstance(country, dict) and isinstance(country.get("iso_code"), str):
            return str(country["iso_code"])
    return None
