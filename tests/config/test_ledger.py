"""`[ledger]` and `[alerts]` of models.toml."""

from __future__ import annotations

import pytest

from inferd.config.ledger import AlertsConfig, LedgerConfig
from inferd.config.models_file import load_config
from inferd.errors import ConfigError
from inferd.plans import AlertPolicy

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="


def load(folder, text):
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, {})


def test_missing_tables_have_defaults(tmp_path):
    config = load(tmp_path, "")
    assert config.ledger == LedgerConfig(contact=None, usage_retention_days=None)
    assert config.alerts == AlertsConfig((), b"", False)
    assert config.catalog.alerts == AlertPolicy((50, 80, 100), 10)


def test_load_reads_every_key(tmp_path):
    config = load(
        tmp_path,
        '[ledger]\ncontact = "Ada, 2.14"\nusage_retention_days = 60\n'
        '[alerts]\nwebhooks = ["https://hooks.example.org/x", "http://127.0.0.1:8080/", "http://[::1]/a"]\n'
        f'webhook_secret = "{SECRET}"\nallow_private_addresses = true\n'
        "thresholds_percent = [90, 100]\nlow_balance_percent = 0\n",
    )
    assert config.ledger == LedgerConfig("Ada, 2.14", 60)
    assert config.alerts.webhooks == ("https://hooks.example.org/x", "http://127.0.0.1:8080/", "http://[::1]/a")
    assert len(config.alerts.webhook_secret) == 32
    assert config.alerts.allow_private_addresses
    assert config.catalog.alerts == AlertPolicy((90, 100), 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ledger = 3", "ledger: expected a table, got an integer"),
        ("[ledger]\nretention = 3", "[ledger] retention: unknown key"),
        ("[ledgr]\nx = 3", "[ledgr]: unknown table; did you mean ledger?"),
        ('[ledger]\ncontact = ""', "[ledger] contact: must have 1 to 200"),
        ("[ledger]\nusage_retention_days = 59", "[ledger] usage_retention_days: must lie between 60"),
        ("[alerts]\nthresholds_percent = [80, 50]", "[alerts] thresholds_percent: must be different"),
        ("[alerts]\nthresholds_percent = [0]", "[alerts] thresholds_percent: must be different"),
        ("[alerts]\nthresholds_percent = [50.5]", "[alerts] thresholds_percent: must be an array of integers"),
        ("[alerts]\nlow_balance_percent = 101", "[alerts] low_balance_percent: must lie"),
        ('[alerts]\nwebhooks = "https://a.example"', "[alerts] webhooks: expected an array"),
        ('[alerts]\nwebhooks = ["https://a.example"]', "[alerts] webhook_secret: is missing"),
        (f'[alerts]\nwebhook_secret = "{SECRET[6:]}"', "[alerts] webhook_secret: write whsec_"),
        ('[alerts]\nwebhook_secret = "whsec_c2hvcnQ="', "[alerts] webhook_secret: write whsec_"),
        *(
            (f'[alerts]\nwebhook_secret = "{SECRET}"\nwebhooks = ["{url}"]', f"[alerts] webhooks: {url}: must")
            for url in (
                *("http://a.example/", "http://10.0.0.1/", "http://localhost.example/", "ftp://a.example", "a.example"),
                *("https://ada:secret@a.example/", "https:///x", "https://a.example/#x"),
            )
        ),
        (
            f'[alerts]\nwebhook_secret = "{SECRET}"\nwebhooks = ["https://a.example", "https://a.example"]',
            "[alerts] webhooks: lists a URL twice",
        ),
    ],
)
def test_invalid_value_names_table_and_key(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert said in caught.value.message
    assert SECRET not in caught.value.message
