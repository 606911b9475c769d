"""`[server]` of models.toml."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from inferd.config.models_file import load_config
from inferd.config.server import RegionsConfig, ServerConfig
from inferd.errors import ConfigError


def load(folder, text):
    for name in ("cert.pem", "key.pem", "c.mmdb"):
        (folder / name).write_bytes(b"x")
    path = folder / "models.toml"
    path.write_text("[server]\n" + text, encoding="utf-8")
    return load_config(path, {}).server


def test_missing_table_has_defaults(tmp_path):
    assert load(tmp_path, "") == ServerConfig((), (), None, None, (), RegionsConfig())


def test_load_reads_every_key(tmp_path):
    assert load(
        tmp_path,
        'hosts = ["AI.example.org.", "box"]\ntrusted_proxies = ["10.0.0.0/8", "::1"]\n'
        'tls_certificate = "cert.pem"\ntls_key = "key.pem"\ncors_origins = ["https://chat.example.org:8443"]\n'
        'country_database = "c.mmdb"\nallow_countries = ["DE", "FR"]\ndeny_countries = ["KP"]\n'
        'allow_networks = ["192.0.2.0/24"]\ndeny_networks = ["2001:db8::/32"]\n',
    ) == ServerConfig(
        hosts=("ai.example.org", "box"),
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("::1")),
        tls_certificate=tmp_path / "cert.pem",
        tls_key=tmp_path / "key.pem",
        cors_origins=("https://chat.example.org:8443",),
        regions=RegionsConfig(
            country_database=tmp_path / "c.mmdb",
            allow_countries=frozenset({"DE", "FR"}),
            deny_countries=frozenset({"KP"}),
            allow_networks=(ip_network("192.0.2.0/24"),),
            deny_networks=(ip_network("2001:db8::/32"),),
        ),
    )


def test_origin_of_a_desktop_app_is_taken(tmp_path):
    origins = ("app://obsidian.md", "tauri://localhost")
    assert load(tmp_path, f"cors_origins = {list(origins)}").cors_origins == origins


def test_keyless_is_the_id_of_a_key(tmp_path):
    assert load(tmp_path, 'keyless = "abcDEF012345"').keyless == "abcDEF012345"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ("inferd-user", "x-openwebui-user-email", "x-openwebui-user-id")),
        ("user_headers = []", ()),
        ('user_headers = ["Remote-User"]', ("remote-user",)),
    ],
)
def test_user_headers_are_lower_case_and_have_a_default(tmp_path, text, names):
    assert load(tmp_path, text).user_headers == names


def test_whole_key_as_keyless_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(ConfigError, match="keyless: expected the id of a key") as caught:
        load(tmp_path, f'keyless = "sk-inferd-abcDEF012345-{"x" * 43}"')
    assert "abcDEF012345" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('keyless = "abcDEF012345"\ntrusted_proxies = ["127.0.0.1"]', "keyless: excludes trusted_proxies"),
        ('keyless = "abcDEF012345"\ncors_origins = ["*"]', 'keyless: excludes "*" in cors_origins'),
        ('keyless = ""', "keyless: expected the id of a key"),
        ("keyless = true", "keyless: expected a string"),
        ('user_headers = ["x user"]', "user_headers: 'x user': write the name of a header"),
        ('user_headers = ["Authorization"]', "user_headers: 'Authorization': this header has a secret"),
        ('hosts = ["https://a.example"]', "hosts: 'https://a.example': write a host name"),
        ('hosts = ["a.example:80"]', "hosts: 'a.example:80': write a host name"),
        ('hosts = ["*"]', "hosts: '*': write a host name"),
        ("hosts = [1]", "hosts: must be an array of strings"),
        ('trusted_proxies = ["10.0.0.1/8"]', "trusted_proxies: '10.0.0.1/8': 10.0.0.1/8 has host bits set"),
        ('trusted_proxies = ["proxy"]', "trusted_proxies: 'proxy': 'proxy' does not appear to be"),
        ('tls_key = "key.pem"', "tls_key: needs tls_certificate"),
        ('tls_certificate = "nothing.pem"', "tls_certificate: no such file: "),
        ('cors_origins = ["https://a.example/"]', "cors_origins: 'https://a.example/': write an origin"),
        ('cors_origins = ["file://"]', "cors_origins: 'file://': write an origin"),
        ('cors_origins = ["a.example"]', "cors_origins: 'a.example': write an origin"),
        ('allow_countries = ["DE"]', "allow_countries: needs country_database"),
        ('country_database = "c.mmdb"', "country_database: needs allow_countries or"),
        ('country_database = "c.mmdb"\ndeny_countries = ["de"]', "deny_countries: 'de': write the two capital"),
        (
            'country_database = "c.mmdb"\ndeny_countries = ["DE"]\nallow_countries = ["DE", "FR"]',
            "deny_countries: DE is in allow_countries too",
        ),
        ("port = 80", "port: unknown key"),
    ],
)
def test_invalid_value_names_table_and_key(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert f"[server] {said}" in caught.value.message
