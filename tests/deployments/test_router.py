"""From names to deployments, and from deployments to engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inferd.config import Aliases, Config, load_config
from inferd.deployments.router import Router
from inferd.errors import ModelNotFoundError
from inferd.price import Price


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    path = tmp_path / "models.toml"
    path.write_text(
        """
[models.a]
source = "a.gguf"
max_context = 64
[models.spare]
source = "a.gguf"
[models.b]
source = "a.gguf"
[deployments."lab/b"]
model = "b"
serverless = true
usd_per_1m_tokens = 1
default_max_tokens = 9
[deployments."home/a"]
model = "a"
serverless = true
[deployments."home/a-priced"]
model = "a"
serverless = true
input_usd_per_1m_tokens = 0.1
output_usd_per_1m_tokens = 0.4
"""
    )
    return load_config(path)


def test_deployments_keep_the_files_order_and_what_it_says(config):
    router = Router.from_config(config)
    assert [deployment.name for deployment in router.deployments()] == ["lab/b", "home/a", "home/a-priced"]
    first = router.find("lab/b")
    assert (first.owner, first.price, first.default_max_tokens) == ("lab", Price(1_000_000, 1_000_000), 9)
    assert router.find("home/a").price is None
    assert router.find("home/a").default_max_tokens == 4096
    assert first.created_s == int(config.models["b"].source.stat().st_mtime)


def test_deployments_of_one_model_share_its_engine_and_a_model_without_any_is_not_loaded(config):
    router = Router.from_config(config)
    assert router.find("home/a").replica is router.find("home/a-priced").replica
    assert sorted(replica.key for replica in router.replicas) == ["a", "b"]
    assert router.find("home/a").replica.max_context == 64


def test_nothing_is_ready_before_it_is_started(config):
    assert not Router.from_config(config).is_ready


def test_tag_latest_is_left_out_unless_a_name_has_it(config):
    router = Router.from_config(replace(config, aliases=Aliases({"home/b:latest": "lab/b", "b": "lab/b"})))
    assert router.find("home/a:latest").name == "home/a"
    assert router.find("home/b:latest").name == "lab/b"
    assert router.find("b:latest").name == "lab/b"
    for name in ("home/b", "home/a:8b", "home/a:latest:latest"):
        with pytest.raises(ModelNotFoundError, match=name):
            router.find(name)


@pytest.mark.parametrize("name", ["home/none", "home", "HOME/A", ""])
def test_an_unknown_name_is_said_and_where_to_look(config, name):
    with pytest.raises(ModelNotFoundError, match="GET /v1/models") as caught:
        Router.from_config(config).find(name)
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_a_price_holds_from_the_moment_that_the_free_time_ends(config):
    """R13"""
    text = config.path.read_text().replace(
        "usd_per_1m_tokens = 1\n", "usd_per_1m_tokens = 1\nfree_until = 2026-12-01\n"
    )
    config.path.write_text(text)
    deployment = Router.from_config(load_config(config.path)).find("lab/b")
    assert deployment.price_at(1_796_083_199_999) is None
    assert deployment.price_at(1_796_083_200_000) == deployment.price == Price(1_000_000, 1_000_000)
    assert Router.from_config(config).find("home/a-priced").price_at(0) == Price(100_000, 400_000)


def test_alias_finds_its_deployment_until_that_is_retired(config):
    text = config.path.read_text().replace(
        "usd_per_1m_tokens = 1\n", "usd_per_1m_tokens = 1\ndeprecated_at = 2026-12-01\nretires_at = 2026-12-31\n"
    )
    config.path.write_text(text + '[aliases]\n"gpt-*" = "lab/b"\n"home/*" = "lab/b"\n')
    now_ms = 0
    router = Router.from_config(load_config(config.path), lambda: now_ms)
    assert router.find("gpt-4o") is router.find("lab/b")
    assert router.find("gpt-4o").aliases == ("gpt-*", "home/*")
    assert router.find("home/a").name == "home/a", "a deployment's own name goes before a pattern"
    assert router.find("home/none").name == "lab/b"
    now_ms = 2**62
    with pytest.raises(ModelNotFoundError, match="`gpt-4o` has been retired"):
        router.find("gpt-4o")


def test_accounting_line_is_left_out_unless_the_server_is_told_otherwise(config):
    text = config.path.read_text()
    for line, strips in (("", True), ("strip_attribution = true\n", True), ("strip_attribution = false\n", False)):
        config.path.write_text(f"{text}[server]\n{line}")
        replicas = Router.from_config(load_config(config.path)).replicas
        assert {replica._strips_attribution for replica in replicas} == {strips}
