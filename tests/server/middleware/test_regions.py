"""Countries and networks that may call, with a real database of a few networks."""

from __future__ import annotations

import sys
from ipaddress import ip_address, ip_network

import pytest

from inferd.config import RegionsConfig
from inferd.errors import ConfigError, PermissionDeniedError
from inferd.server.middleware.regions import Regions
from tests.server.mmdb import write_mmdb

GERMAN, FRENCH, KOREAN, SATELLITE, NOWHERE = "192.0.2.7", "198.51.100.7", "2001:db8::7", "203.0.113.7", "10.0.0.7"
RECORDS = {
    "192.0.2.0/24": {"country": {"iso_code": "DE"}},
    "198.51.100.0/25": {"country": {"iso_code": "FR"}, "registered_country": {"iso_code": "US"}},
    "2001:db8::/32": {"country": {"iso_code": "KR"}},
    "203.0.113.0/24": {"registered_country": {"iso_code": "NO"}},
}


@pytest.fixture
def database(tmp_path):
    return write_mmdb(tmp_path / "countries.mmdb", RECORDS)


def served(regions: Regions, address: str | None) -> bool:
    try:
        regions.check(None if address is None else ip_address(address))
    except PermissionDeniedError as error:
        return error.message != "Country, region, or territory not supported"
    return True


def of_those_served(regions: Regions) -> set[str | None]:
    return {address for address in (GERMAN, FRENCH, KOREAN, SATELLITE, NOWHERE, None) if served(regions, address)}


def networks(*texts: str) -> tuple:
    return tuple(ip_network(text) for text in texts)


def test_regions_without_rules_permit_every_address():
    assert len(of_those_served(Regions.open(RegionsConfig()))) == 6


def test_regions_with_allowed_countries_refuse_others_and_unknown_ones(database):
    regions = Regions.open(RegionsConfig(database, allow_countries=frozenset({"DE", "KR", "NO"})))
    assert of_those_served(regions) == {GERMAN, KOREAN, SATELLITE}


def test_regions_with_denied_countries_permit_others_and_unknown_ones(database):
    regions = Regions.open(RegionsConfig(database, deny_countries=frozenset({"FR", "KR"})))
    assert of_those_served(regions) == {GERMAN, SATELLITE, NOWHERE, None}


def test_regions_of_networks_need_no_database():
    assert of_those_served(Regions.open(RegionsConfig(deny_networks=networks("192.0.2.7/32")))) == {
        *(FRENCH, KOREAN, SATELLITE, NOWHERE, None)
    }
    assert of_those_served(Regions.open(RegionsConfig(allow_networks=networks("10.0.0.0/8")))) == {NOWHERE}


def test_network_rules_precede_countries_and_denied_networks_allowed_ones(database):
    regions = Regions.open(
        RegionsConfig(
            database,
            deny_countries=frozenset({"FR", "DE"}),
            allow_networks=networks("192.0.2.0/24", "10.0.0.0/8"),
            deny_networks=networks("10.0.0.7/32"),
        )
    )
    assert of_those_served(regions) == {GERMAN, KOREAN, SATELLITE, None}
    added = Regions.open(
        RegionsConfig(database, allow_countries=frozenset({"DE"}), allow_networks=networks("10.0.0.0/8"))
    )
    assert of_those_served(added) == {GERMAN, NOWHERE}


def test_regions_with_a_file_that_is_no_database_raise(tmp_path):
    path = tmp_path / "x.mmdb"
    path.write_bytes(b"not one")
    with pytest.raises(ConfigError, match=r"country_database: .*x\.mmdb is not a MaxMind database"):
        Regions.open(RegionsConfig(path, allow_countries=frozenset({"DE"})))


def test_regions_with_a_database_without_countries_raise(tmp_path):
    # Such a database would silently allow every address, or none.
    path = write_mmdb(tmp_path / "asn.mmdb", {"192.0.2.0/24": {"as_name": "x"}}, "GeoLite2-ASN")
    with pytest.raises(ConfigError, match=r"GeoLite2-ASN.* has no countries"):
        Regions.open(RegionsConfig(path, deny_countries=frozenset({"DE"})))


def test_regions_without_the_package_raise_and_name_it(database, monkeypatch):
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    with pytest.raises(ConfigError, match=r"pip install 'inferd\[regions\]'"):
        Regions.open(RegionsConfig(database, deny_countries=frozenset({"DE"})))
