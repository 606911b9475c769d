"""Calls of the admin API as one key."""

from __future__ import annotations

import json

from inferd.ledger.operations import Author
from tests.server.test_errors import error_of


class Admin:
    """Calls as one key. `send` returns the response, `do` the JSON of a success."""

    def __init__(self, provider, key):
        self.client, self.key = provider.client, key

    async def send(self, method, path, body=None, idem=None):
        headers = {"authorization": f"Bearer {self.key}"} | ({} if idem is None else {"idempotency-key": idem})
        content = None if body is None else json.dumps(body)
        return await self.client.request(method, f"/admin/{path}", content=content, headers=headers)

    async def do(self, method, path, body=None, idem=None):
        response = await self.send(method, path, body, idem)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, status, code, method, path, body=None, idem=None):
        response = await self.send(method, path, body, idem)
        kind = "permission_error" if status == 403 else "invalid_request_error"
        return error_of(response, status, kind, code, response.json()["error"]["param"])


def change(provider, operation, *names, **options):
    with provider.store.immediate() as conn:
        return operation(conn, *names, by=Author("cli:test", 1), **options)
