"""Lines that no honest customer writes: each is told what is wrong with it, and the lines around it are run."""

from __future__ import annotations

import json

import pytest

from tests.server.test_hostile_input import ABSURD, BROKEN
from tests.serving.batches.customer import ENDPOINT, line

pytestmark = pytest.mark.anyio

LINES = [
    *(body for body in BROKEN if body),
    *(b'{"custom_id": "%d", "method": "POST", "url": "%s", "body": %s}' % (number, ENDPOINT.encode(), body)
      for number, body in enumerate([body for body in BROKEN if body and b"\n" not in body] + ABSURD)),
    b'{"custom_id": "\xff", "method": "POST", "url": "/", "body": {}}',
    b'{"custom_id": "\\ud800", "method": "POST", "url": "/", "body": {}}',
    b'{"custom_id": "' + b"a" * 300_000 + b'"}',
    b"\x00" * 1000,
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
]  # fmt: skip


async def test_hostile_lines_are_refused_and_the_others_run(provider, customer):
    async with provider.batching():
        batch = await customer.create([line("first", max_tokens=2), *LINES, line("last", max_tokens=2)])
        batch = await customer.until(batch["id"], "completed", "failed")
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": len(LINES) + 2, "completed": 2, "failed": len(LINES)}
        assert set(await customer.lines_of(batch["output_file_id"])) == {"first", "last"}
        response = await provider.client.get(f"/v1/files/{batch['error_file_id']}/content")
        told = [json.loads(text) for text in response.text.splitlines()]
        assert len(told) == len(LINES)
        for each in told:
            # What only a grammar's trial shows is found when the line is run.
            error = each["error"] or each["response"]["body"]["error"]
            assert each["response"] is None or each["response"]["status_code"] == 400
            assert len(error["message"]) < 2000
