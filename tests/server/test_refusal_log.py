"""Lines of refused requests, found by their ids and bounded in number."""

from __future__ import annotations

import logging
import re

import pytest

from inferd.server.refusal_log import MAX_LINES, MAX_SOURCES, RefusalLog
from tests.serving.provider import PRICED, chat_body

pytestmark = pytest.mark.anyio

LOGGER = "inferd.server.refusal_log"


async def test_refused_request_is_logged_with_its_id_caller_and_cause(provider, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    broke = {"authorization": f"Bearer {provider.new_key('broke')}"}
    chats = "/v1/chat/completions"
    answers = [
        await provider.client.post(chats, json=chat_body("a secret"), headers=broke),
        await provider.client.post(chats, json=chat_body("a secret"), headers={"authorization": "Bearer sk-bad"}),
        await provider.client.post(chats, json=chat_body("a secret", model="nope/\nx")),
        await provider.client.post("/v1/messages", json=chat_body("a secret", max_tokens="three")),
        await provider.client.get("/v1/nothing"),
    ]
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert [line.split()[0] for line in lines] == [answer.headers["x-request-id"] for answer in answers]
    told = [re.sub(r"key=\S+", "key=ID", re.sub(r", \d+ ms$", "", line.partition(" ")[2])) for line in lines]
    acme = "team=acme project=inference key=ID"
    assert told == [
        f"402 credit_balance_exhausted POST {chats} team=broke project=inference key=ID model={PRICED} from=127.0.0.1",
        f"401 invalid_api_key POST {chats} from=127.0.0.1",
        f"404 model_not_found POST {chats} {acme} model=nope/ x from=127.0.0.1",
        f"400 invalid_type POST /v1/messages {acme} from=127.0.0.1",
        "404 not_found GET /v1/nothing from=127.0.0.1",
    ]
    assert "secret" not in caplog.text


def scope(path="/v1/models", site="192.0.2.1", code="invalid_api_key"):
    state = {"client_address": site, "error_code": code, "request_id": "req_1"}
    return {"method": "GET", "path": path, "state": state}


def test_flood_of_refusals_is_summed_up(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    now_s = 0.0
    log = RefusalLog(lambda: now_s)
    for _ in range(1000):
        log.write(scope(), 401, 1)
    log.write(scope(site="192.0.2.2"), 401, 1)
    assert len(caplog.records) == MAX_LINES + 1
    now_s = 61.0
    log.write(scope(), 401, 1)
    assert caplog.records[-2].getMessage() == f"{1000 - MAX_LINES} more refused: 192.0.2.1 401 invalid_api_key"


def test_sources_without_end_are_bounded(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    log = RefusalLog(lambda: 0.0)
    for number in range(10 * MAX_SOURCES):
        log.write(scope(site=f"192.0.2.{number}"), 401, 1)
    assert len(caplog.records) == MAX_SOURCES + MAX_LINES
    assert len(log._num_refused) <= MAX_SOURCES + 1
